"""The picture of a shape plan: the shapes over the samples, what each of them costs, and what more would gain."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import LengthTable, plan_shapes
from multimodal_pad.planning.picture import POLICIES, shortened
from multimodal_pad.planning.plan_plot import MOST_ROWS, draw_plan, plot_plan
from tests.helpers.plans import paid, table_of

matplotlib = pytest.importorskip("matplotlib")

TABLE = table_of([3, 9], [4, 30], [12, 8])


@pytest.mark.parametrize(("name", "begins"), [("plan.png", b"\x89PNG"), ("plan.SVG", b"<?xml"), ("plan.pdf", b"%PDF")])
def test_the_ending_of_the_name_is_the_format(tmp_path, name, begins):
    plot_plan(plan_shapes(TABLE, max_shapes=2), TABLE, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "plan.png"
    plot_plan(plan_shapes(TABLE, max_shapes=2), TABLE, path)
    before = path.read_bytes()

    def fails_midway(_, out, **__):
        out.write(b"half") if hasattr(out, "write") else Path(out).write_bytes(b"half")
        raise MemoryError

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails_midway)
    with pytest.raises(MemoryError):
        plot_plan(plan_shapes(TABLE, max_shapes=1), TABLE, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


LONG = "facial_action_units_of_the_left_camera"


def random_table(modalities, samples=400):
    names = (LONG, "audio$", "<visual>", LONG[::-1], "touch", "depth", "heat")[:modalities]
    rng = np.random.default_rng(modalities)
    return LengthTable(names, rng.integers(1, 200, (samples, modalities)))


def rows_of(figure):
    """The cells of the table of shapes, heading first, and the real and padded part of each bar."""
    words, bars = figure.axes[-2:]
    lines = {}
    for text in words.texts:
        lines.setdefault(text.get_position()[1], []).append(text.get_text())
    half = len(bars.patches) // 2
    widths = [bar.get_width() for bar in bars.patches]
    return [lines[place] for place in sorted(lines)], np.array([widths[:half], widths[half:]])


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["length", "random"])
@pytest.mark.parametrize(("modalities", "shapes"), [(1, 1), (1, 16), (2, 4), (3, 12), (4, 16), (7, 3)])
def test_each_shape_has_its_samples_and_its_padding(modalities, shapes, grouping):
    table = random_table(modalities)
    plan = plan_shapes(table, max_shapes=shapes, grouping=grouping, batch_size=8, effort=0)
    figure = draw_plan(plan, table)
    (heading, *rows), (real, padding) = rows_of(figure)
    assert len(rows) == len(plan)
    assert heading[-3:] == ["rows", "samples", "padding"]
    for number, row in enumerate(rows):
        assert row[0] == str(number + 1)
        assert row[-2] == f"{plan.samples[number]:,.0f}"
        share = 100 * (1 - plan.shape_efficiency[number])
        assert float(row[-1].removesuffix(" %")) == pytest.approx(share, abs=0.51)
        if modalities <= 6:
            assert row[1 : 1 + modalities] == [f"{length:,}" for length in plan.lengths[number].tolist()]
    assert real + padding == pytest.approx(100 * plan.costs * plan.samples / paid(plan))
    assert real.sum() == pytest.approx(100 * plan.efficiency)


def test_the_cheaper_shapes_of_a_large_plan_share_a_row():
    table = random_table(2)
    plan = plan_shapes(table, max_shapes=MOST_ROWS + 6, effort=0)
    (_, *rows), parts = rows_of(draw_plan(plan, table))
    assert len(rows) == MOST_ROWS + 1
    assert rows[-1][0] == f"{len(plan) - MOST_ROWS} more"
    assert parts.sum() == pytest.approx(100)


def test_a_shape_without_samples_wastes_nothing():
    plan = plan_shapes(random_table(1), max_shapes=2)
    plan.samples[0] = 0
    (_, first, _), _ = rows_of(draw_plan(plan, None))
    assert first[-2:] == ["0", "-"]


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_texts_stand_beside_each_other_whatever_the_names(modalities):
    table = random_table(modalities)
    figure = draw_plan(plan_shapes(table, max_shapes=16, effort=0), table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    words = figure.axes[-2]
    boxes = [text.get_window_extent() for text in words.texts if text.get_position()[1] == -1]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    whole = figure.bbox
    for panel in figure.axes[:-2]:
        for text in (panel.title, panel._left_title, panel.xaxis.label, panel.yaxis.label):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0
            assert box.x1 <= whole.x1


def test_a_policy_has_its_colour():
    plan = plan_shapes(TABLE, max_shapes=2)
    curve = draw_plan(plan, TABLE, {"fixed": _Other(1, 0.2), "mine": _Other(2, 0.3)}).axes[-3]
    colours = {line.get_label(): line.get_color() for line in curve.lines}
    assert colours["fixed"] == POLICIES["fixed"]
    assert colours["planned"] == POLICIES["planned"]
    assert colours["mine"] not in POLICIES.values()


class _Other:
    def __init__(self, shapes, cost):
        self.shapes, self.cost = shapes, cost


@pytest.mark.parametrize("most", [5, 6, 12, 30])
def test_a_long_name_keeps_both_ends(most):
    short = shortened(LONG, most)
    assert len(short) <= most
    begin, end = short.split("…")
    assert LONG.startswith(begin)
    assert LONG.endswith(end)
    assert shortened("text", most) == "text"
