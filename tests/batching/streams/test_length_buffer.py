from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import (
    BatchBudget,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    PaddingError,
    PaddingStats,
    Planned,
    make_schedule,
    plan_shapes,
)
from multimodal_pad.batching.streams.buffer import URGENT
from multimodal_pad.batching.streams.length_buffer import MOST_TRIED, LengthBuffer
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.sources import Synthetic
from tests.helpers.streams import longest_wait, plain, steps
from tests.strategies import length_tables, policies

sizes = st.tuples(st.integers(1, 6), st.integers(0, 20)).map(lambda drawn: (drawn[0], sum(drawn)))


@given(st.data(), length_tables(max_samples=80), sizes)
def test_every_sample_comes_once_at_a_shape_that_holds_it(data, table, size):
    rows, capacity = size
    policy = data.draw(policies(table, rows))
    listed = policy.lengths()
    came = []
    for taken in steps(LengthBuffer(policy, capacity, batch_size=rows), table.values):
        assert taken.batch_size == rows
        assert 1 <= len(taken.ordinals) <= rows
        assert listed is None or list(taken.padded) in listed.tolist()
        assert (table.values[taken.ordinals] <= taken.padded).all()
        assert taken.ordinals == taken.samples
        came += taken.ordinals
    assert sorted(came) == list(range(len(table)))


@given(length_tables(max_samples=80), st.integers(1, 4), st.integers(20, 60))
def test_rows_keep_a_batch_budget(table, shapes, limit):
    largest = int(np.maximum(table.values, 1).max(axis=0).sum())
    plan = plan_shapes(table, max_shapes=shapes, batch_size=BatchBudget(limit + largest, largest=9), effort=0)
    rows = dict(zip(map(tuple, plan.lengths.tolist()), plan.batch_sizes.tolist(), strict=True))
    for taken in steps(LengthBuffer(Planned(plan), 12), table.values):
        assert taken.batch_size == rows[taken.padded]


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data(), length_tables(max_samples=12), st.integers(1, 4), st.integers(0, 6), st.integers(0, 99))
def test_none_waits_for_long(data, table, rows, more, seed):
    """Most samples are of the first rows of the table, so that the last ones are rare."""
    policy, capacity = data.draw(policies(table, rows)), rows + more
    rare = np.random.default_rng(seed).geometric(0.6, 40 * capacity) - 1
    values = table.values[np.minimum(rare, len(table) - 1)]
    assert longest_wait(LengthBuffer(policy, capacity, batch_size=rows), values) <= (URGENT + 1) * capacity + rows


@pytest.mark.parametrize("limit", ["OVERDUE", "URGENT"])
def test_many_rare_kinds_do_not_keep_each_other_waiting(monkeypatch, limit):
    none_fits_another = [[10 + i, 35 - i] for i in range(25)]
    values = np.array(none_fits_another + 1000 * [[1, 1]])
    policy, capacity, rows = Exact(["text", "audio"]), 40, 20
    bound = (URGENT + 1) * capacity + rows
    assert longest_wait(LengthBuffer(policy, capacity, batch_size=rows), values) <= bound
    monkeypatch.setattr(f"multimodal_pad.batching.streams.length_buffer.{limit}", 10**9)
    assert longest_wait(LengthBuffer(policy, capacity, batch_size=rows), values) > bound, "so both limits are needed"


@settings(max_examples=25)
@given(st.data(), length_tables(max_samples=40), sizes, st.integers(0, 9), st.integers(0, 9))
def test_a_rebuilt_buffer_goes_on_as_the_first_would(data, table, size, seed, epoch):
    rows, capacity = size
    policy = data.draw(policies(table, rows))
    options = {"batch_size": rows, "seed": seed, "epoch": epoch}
    points = []
    buffer = LengthBuffer(policy, capacity, **options)
    whole = [plain(t) for t in steps(buffer, table.values, look=lambda: points.append((buffer.batch, buffer.held)))]
    came = set()
    for (batch, held), taken in zip(points, whole, strict=True):
        again = LengthBuffer(policy, capacity, **options, batch=batch)
        again.add(table.values[held], held, held)
        read = max([*came, *held]) + 1
        assert [plain(t) for t in steps(again, table.values, start=read)] == whole[batch:]
        came.update(taken[2])


@given(st.data(), length_tables(max_samples=60), st.integers(1, 6))
def test_a_stream_that_fits_in_the_buffer_is_dealt_like_an_epoch(data, table, rows):
    policy = data.draw(policies(table, rows, "length"))
    buffer = LengthBuffer(policy, len(table) + rows, batch_size=rows)
    came = Counter((*taken.padded, len(taken.ordinals)) for taken in steps(buffer, table.values))
    schedule = make_schedule(table, policy, batch_size=rows, grouping="length", window=1000)
    assert came == Counter((*shape.tolist(), int((ids >= 0).sum())) for shape, ids in schedule)


