"""Targets of positions and dicts of targets through batchers: cut with their modality, and in shards of empty rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, Fixed, LengthTable, Packed, StreamBatcher, plan_packing, unpack, unpad
from multimodal_pad.errors import PlanWarning, SampleError
from multimodal_pad.lengths.trees import leaves_of, map_of_modalities
from multimodal_pad.sources import convert
from tests.helpers.batches import assert_same_samples
from tests.strategies import length_tables, make_samples, with_all_targets

TABLE = LengthTable(("text", "audio"), np.array([[3, 2], [9, 1], [0, 7], [4, 4], [1, 0]]))
SAMPLES = with_all_targets(make_samples(TABLE))


def in_order(samples):
    return sorted(samples, key=lambda sample: int(sample["targets"]["number"]))


def cut(sample, limits):
    """A sample and its targets up to the limits."""
    targets = map_of_modalities(lambda name, x: x[: limits[name]], sample["position_targets"])
    return {**sample, **{name: sample[name][:n] for name, n in limits.items()}, "position_targets": targets}


@settings(max_examples=15)
@given(length_tables(max_samples=20, max_length=9), st.integers(1, 8), st.sampled_from([BucketBatcher, StreamBatcher]))
def test_what_is_cut_is_cut_with_its_targets(table, limit, kind):
    samples = with_all_targets(make_samples(table))
    limits = dict.fromkeys(table.modalities, limit)
    batcher = kind(samples, Fixed(limits), batch_size=4, long_samples="truncate")
    longer = (table.values > limit).any()
    if kind is StreamBatcher and longer:
        with pytest.warns(PlanWarning, match="it is cut"):
            batches = list(batcher)
    else:
        batches = list(batcher if kind is StreamBatcher else batcher.epoch(0))
    got = in_order(sample for batch in batches for sample in unpad(batch))
    assert_same_samples(got, [cut(sample, limits) for sample in samples])


@pytest.mark.parametrize("kind", [BucketBatcher, StreamBatcher])
def test_packed(kind):
    policy = Packed(plan_packing(TABLE, batch_size=2))
    batcher = kind(SAMPLES, policy)
    batches = list(batcher if kind is StreamBatcher else batcher.epoch(0))
    assert_same_samples(in_order(sample for batch in batches for sample in unpack(batch)), SAMPLES)


@pytest.mark.parametrize("kind", [BucketBatcher, StreamBatcher])
def test_cutting_does_not_hide_targets_that_are_too_few(kind):
    sample = {**SAMPLES[1], "position_targets": {**SAMPLES[1]["position_targets"], "text": SAMPLES[1]["text"][:4]}}
    batcher = kind([SAMPLES[0], sample], Fixed({"text": 4, "audio": 4}), batch_size=2, long_samples="truncate")
    with pytest.raises(
        SampleError, match=r"sample 1, 'position_targets'\['text'\]: got shape \(4,\), and 'text' has 9"
    ):
        list(batcher if kind is StreamBatcher else batcher.epoch(0))


@pytest.mark.parametrize("kind", [BucketBatcher, StreamBatcher])
def test_targets_of_the_positions_of_a_number(kind):
    class One:
        lengths = LengthTable(("text",), np.array([[1]]))

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"text": np.array(7), "position_targets": {"text": [1]}} if not index else [][index]

    with pytest.raises(SampleError, match=r"sample 0, 'text': got shape \(\) and dtype int64; a modality is"):
        list(kind(One(), Fixed({"text": 4}), batch_size=1))


@pytest.mark.parametrize("kind", [BucketBatcher, StreamBatcher])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": {"number": np.int32(1)}}, r"sample 3, 'targets'\['scores'\]\['pair'\]: got none, but sample"),
        (
            {"position_targets": {"text": np.zeros(4)}},
            r"sample 3, 'position_targets'\['text'\]: got shape .* float64, b",
        ),
    ],
)
def test_samples_of_other_batches_are_alike_too(kind, changes, message):
    samples = [*SAMPLES[:3], {**SAMPLES[3], **changes}]
    batcher = kind(samples, Fixed({"text": 9, "audio": 9}), batch_size=1)
    with pytest.raises(SampleError, match=message.replace("sample 3", r"sample \d")):
        list(batcher if kind is StreamBatcher else batcher.epoch(0))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_shard_without_samples_has_empty_ones(layout):
    policy = (
        Fixed({"text": 9, "audio": 9}) if layout == "padded" else Packed(plan_packing(TABLE, batch_size=4, shares=4))
    )
    size = {"batch_size": 4} if layout == "padded" else {}
    batcher = BucketBatcher(SAMPLES, policy, **size)
    last = [list(batcher.shard(index, 4).epoch(0))[-1] for index in range(4)]
    assert sorted(int(batch.sample_mask.sum()) for batch in last) == [0, 0, 0, 1]
    for batch in last:
        if not batch.sample_mask.any():
            leaves = [*leaves_of(batch.targets), *leaves_of(batch.position_targets)]
            assert len(leaves) == 6
            assert not any(leaf.any() for leaf in leaves)
    whole = list(batcher.epoch(0))[-1]
    whole_leaves, *parts = (leaves_of(b.position_targets) for b in (whole, *last))
    if layout == "padded":
        for leaf, *shards in zip(whole_leaves, *parts, strict=True):
            np.testing.assert_array_equal(np.concatenate(shards), leaf)


def test_a_cache_has_no_place_for_them(tmp_path):
    for key, what in (("position_targets", "has position_targets"), ("targets", "has a dict of targets")):
        other = "targets" if key == "position_targets" else "position_targets"
        samples = [{name: value for name, value in sample.items() if name != other} for sample in SAMPLES]
        with pytest.raises(SampleError, match=f"split 'train': sample 0: {what}, and a cache holds one array"):
            convert({"train": samples}, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
