"""From samples to batches in one line, and what planners and batchers take beside a length table and a policy."""

import numpy as np
import pytest

from multimodal_pad import (
    BatchBudget,
    BucketBatcher,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    StreamBatcher,
    attention_area,
    batches,
    plan_packing,
    plan_shapes,
    unpack,
    unpad,
)
from multimodal_pad.errors import LengthError, PlanError
from multimodal_pad.planning.plan_policy import as_policy

SAMPLES = [{"text": np.arange(1 + 3 * i % 11), "audio": np.zeros((i % 5, 2)), "targets": i} for i in range(40)]
TABLE = LengthTable.measure(SAMPLES)
COLUMNS = {"text": [len(s["text"]) for s in SAMPLES], "audio": [len(s["audio"]) for s in SAMPLES]}


class OnlyLengths:
    """A source that must not be read only to be measured."""

    lengths = TABLE

    def __len__(self):
        return len(SAMPLES)

    def __getitem__(self, index):
        raise AssertionError("it was read")


@pytest.mark.parametrize("make", [plan_shapes, plan_packing])
def test_planners_take_samples_columns_and_sources(make):
    wanted = make(TABLE, max_shapes=1, batch_size=4).to_json()
    for given in (SAMPLES, COLUMNS, OnlyLengths(), BucketBatcher(SAMPLES, as_policy(make(TABLE)))):
        assert make(given, max_shapes=1, batch_size=4).to_json() == wanted
    assert make(SAMPLES).batch_sizes.max() == 32


@pytest.mark.parametrize("make", [plan_shapes, plan_packing])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (iter(SAMPLES), "got list_iterator for the lengths; give a LengthTable.*StreamBatcher.planned"),
        ("lengths.csv", "got str for the lengths"),
        ([], "got no samples"),
        ({}, "got the modalities"),
        ({"text": [3, 4], "audio": [1]}, "one length per sample each"),
        ({"text": [[3, 4], [1]]}, "the column of 'text' is no sequence of one number for each sample"),
    ],
)
def test_what_cannot_be_planned_for(make, given, message):
    with pytest.raises(LengthError, match=message):
        make(given)


def test_batchers_take_plans_files_and_columns(tmp_path):
    plans = {"shapes.json": plan_shapes(TABLE, batch_size=4), "packing.json": plan_packing(TABLE, batch_size=4)}
    for name, plan in plans.items():
        plan.save(tmp_path / name)
        policy = as_policy(plan)
        wanted = [batch.targets.tolist() for batch in BucketBatcher(SAMPLES, policy).epoch(0)]
        for given in (plan, tmp_path / name, str(tmp_path / name)):
            batcher = BucketBatcher(SAMPLES, given, lengths=COLUMNS)
            assert batcher.policy.fingerprint == policy.fingerprint
            assert [batch.targets.tolist() for batch in batcher.epoch(0)] == wanted
            streamed = [batch.shape for batch in StreamBatcher(SAMPLES, given)]
            assert set(streamed) <= set(plan.batch_shapes)
    assert isinstance(as_policy(plans["shapes.json"]), Planned)
    assert isinstance(as_policy(plans["packing.json"]), Packed)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(PlanError, match=r"other\.json: not a shape plan"):
        BucketBatcher(SAMPLES, tmp_path / "other.json")
    with pytest.raises(PaddingError, match="got dict for the policy; give a policy"):
        BucketBatcher(SAMPLES, {"text": 9})
    with pytest.raises(LengthError, match="got a length table of 1 rows for a source of 40 samples"):
        BucketBatcher(SAMPLES, plans["shapes.json"], lengths={"text": [3], "audio": [4]})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_shapes": 2, "batch_size": 4, "seed": 3},
        {"grouping": "random", "batch_size": 4},
        {"layout": "packed", "batch_size": 4},
        {"batch_size": BatchBudget(60, multiple=2), "cost": attention_area, "alignment": 4},
    ],
    ids=["default", "few", "random", "packed", "budget"],
)
def test_one_line_gives_every_sample_once_in_few_shapes(options):
    batcher = batches(SAMPLES, **options)
    assert len(batcher.policy.plan) <= options.get("max_shapes", 1 if "layout" in options else 8)
    taken = unpack if "layout" in options else unpad
    for _ in range(2):
        found = []
        for batch in batcher:
            assert batch.shape in batcher.batch_shapes(1)
            found += taken(batch)
        assert sorted(int(sample["targets"]) for sample in found) == list(range(40))
        for sample in found:
            np.testing.assert_array_equal(sample["text"], SAMPLES[int(sample["targets"])]["text"])


def test_options_reach_the_plan_and_the_batcher():
    batcher = batches(SAMPLES, modalities=["audio"], alignment=8, batch_size=4, with_ids=True, seed=5)
    assert batcher.policy.modalities == ("audio",)
    assert not (batcher.policy.plan.lengths % 8).any()
    assert next(iter(batcher)).ids.max() >= 0
    assert batcher.seed == 5


def test_a_source_with_lengths_is_not_read_to_plan():
    assert len(batches(OnlyLengths(), batch_size=4)) == len(batches(SAMPLES, batch_size=4)) >= 10


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        (iter(SAMPLES), {}, LengthError, "got samples of type list_iterator.*StreamBatcher"),
        (SAMPLES[0], {}, LengthError, "got samples of type dict"),
        (SAMPLES, {"layout": "dense"}, PaddingError, "got layout='dense'; choose one of"),
        (SAMPLES, {"max_shapes": 3, "layout": "packed"}, PaddingError, "packed batches have 1 shape, or 2"),
    ],
)
def test_what_is_no_list_of_samples(samples, options, error, message):
    with pytest.raises(error, match=message):
        batches(samples, **options)
