"""Packed batches from any source: exactly B samples, each once, in one shape; resumed, shared out and counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import (
    BucketBatcher,
    LengthTable,
    Packed,
    PaddingError,
    TransformerCost,
    make_schedule,
    plan_packing,
    unpack,
)
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.lengths.samples import EMPTY
from tests.helpers.batches import assert_same, assert_same_samples
from tests.strategies import length_tables, make_samples

RNG = np.random.default_rng(0)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(0, 12, 103), RNG.integers(0, 90, 103)], axis=1))


def make_batcher(table=TABLE, batch_size=8, shares=1, **options):
    policy = Packed(plan_packing(table, batch_size=batch_size, shares=shares, alignment=4))
    return BucketBatcher(make_samples(table), policy, lengths=table, **options)


@settings(max_examples=60, deadline=None)
@given(st.data(), length_tables(), st.sampled_from([1, 2, 3]), st.integers(1, 5), st.integers(0, 3))
def test_each_sample_once_and_no_batch_above_its_capacity(data, table, shares, own, seed):
    batcher = make_batcher(table, batch_size=own * shares, shares=shares, seed=seed)
    for epoch in range(2):
        schedule, found = batcher.schedule(epoch), []
        for number, batch in enumerate(batcher.epoch(epoch)):
            assert batch.shape in batcher.policy.plan.batch_shapes
            assert number < len(schedule)
            found += unpack(batch)
        assert number == len(schedule) - 1
        found.sort(key=lambda sample: int(sample["targets"]))
        assert_same_samples(found, make_samples(table))
    index = data.draw(st.integers(0, shares - 1))
    assert sum(1 for _ in batcher.shard(index, shares).epoch(0)) == len(batcher.schedule(0))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shards_are_parts_of_the_batches_of_one_host(count):
    batcher = make_batcher(batch_size=12, shares=6, with_ids=True)
    shards = [batcher.shard(index, count) for index in range(count)]
    for whole, *parts in zip(batcher.epoch(1), *(shard.epoch(1) for shard in shards), strict=True):
        ids = np.concatenate([part.ids for part in parts])
        assert ids[ids != EMPTY].tolist() == whole.ids[whole.ids != EMPTY].tolist()
        assert {part.shape for part in parts} == {batcher.policy.layout.share(whole.shape, count)}
    with pytest.raises(PaddingError, match="share out over 5; plan with shares=5"):
        batcher.shard(0, 5)


def test_a_run_goes_on_at_every_step():
    wanted = list(make_batcher().epoch(1))
    for step in range(len(wanted) + 1):
        first = make_batcher()
        for _, _ in zip(range(step), first.epoch(1), strict=False):
            pass
        other = make_batcher()
        state = {**first.state(), "epoch": 1, "step": step}
        assert other.restore(state) == (1, step)
        assert_same(list(other.epoch(1)), wanted[step:])


def test_a_run_of_another_plan_is_refused():
    state = make_batcher().state()
    with pytest.raises(PaddingError, match="policy"):
        make_batcher(batch_size=4).restore(state)


def test_the_order_is_of_the_seed_and_the_epoch():
    one, same, other = (make_batcher(seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.schedule(0).ids, same.schedule(0).ids)
    assert (one.schedule(0).ids != one.schedule(1).ids).any()
    assert (one.schedule(0).ids != other.schedule(0).ids).any()


def test_batches_are_full_but_for_the_last():
    sizes = [int(batch.sample_mask.sum()) for batch in make_batcher().epoch(0)]
    assert sizes == [8] * 12 + [7]


def test_the_ledger_counts_what_is_full():
    cost = TransformerCost(("text", "audio"), d_model=8)
    policy = Packed(plan_packing(TABLE, batch_size=8, cost=cost))
    batcher = BucketBatcher(make_samples(TABLE), policy)
    forecast = batcher.forecast(0)
    for _ in batcher.epoch(0):
        pass
    stats = batcher.stats
    held = len(batcher.schedule(0)) * policy.plan.lengths[0]
    np.testing.assert_array_equal(stats.padded, held)
    np.testing.assert_array_equal(stats.real, TABLE.values.sum(axis=0))
    assert 0.9 < stats.cost_efficiency < 1
    assert str(forecast) == str(stats)


def test_the_plans_own_figures_are_those_of_an_epoch():
    plan = plan_packing(TABLE, batch_size=8)
    stats = BucketBatcher(make_samples(TABLE), Packed(plan)).forecast(0)
    assert stats.position_efficiency == pytest.approx(plan.position_efficiency, abs=1e-9)
    assert stats.cost_efficiency == pytest.approx(plan.efficiency, abs=1e-9)


def test_the_order_is_as_random_as_one_at_random():
    table = LengthTable(("text", "audio"), np.tile(TABLE.values, (30, 1)))
    policy = Packed(plan_packing(table, batch_size=32))
    report = make_schedule(table, policy).bias_report()
    for name in table.modalities:
        assert report.within_batch_spread[name].scheduled == pytest.approx(1, abs=0.03)
        assert abs(report.adjacent_correlation[name].scheduled) < 0.6  # of means that are nearly all the same


def test_samples_longer_than_the_capacity():
    policy = Packed(plan_packing(TABLE, batch_size=2))
    longer = LengthTable(TABLE.modalities, np.vstack([TABLE.values, [[3, 500]]]))
    samples = make_samples(longer)
    with pytest.raises(UncoveredLengthError, match="sample 103: 'audio' has 500 positions and the largest capacity is"):
        BucketBatcher(samples, policy)
    batcher = BucketBatcher(samples, policy, long_samples="drop")
    assert sum(int(batch.sample_mask.sum()) for batch in batcher.epoch(0)) == 103
    cut = BucketBatcher(samples, policy, long_samples="truncate")
    assert max(int(batch.lengths["audio"].max()) for batch in cut.epoch(0)) == policy.plan.lengths[0, 1]


def test_what_contradicts_the_plan_names_both():
    policy = Packed(plan_packing(TABLE, batch_size=8))
    with pytest.raises(PaddingError, match=r"got grouping='length' for Packed.*planned for grouping='balanced'"):
        BucketBatcher(make_samples(TABLE), policy, grouping="length")
    with pytest.raises(PaddingError, match=r"got batch_size=16 for Packed.*batches of 8"):
        BucketBatcher(make_samples(TABLE), policy, batch_size=16)


def test_grain_gives_the_same_batches():
    grain = pytest.importorskip("multimodal_pad.grain", exc_type=ImportError)
    batcher = make_batcher()
    found = list(grain.BatchMapDataset(make_batcher(), epochs=2).to_iter_dataset())
    wanted = [batch for epoch in range(2) for batch in batcher.epoch(epoch)]
    assert_same(found, wanted)
