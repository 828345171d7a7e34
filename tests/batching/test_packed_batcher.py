"""Packed batches from any source: exactly B samples, each once, in one shape; resumed, shared out and counted."""

import jax
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
from tests.strategies import length_tables, make_samples, uneven_lengths

RNG = np.random.default_rng(0)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(0, 12, 103), RNG.integers(0, 90, 103)], axis=1))


def make_batcher(table=TABLE, batch_size=8, shares=1, **options):
    policy = Packed(plan_packing(table, batch_size=batch_size, shares=shares, alignment=4))
    return BucketBatcher(make_samples(table), policy, lengths=table, **options)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
@settings(max_examples=25)
@given(uneven_lengths(), st.integers(1, 9), st.sampled_from([1, 3, 1024]), st.integers(1, 2), st.integers(0, 9))
def test_whatever_the_lengths_batches_are_full_and_within_their_capacity(shares, lengths, own, window, shapes, seed):
    table = LengthTable(tuple("abcd"[: lengths.shape[1]]), lengths)
    plan = plan_packing(table, batch_size=own * shares, shares=shares, max_shapes=shapes, alignment=2)
    for epoch in range(2):
        schedule = make_schedule(table, Packed(plan), window=window, seed=seed, epoch=epoch)
        packs = schedule.ids.reshape(-1, own)
        real = packs != EMPTY
        assert sorted(packs[real].tolist()) == list(range(len(table)))
        assert {*map(tuple, schedule.lengths.tolist())} <= {*map(tuple, plan.lengths.tolist())}
        held = np.where(real[..., None], lengths[packs], 0).sum(axis=1)
        assert (held <= np.repeat(schedule.lengths // shares, shares, axis=0)).all()
        sizes = real.sum(axis=1)
        sizes = sizes[sizes > 0]
        if len(sizes) == -(-len(table) // own):  # there is no extra pack, and then all but the last are full
            assert (sizes < own).sum() <= 1
        assert len(schedule) == -(-len(sizes) // shares)


@settings(max_examples=25)
@given(length_tables(), st.sampled_from([1, 2, 3]), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_each_sample_once_as_it_was(table, shares, own, seed, apart):
    batcher = make_batcher(table, batch_size=own * shares, shares=shares, seed=seed)
    batcher = batcher.shard(0, 1, devices=shares) if apart else batcher
    for epoch in range(2):
        batches = list(batcher.epoch(epoch))
        assert {batch.shape for batch in batches} <= set(batcher.policy.plan.batch_shapes)
        assert len(batches) == len(batcher.schedule(epoch))
        found = [sample for batch in batches for sample in unpack(batch)]
        assert_same_samples(sorted(found, key=lambda sample: int(sample["targets"])), make_samples(table))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shards_are_runs_of_the_arrays_of_one_host_with_as_many_devices(count):
    batcher = make_batcher(batch_size=12, shares=6, with_ids=True)
    shards = [batcher.shard(index, count, devices=6 // count) for index in range(count)]
    hosts = batcher.epoch(1), batcher.shard(0, 1, devices=6).epoch(1), *(shard.epoch(1) for shard in shards)
    for alone, whole, *parts in zip(*hosts, strict=True):
        assert_same_samples(unpack(whole), unpack(alone))
        assert (alone.shares, whole.shares, whole.shape) == (1, 6, alone.shape)
        for one, *others in zip(jax.tree.leaves(whole), *map(jax.tree.leaves, parts), strict=True):
            np.testing.assert_array_equal(np.concatenate(others), one)
            assert all(other.dtype == one.dtype and other.ctypes.data % 64 == 0 for other in others)
    assert parts[-1].share_sizes.tolist()[-1] == 0, "in the last batch there was nothing left for the last device"


def test_what_a_step_is_compiled_for_is_the_batch_of_all_shards():
    batcher = make_batcher(batch_size=12, shares=6)
    for count, devices in ((1, 6), (3, 2), (6, 1)):
        example = batcher.shard(count - 1, count, devices=devices).example()
        assert (example.shares, example.sample_mask.tolist()) == (6, [True] + [False] * 5)
    assert make_batcher().example().share_sizes is None


@pytest.mark.parametrize(("shares", "count", "devices"), [(6, 5, 1), (6, 2, 2), (1, 2, 1), (2, 1, 4)])
def test_a_plan_of_other_shares_is_refused(shares, count, devices):
    """Even where its capacities could be cut into so many: samples are not dealt so that the parts hold them."""
    batcher = make_batcher(batch_size=24, shares=shares)
    total = count * devices
    message = rf"in {shares} shares to share out over {total}; plan with plan_packing.*shares={total}\) or a multiple"
    with pytest.raises(PaddingError, match=message):
        batcher.shard(0, count, devices=devices)


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
