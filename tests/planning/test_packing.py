"""Capacities: as small as an epoch allows, checked against it, told, saved and read."""

import json

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, LengthTable, Packed, PackingPlan, PaddingError, plan_packing
from multimodal_pad.errors import LengthError, PlanError
from tests.strategies import make_samples

RNG = np.random.default_rng(1)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(1, 30, 640), RNG.integers(1, 200, 640)], axis=1))
HEAVY = LengthTable(("text",), np.append(RNG.integers(1, 20, 638), [400, 380])[:, None])


def test_one_shape_nearly_full():
    plan = plan_packing(TABLE, batch_size=32, alignment=1)
    assert len(plan) == 1
    assert plan.position_efficiency["total"] > 0.97
    assert plan.efficiency == pytest.approx(plan.position_efficiency["total"])
    assert plan.unrounded_efficiency == plan.position_efficiency


def test_the_policy_keeps_of_other_lengths_what_its_batches_would():
    plan = plan_packing(TABLE, batch_size=32, alignment=1)
    assert Packed(plan).efficiency(TABLE, plan.cost) == pytest.approx(plan.efficiency, abs=1e-3)
    halves = LengthTable(TABLE.modalities, TABLE.values // 2)
    assert Packed(plan).efficiency(halves, plan.cost) == pytest.approx(plan.efficiency / 2, abs=0.02)


def test_rounding_is_told_apart_from_what_is_dealt():
    plan = plan_packing(TABLE, batch_size=32, alignment={"text": 64})
    assert plan.lengths[0, 0] % 64 == 0
    assert plan.alignment == {"text": 64, "audio": 1}
    assert plan.position_efficiency["text"] < plan.unrounded_efficiency["text"]
    assert plan.position_efficiency["audio"] == plan.unrounded_efficiency["audio"]
    assert "before rounding to text 64, audio 1: text 0.9" in str(plan)


def test_equal_lengths_fill_it_wholly():
    plan = plan_packing(LengthTable(("a", "b"), np.full((64, 2), 50)), batch_size=16)
    assert plan.lengths.tolist() == [[800, 800]]
    assert plan.efficiency == 1


def test_a_second_shape_takes_what_is_long_where_that_pays():
    one, two = (plan_packing(HEAVY, batch_size=16, max_shapes=count) for count in (1, 2))
    assert (len(one), len(two)) == (1, 2)
    assert one.lengths[0, 0] >= 400 > two.lengths[0, 0]
    assert two.efficiency > 1.5 * one.efficiency
    assert two.batches.round().sum() == 40
    assert len(plan_packing(TABLE, batch_size=32, max_shapes=2)) == 1
    batcher = BucketBatcher(make_samples(HEAVY), Packed(two))
    assert {batch.shape for batch in batcher.epoch(0)} == set(two.batch_shapes)
    assert "the longest text of 400 positions is 2." in str(one)


def test_shares_hold_their_part():
    plan = plan_packing(TABLE, batch_size=32, shares=4, alignment=8)
    assert not (plan.lengths % (8 * 4)).any()
    assert "batches of 32, in 4 shares" in str(plan)


def test_a_table_longer_than_what_is_looked_at(monkeypatch):
    monkeypatch.setattr("multimodal_pad.planning.packing.MOST_SAMPLES", 320)
    plan = plan_packing(TABLE, batch_size=32)
    assert plan.batches.sum() == pytest.approx(20, abs=1)
    assert plan.longest == {"text": 29, "audio": 199}
    forecast = BucketBatcher(make_samples(TABLE), Packed(plan)).forecast(0)
    assert forecast.position_efficiency["total"] > 0.93


def test_the_progress_is_told():
    seen = []
    plan_packing(TABLE, progress=seen.append)
    assert seen
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"batch_size": 0}, PaddingError, "batch_size"),
        ({"max_shapes": 3}, PaddingError, "got max_shapes=3; packed batches have 1 shape, or 2 where .*; give 1 or 2"),
        ({"max_shapes": "auto"}, PaddingError, "got max_shapes='auto'; it must be a whole number"),
        ({"cost": lambda n: -n.sum(axis=1)}, PaddingError, r"the cost of \(text \d+, audio \d+\) is -\d+\.0; it must"),
        ({"cost": lambda n: n.sum() * np.nan}, PaddingError, r"the cost of 640 rows has shape \(\); it must be one"),
        ({"cost": lambda n: n[:, 0] * np.nan}, PaddingError, "is nan; it must be a finite number"),
        ({"shares": 5}, PaddingError, "got batch_size=32 for shares=5; give a batch size that 5 divides"),
        ({"alignment": {"video": 8}}, LengthError, "got an alignment for"),
        ({"alignment": 0}, LengthError, "alignment"),
    ],
)
def test_options_out_of_range(options, kind, message):
    with pytest.raises(kind, match=message):
        plan_packing(TABLE, **options)


def test_a_plan_survives_a_file(tmp_path):
    plan = plan_packing(TABLE, batch_size=16, shares=2)
    plan.save(tmp_path / "packing.json")
    again = PackingPlan.load(tmp_path / "packing.json")
    assert str(again) == str(plan)
    assert again.to_json() == plan.to_json()
    assert again.shapes_fingerprint == plan.shapes_fingerprint
    assert again.cost is plan.cost
    with pytest.raises(FileExistsError, match=r"packing\.json exists"):
        plan.save(tmp_path / "packing.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "multimodal_pad shape plan"}, "not a packing plan: the JSON lacks"),
        ({"version": 9}, "got a packing plan of version 9"),
        ({"batch_size": 0}, "the packing plan's 'batch_size' makes no sense: got 0 .it must be at least 1"),
        ({"shapes": [[3]]}, "the packing plan's 'shapes' makes no sense"),
        ({"efficiency": 2}, "the packing plan's 'efficiency' makes no sense"),
        ({"longest": {"text": 3}}, "the packing plan's 'longest' makes no sense"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path, change, message):
    fields = {**json.loads(plan_packing(TABLE, batch_size=16).to_json()), **change}
    (tmp_path / "plan.json").write_text(json.dumps(fields))
    with pytest.raises(PlanError, match=message) as caught:
        PackingPlan.load(tmp_path / "plan.json")
    assert str(tmp_path / "plan.json") in str(caught.value)
