"""The same epoch on any number of hosts."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import BatchBudget, BucketBatcher, Fixed, Ladder, LengthTable, PaddingError, Planned, plan_shapes
from multimodal_pad.lengths.samples import EMPTY
from tests.strategies import length_tables, make_samples, policies

COUNTS = (1, 2, 3, 16, 128)


@given(st.data(), length_tables(), st.sampled_from(COUNTS), st.integers(1, 3), st.sampled_from(["random", "length"]))
def test_shards_share_out_every_step_and_nothing_else(data, table, count, rows, grouping):
    policy = data.draw(policies(table, count * rows, grouping))
    options = {"batch_size": count * rows, "grouping": grouping, "lengths": table}
    whole = BucketBatcher(make_samples(table), policy, **options)
    steps = whole.schedule(0).steps()
    shares = [steps.shard(index, count) for index in range(count)]
    for share in shares:
        np.testing.assert_array_equal(share.lengths, steps.lengths)
        assert (share.batch_sizes == rows).all()
    together = np.concatenate([share.ids.reshape(-1, rows) for share in shares], axis=1)
    np.testing.assert_array_equal(together.ravel(), steps.ids)
    real = together[together != EMPTY]
    assert sorted(real.tolist()) == list(range(len(table)))


@pytest.mark.parametrize("samples", [1, 2, 5, 200])
@pytest.mark.parametrize("count", COUNTS)
def test_the_rows_of_all_shards_are_the_batch_of_one_host(samples, count):
    """Also where a shard's rows are all empty: its arrays have the widths and dtypes of the others."""
    rng = np.random.default_rng(samples)
    table = LengthTable(("text", "audio"), rng.integers(0, 9, (samples, 2)))
    ladder = Ladder.powers_of_two(table)
    whole = BucketBatcher(make_samples(table), ladder, batch_size=384, lengths=table, pad_value={"audio": -1.0})
    shards = [list(whole.shard(index, count).epoch(0)) for index in range(count)]
    batches = list(whole.epoch(0))
    assert {len(shard) for shard in shards} == {len(batches)}
    for batch, *parts in zip(batches, *shards, strict=True):
        for name in table.modalities:
            for field in ("features", "lengths"):
                joined = np.concatenate([getattr(part, field)[name] for part in parts])
                assert joined.dtype == getattr(batch, field)[name].dtype
                np.testing.assert_array_equal(joined, getattr(batch, field)[name])
        np.testing.assert_array_equal(np.concatenate([part.targets for part in parts]), batch.targets)
        np.testing.assert_array_equal(np.concatenate([part.sample_mask for part in parts]), batch.sample_mask)


def test_rows_that_follow_a_budget_are_shared_out_too():
    rng = np.random.default_rng(0)
    table = LengthTable(("text",), rng.integers(1, 60, (300, 1)))
    plan = plan_shapes(table, max_shapes=3, batch_size=BatchBudget(500, multiple=2))
    batcher = BucketBatcher(make_samples(table), Planned(plan), lengths=table)
    shares = [batcher.schedule(0).steps().shard(index, 2) for index in range(2)]
    assert len(set(plan.batch_sizes.tolist())) > 1
    joined = [np.concatenate([one, other]).tolist() for (_, one), (_, other) in zip(*shares, strict=True)]
    assert joined == [ids.tolist() for _, ids in batcher.schedule(0)]
    odd = plan_shapes(table, max_shapes=3, batch_size=BatchBudget(500, multiple=5, largest=5))
    batcher = BucketBatcher(make_samples(table), Planned(odd), lengths=table)
    message = "got batches of 5 rows for 2 shards; give a number of rows that 2 divides, such as BatchBudget("
    with pytest.raises(PaddingError, match=re.escape(message)):
        batcher.shard(0, 2)


def test_a_shard_keeps_its_own_ledger():
    table = LengthTable(("text",), np.full((10, 1), 4))
    shards = [BucketBatcher(make_samples(table), Fixed({"text": 4}), batch_size=8).shard(i, 2) for i in range(2)]
    for shard in shards:
        for _ in shard.epoch(0):
            pass
    assert [shard.stats.samples for shard in shards] == [6, 4]
    assert [shard.stats.steps for shard in shards] == [2, 2]


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [
        (2, 2, "got shard_index=2 of shard_count=2; the index goes from 0 to 1"),
        (-1, 2, "shard_index=-1"),
        (0, 0, "shard_count=0"),
        (0, 3, "got batches of 4 rows for 3 shards; give a number of rows that 3 divides"),
    ],
)
def test_shards_that_cannot_be(index, count, message):
    batcher = BucketBatcher(
        make_samples(LengthTable(("text",), np.ones((5, 1), int))), Fixed({"text": 1}), batch_size=4
    )
    with pytest.raises(PaddingError, match=re.escape(message)):
        batcher.shard(index, count)


def test_a_shard_is_not_shared_out_again():
    batcher = BucketBatcher(
        make_samples(LengthTable(("text",), np.ones((5, 1), int))), Fixed({"text": 1}), batch_size=4
    )
    with pytest.raises(PaddingError, match="got shard 1 of 2 with devices=1, which is not shared out again"):
        batcher.shard(1, 2).shard(0, 2)