def test_the_order_is_this_one():
    """Pinned, because a run that is resumed with another NumPy must go on in the same order."""
    values = np.array([[1 + 5 * (i % 3 == 0)] for i in range(12)])
    buffer = LengthBuffer(Ladder({"text": [4, 8]}), 6, batch_size=2, seed=3, epoch=1)
    assert [t.ordinals for t in steps(buffer, values)] == [[1, 4], [3, 6], [2, 7], [8, 10], [0, 9], [5, 11]]


def test_seed_and_epoch_change_the_order():
    values = np.ones((60, 1), int)
    orders = [
        [t.ordinals for t in steps(LengthBuffer(Fixed({"text": 1}), 20, batch_size=4, **options), values)]
        for options in ({}, {"seed": 1}, {"epoch": 1}, {})
    ]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_full_buffer_without_a_full_kind_wastes_least():
    buffer = LengthBuffer(Ladder({"text": [4, 5, 100]}), 5, batch_size=3)
    buffer.add(np.array([[4], [4], [5], [5], [100]]), range(5), range(5))
    taken = buffer.take()
    assert taken.padded == (5,)
    assert len(taken.ordinals) == 3


def test_a_batch_is_short_where_filling_it_up_would_waste_more():
    buffer = LengthBuffer(Exact(["text", "audio"]), 3, batch_size=3)
    buffer.add(np.array([[9, 1], [9, 1], [1, 9]]), range(3), range(3))
    taken = buffer.take()
    assert taken == ((9, 1), 3, [0, 1], [0, 1])


def test_more_kinds_than_are_tried_still_fill_batches():
    values = np.random.default_rng(0).permutation(np.arange(1, 4 * MOST_TRIED))[:, None]
    batches = list(steps(LengthBuffer(Exact(["text"]), 2 * MOST_TRIED, batch_size=4), values))
    assert sum(len(t.ordinals) < t.batch_size for t in batches) <= len(batches) // 10


@pytest.mark.parametrize(("capacity", "share"), [(512, 0.95), pytest.param(2048, 0.99, marks=pytest.mark.slow)])
def test_little_is_lost_to_not_knowing_what_comes(capacity, share):
    source = Synthetic(12_000)
    table = LengthTable(source.lengths.modalities, np.random.default_rng(0).permutation(source.lengths.values))
    plan = plan_shapes(table, max_shapes=8, batch_size=32, effort=0)
    padded = sum(t.batch_size * sum(t.padded) for t in steps(LengthBuffer(Planned(plan), capacity), table.values))
    stats = PaddingStats(table.modalities)
    schedule = make_schedule(table, Planned(plan))
    stats.record(schedule, table)
    assert table.values.sum() / padded >= share * stats.cost_efficiency


@pytest.mark.parametrize(
    ("policy", "capacity", "options", "message"),
    [
        (Fixed({"text": 8}), 3, {"batch_size": 4}, "buffer of 3 samples for batches of up to 4 rows"),
        (Fixed({"text": 8}), 3, {}, "got no batch_size"),
        (Fixed({"text": 8}), 0, {"batch_size": 4}, "buffer capacity=0"),
        (Fixed({"text": 8}), 9, {"batch_size": 4, "epoch": -1}, "epoch=-1"),
        (Fixed({"text": 8}), 9, {"batch_size": 4, "batch": 0.5}, r"batch=0\.5"),
        (Fixed({"text": 8}), 9, {"batch_size": 4, "seed": -1}, "seed=-1"),
        (
            Planned(plan_shapes(LengthTable(("text",), np.array([[2], [9]])), max_shapes=2, batch_size=16)),
            15,
            {},
            "up to 16 rows",
        ),
    ],
)
def test_bad_options(policy, capacity, options, message):
    with pytest.raises(PaddingError, match=message):
        LengthBuffer(policy, capacity, **options)


def test_misuse_is_told():
    buffer = LengthBuffer(Fixed({"text": 8}), 3, batch_size=2)
    buffer.add(np.array([[1]]), [5], ["a"])
    with pytest.raises(PaddingError, match="holds 1 of 3 samples; fill it up"):
        buffer.take()
    with pytest.raises(PaddingError, match="sample 5 after sample 5"):
        buffer.add(np.array([[1]]), [5], ["b"])
    with pytest.raises(PaddingError, match="got 3 samples and there is room for 2"):
        buffer.add(np.ones((3, 1), int), [6, 7, 8], ["b", "c", "d"])
    with pytest.raises(UncoveredLengthError, match="9 positions"):
        buffer.add(np.array([[9]]), [6], ["b"])
    assert buffer.held == [5], "what is refused leaves nothing behind"
