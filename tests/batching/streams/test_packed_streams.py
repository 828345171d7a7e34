"""Packed batches from streams: every sample once, in one shape, counted, reported and resumed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BatchBudget, LengthTable, Packed, PackingPlan, StreamBatcher, plan_packing, unpack
from multimodal_pad.errors import PlanWarning, UncoveredLengthError
from tests.helpers.batches import assert_same, assert_same_samples
from tests.strategies import length_tables, make_samples

RNG = np.random.default_rng(0)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(0, 12, 203), RNG.integers(0, 90, 203)], axis=1))
POLICY = Packed(plan_packing(TABLE, batch_size=8, alignment=4))


@settings(max_examples=25, deadline=None)
@given(length_tables(), st.sampled_from([1, 2, 3]), st.integers(1, 4), st.integers(1, 2), st.integers(0, 12))
def test_a_stream_is_every_sample_once_in_planned_shapes(table, shares, own, max_shapes, more):
    plan = plan_packing(table, batch_size=own * shares, shares=shares, max_shapes=max_shapes)
    batcher = StreamBatcher(iter(make_samples(table)), Packed(plan), buffer=own * shares + more)
    batches = list(batcher)
    assert {batch.shape for batch in batches} <= set(batcher.batch_shapes())
    found = sorted((s for batch in batches for s in unpack(batch)), key=lambda sample: int(sample["targets"]))
    assert_same_samples(found, make_samples(table))
    stats = batcher.stats
    assert (stats.samples, stats.steps) == (len(table), len(batches))
    assert stats.real.tolist() == table.values.sum(axis=0).tolist()
    assert stats.padded.sum() == sum(len(x) for batch in batches for x in batch.features.values())


def test_all_but_the_last_are_full_and_the_last_is_filled_up():
    batcher = StreamBatcher(make_samples(TABLE), POLICY, buffer=64, with_ids=True)
    batches = list(batcher)
    assert [int(batch.sample_mask.sum()) for batch in batches] == [8] * 25 + [3]
    assert batches[-1].lengths["audio"][3:].tolist() == [0] * 5
    assert batches[-1].ids.tolist()[3:] == [-1] * 5
    for batch in batches:
        assert batch.targets[batch.sample_mask].tolist() == batch.ids[batch.sample_mask].tolist()
    assert batcher.spec().shapes == POLICY.plan.batch_shapes
    assert batcher.stats.position_efficiency["total"] == pytest.approx(POLICY.plan.position_efficiency["total"])


def test_a_stream_is_read_again_in_another_order():
    batcher = StreamBatcher(make_samples(TABLE), POLICY, buffer=64)
    first, second = list(batcher), list(batcher)
    assert [batch.targets.tolist() for batch in first] != [batch.targets.tolist() for batch in second]
    assert_same(list(StreamBatcher(make_samples(TABLE), POLICY, buffer=64)), first)


def test_samples_longer_than_the_capacity():
    limit = int(POLICY.plan.lengths[0, 1])
    longer = LengthTable(TABLE.modalities, np.vstack([TABLE.values, [[3, 700]]]))
    samples = make_samples(longer)
    message = f"sample 203 of the stream: 'audio' has 700 positions and the largest capacity is {limit}"
    with pytest.raises(UncoveredLengthError, match=message):
        list(StreamBatcher(samples, POLICY))
    dropping = StreamBatcher(samples, POLICY, long_samples="drop")
    with pytest.warns(PlanWarning, match=message):
        assert sum(int(batch.sample_mask.sum()) for batch in dropping) == 203
    assert dropping.stats.dropped == 1
    cutting = StreamBatcher(samples, POLICY, long_samples="truncate")
    with pytest.warns(PlanWarning, match=message):
        assert max(int(batch.lengths["audio"].max()) for batch in cutting) == limit


def test_a_plan_that_goes_stale_is_told_and_another_packing_plan_offered():
    short = LengthTable(TABLE.modalities, TABLE.values // 3)
    batcher = StreamBatcher(make_samples(TABLE) + make_samples(short) * 2, POLICY, buffer=64, recent=400)
    with pytest.warns(PlanWarning, match="the shape plan has gone stale: 0 of the last 400 samples are longer"):
        list(batcher)
    report = batcher.plan_report()
    assert report.stale
    assert isinstance(report.new_plan, PackingPlan)
    assert (report.new_plan.batch_size, report.new_plan.alignment) == (8, POLICY.plan.alignment)
    assert report.efficiency < 0.5 < report.promised - 0.1
    assert report.new_efficiency > 0.8
    assert "a new plan of 1 shape holds all of them and keeps 0.9" in str(report)
    assert batcher.plan_report(BatchBudget(600, multiple=8)).new_plan.batch_size == 32


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [8, 30, 500])
def test_grain_resumes_packed_streams_at_every_step(buffer, monkeypatch):
    grain = pytest.importorskip("grain")
    from multimodal_pad.grain import StreamIterDataset

    monkeypatch.setattr("multimodal_pad.grain.CHUNK", 5)
    parent = grain.MapDataset.source(make_samples(TABLE)).to_iter_dataset(grain.ReadOptions(num_threads=1))
    dataset = StreamIterDataset(parent, POLICY, buffer=buffer, seed=2)
    assert_same(list(dataset), list(StreamBatcher(make_samples(TABLE), POLICY, buffer=buffer, seed=2)))
    grain.experimental.assert_equal_output_after_checkpoint(dataset)
