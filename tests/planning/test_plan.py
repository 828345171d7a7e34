import json
from functools import cache

import numpy as np
import pytest

from multimodal_pad import LengthTable, PaddingError, Planned, ShapePlan, TransformerCost, attention_area, plan_shapes
from multimodal_pad.errors import PlanError
from multimodal_pad.planning.plan_fit import plan_efficiency

TABLE = LengthTable(("text", "audio"), np.array([[n % 9, 3 * n % 40] for n in range(500)]))
COST = TransformerCost(("text", "audio"), feature_widths={"audio": 74}, kernel_sizes={"audio": 3})


def own_cost(lengths):
    return np.asarray(lengths).sum(axis=1) + 1.0


@pytest.mark.parametrize("cost", [COST, attention_area, own_cost])
def test_a_plan_survives_json(cost):
    plan = plan_shapes(TABLE, max_shapes=4, cost=cost, alignment={"audio": 4})
    again = ShapePlan.from_json(plan.to_json(), cost if cost is own_cost else None)
    assert str(again) == str(plan)
    assert again.to_json() == plan.to_json()
    for name in ("lengths", "batch_sizes", "costs", "samples", "efficiencies", "bounds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plan, name))
    assert again.cost == cost
    np.testing.assert_array_equal(Planned(again).round_up(TABLE.values), Planned(plan).round_up(TABLE.values))


def test_without_its_cost_function_a_plan_is_compared_in_positions():
    plan = plan_shapes(TABLE, max_shapes=4, cost=own_cost)
    again = ShapePlan.from_json(plan.to_json())
    assert again.cost is None
    assert again.cost_name.endswith("test_plan.own_cost")
    assert again.to_json() == plan.to_json()
    assert plan_efficiency(again, TABLE) == pytest.approx(plan.position_efficiency["total"])
    assert plan_efficiency(plan, TABLE) == pytest.approx(plan.efficiency)


def test_a_function_of_ones_own_is_not_taken_for_ours():
    def position_count(lengths):
        return 9.0 * np.asarray(lengths).sum(axis=1)

    class Dearer(TransformerCost):
        def __call__(self, lengths):
            return 2 * super().__call__(lengths) + 1e6

    for cost in (position_count, Dearer(TABLE.modalities)):
        again = ShapePlan.from_json(plan_shapes(TABLE, max_shapes=2, cost=cost).to_json())
        assert again.cost is None
        assert again.cost_name.split(".")[-1] == getattr(cost, "__name__", "Dearer")


def test_a_cost_that_is_given_is_the_one_that_is_saved():
    text = plan_shapes(TABLE, max_shapes=2).to_json()
    again = ShapePlan.from_json(text, attention_area)
    assert ShapePlan.from_json(again.to_json()).cost is attention_area


def test_numpy_numbers_in_a_cost_are_written_as_plain_ones():
    cost = TransformerCost(TABLE.modalities, d_model=np.int64(16), memory_weight=np.float32(0.5))
    again = ShapePlan.from_json(plan_shapes(TABLE, max_shapes=2, cost=cost).to_json())
    assert again.cost == cost


def test_a_cost_of_other_modalities_is_refused():
    text = plan_shapes(TABLE, max_shapes=2, cost=own_cost).to_json()
    with pytest.raises(PaddingError, match="got a cost of the modalities"):
        ShapePlan.from_json(text, TransformerCost(("audio", "text")))


def test_a_saved_plan_is_read_back_and_not_overwritten(tmp_path):
    plan = plan_shapes(TABLE, max_shapes=2)
    path = tmp_path / "plan.json"
    plan.save(path)
    assert ShapePlan.load(path).to_json() == plan.to_json()
    with pytest.raises(FileExistsError, match="name another file"):
        plan.save(path)
    plan_shapes(TABLE, max_shapes=3).save(path, overwrite=True)
    assert len(ShapePlan.load(path)) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"], "nothing is left beside it"


def test_the_file_format_is_that_of_version_1():
    """A plan written by an earlier release must be read by a later one: change VERSION with the format."""
    plan = plan_shapes(LengthTable(("text",), np.array([[3], [5], [5], [9]])), max_shapes=2, batch_size=4)
    assert json.loads(plan.to_json()) == {
        "format": "multimodal_pad shape plan",
        "version": 1,
        "modalities": ["text"],
        "shapes": [[5], [9]],
        "batch_sizes": [4, 4],
        "costs": [5.0, 9.0],
        "samples": [3.0, 1.0],
        "shape_efficiency": [13 / 15, 1.0],
        "efficiencies": [22 / 36, 22 / 24],
        "bounds": [22 / 36, 22 / 24],
        "efficiency": 22 / 24,
        "position_efficiency": {"text": 22 / 24, "total": 22 / 24},
        "alignment": {"text": 1},
        "grouping": "length",
        "batch_budget": None,
        "fingerprint": "e8501734d3796e2ae56be2cbf60a2ce2c9f06099e3cfc6a2500d5407074f00e3",
        "savings": [],
        "cost": {"name": "position_count"},
    }


def test_what_is_printed():
    plan = plan_shapes(LengthTable(("text", "audio"), np.array([[1, 5]] * 1000 + [[9, 300]])), max_shapes=2)
    assert str(plan).splitlines() == [
        "2 batch shapes for 1,001 samples, length grouping",
        "text  audio  rows  samples  efficiency",
        "   1      5    32    1,000       1.000",
        "   9    300    32        1       1.000",
        "padding efficiency: cost 1.000; positions text 1.000, audio 1.000, total 1.000",
        "bound: 1.000 for any plan of at most 2; a better one saves at most 0.0%",
        "the longest sample (0.1%): without it the padded cost is 4.9% less, cut to the rest 4.8%",
        "the longest 10 samples (1.0%): without them the padded cost is 5.8% less, cut to the rest 4.8%",
    ]


@cache
def saved_plan():
    return plan_shapes(TABLE, max_shapes=2, cost=COST).to_json()


def changed(**values):
    plan = json.loads(saved_plan())
    plan.update(values)
    return json.dumps({name: value for name, value in plan.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the text is not JSON"),
        ("[1, 2]", "the JSON lacks"),
        ('{"shapes": [[1, 2]]}', "the JSON lacks"),
        (changed(version=2), "of version 2, and this multimodal_pad reads version 1"),
        (changed(shapes=...), r"lacks \['shapes'\]"),
        ("[" * 200_000, "the text is not JSON"),
        (changed(version=True), "of version True"),
        (changed(version=1.0), "of version 1.0"),
        (changed(batch_budget=0), "'batch_budget' makes no sense"),
        (changed(batch_sizes=[10**18, 1]), "'batch_sizes' makes no sense"),
        (
            changed(grouping="random", batch_budget=9.0),
            "'grouping' makes no sense: .*one number of rows, and no budget",
        ),
        (changed(grouping="random", batch_sizes=[8, 4]), "'grouping' makes no sense: .*one number of rows"),
        (changed(efficiency=0.01), "'efficiencies' makes no sense: .*the last must be"),
        (changed(savings={}), "'savings' makes no sense"),
        (changed(shapes=[[1, 2], [3]]), "'shapes' makes no sense"),
        (changed(shapes=[[0, 2], [3, 4]]), "'shapes' makes no sense"),
        (changed(shapes=[[1.5, 2], [3, 4]]), "'shapes' makes no sense"),
        (changed(shapes=[[1, 2, 3], [3, 4, 5]]), "'shapes' makes no sense: .* 2 lengths of at least 1 per shape"),
        (changed(shapes=[]), "'shapes' makes no sense"),
        (changed(batch_sizes=[1]), "'batch_sizes' makes no sense: .* for each of 2 shapes"),
        (changed(batch_sizes=[0, 1]), "'batch_sizes' makes no sense"),
        (changed(batch_budget="much"), "'batch_budget' makes no sense"),
        (changed(costs=[2.0, 1.0]), "'costs' makes no sense: .* in the order of their costs"),
        (changed(costs=["1", 1.0]), "'costs' makes no sense"),
        (changed(samples=[1.0, float("nan")]), "'samples' makes no sense"),
        (changed(modalities=["text", "text"]), "'modalities' makes no sense"),
        (changed(modalities=["text"]), "'shapes' makes no sense"),
        (changed(modalities="text"), "'modalities' makes no sense"),
        (changed(grouping="alphabet"), "'grouping' makes no sense: .*it must be length or random"),
        (changed(fingerprint=7), "'fingerprint' makes no sense"),
        (changed(efficiency="good"), "'efficiency' makes no sense"),
        (changed(efficiency=-7), "'efficiency' makes no sense"),
        (changed(efficiency=True), "'efficiency' makes no sense"),
        (changed(bounds=[5.0, 5.0]), "'bounds' makes no sense: .* between 0 and 1"),
        (changed(bounds=[1.0]), "'bounds' makes no sense"),
        (changed(position_efficiency={}), "'position_efficiency' makes no sense: .* each modality and the total"),
        (changed(alignment={"text": -3, "audio": 1}), "'alignment' makes no sense"),
        (changed(alignment={"text": 1, "audio": 1000}), "'alignment' makes no sense: .* multiples"),
        (changed(savings=[{"share": 1}]), "'savings' makes no sense"),
        (changed(savings=[{"share": "x", "samples": 1, "dropping": 0, "truncating": 0}]), "'savings' makes no sense"),
        (changed(cost={"name": "TransformerCost", "options": {"width": 3}}), "'cost' makes no sense"),
        (changed(cost={"name": "TransformerCost", "options": {"modalities": ["a", "b"]}}), "'cost' makes no sense"),
        (
            changed(cost={"name": "TransformerCost", "options": {"modalities": ["text", "audio"], "d_model": "x"}}),
            "'cost' makes no sense",
        ),
        (changed(cost=3), "'cost' makes no sense"),
    ],
)
def test_broken_and_foreign_files(text, message, tmp_path):
    with pytest.raises(PlanError, match=message):
        ShapePlan.from_json(text)
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=f"broken.json: .*{message}"):
        ShapePlan.load(path)
