"""What plans and tables show: a line, a table in a notebook, and a picture."""

import copy
import pickle

import numpy as np
import pytest

from multimodal_pad import Ladder, LengthTable, PackingPlan, PaddingError, ShapePlan, plan_packing, plan_shapes
from multimodal_pad.errors import LengthError, UncoveredLengthError

COLUMNS = {"text": [3, 5, 9, 1] * 6, "a<b>": [30, 20, 80, 4] * 6}
SHAPES = plan_shapes(COLUMNS, max_shapes=2, batch_size=4)
PACKING = plan_packing(COLUMNS, batch_size=4)
PLANS = [SHAPES, PACKING]


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        (SHAPES, "ShapePlan(2 shapes of text, a<b>, batches of 4, length grouping, "),
        (PACKING, "PackingPlan(batches of 4 in (text "),
        (SHAPES.table, "LengthTable(24 samples: text up to 9, a<b> up to 80)"),
        (LengthTable(("text",), np.array([[1200]])), "LengthTable(1 sample: text up to 1,200)"),
        (Ladder({"text": range(1, 400), "audio": [8]}), "Ladder(edges: text 399 from 1 to 399, audio 1 from 8 to 8)"),
    ],
)
def test_a_line_says_what_it_is(thing, line):
    assert repr(thing).startswith(line)
    assert len(repr(thing)) < 120
    assert "\n" not in repr(thing)


def test_the_fingerprint_of_a_ladder_is_not_of_its_line():
    assert len({Ladder({"text": [*range(1, 400), last]}).fingerprint for last in (500, 501)}) == 2
    near = [Ladder({"text": [*range(1, 200), *range(201 + odd, 400)]}) for odd in (0, 1)]
    assert near[0].fingerprint != near[1].fingerprint


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_notebook_shows_the_table_of_the_plan_escaped(plan):
    html = plan._repr_html_()
    for line in str(plan).splitlines():
        for word in line.replace("<", "&lt;").replace(">", "&gt;").split():
            assert word in html
    assert "<b>" not in html.replace("<tbody>", "")
    assert html.count("<td>") == len(plan) * len(plan._rows()[0])


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_the_table_that_it_was_made_for_stays_with_the_plan_alone(plan):
    assert plan.table is not None
    for again in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), type(plan).from_json(plan.to_json())):
        assert again.table is None
        assert again.to_json() == plan.to_json()


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_draws_itself(plan, tmp_path):
    pytest.importorskip("matplotlib")
    figure = plan.plot()
    assert len(figure.axes) == (4 if plan is SHAPES else 3)
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "plan.svg")
    assert "<svg" in (tmp_path / "plan.svg").read_text(encoding="utf-8")
    plan.save(tmp_path / "plan.json")
    read = type(plan).load(tmp_path / "plan.json")
    assert len(read.plot(COLUMNS).axes) == len(figure.axes)
    without = read.plot()
    assert without._repr_png_().startswith(b"\x89PNG")
    assert len(without.axes) == (4 if plan is SHAPES else 1)
    with pytest.raises(LengthError, match="modalities"):
        plan.plot({"visual": [3]})


def test_one_modality_is_drawn_without_samples_too():
    pytest.importorskip("matplotlib")
    plan = ShapePlan.from_json(plan_shapes({"text": [3, 9]}, max_shapes=2).to_json())
    assert plan.plot()._repr_png_().startswith(b"\x89PNG")


def test_lengths_that_a_packing_plan_does_not_hold_are_not_drawn():
    pytest.importorskip("matplotlib")
    plan = plan_packing({"text": [3, 5] * 8}, batch_size=4, shares=2)
    with pytest.raises(UncoveredLengthError, match=r"sample 1: 'text' has 99 positions.* of one of 2 shares is"):
        plan.plot({"text": [3, 99]})


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_without_matplotlib_the_error_says_what_to_install(plan, monkeypatch):
    monkeypatch.setattr("multimodal_pad.planning.picture.find_spec", lambda _: None)
    with pytest.raises(PaddingError, match=r"plots need matplotlib: pip install 'multimodal-pad\[plot\]'"):
        plan.plot()


def test_plans_are_what_they_are_read_as():
    assert isinstance(PackingPlan.from_json(PACKING.to_json()), PackingPlan)
