"""Packed batches of a stream: as many samples as the plan says, within its capacities, none left waiting."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import Exact, LengthTable, Packed, PaddingError, plan_packing
from multimodal_pad.batching.streams.balanced_buffer import BalancedBuffer
from multimodal_pad.batching.streams.buffer import URGENT
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.sources import Synthetic
from tests.helpers.streams import longest_wait, plain, steps
from tests.strategies import length_tables, uneven_tables

RNG = np.random.default_rng(1)
HEAVY = LengthTable(("text",), RNG.permutation(np.append(RNG.integers(1, 20, 638), [400, 380]))[:, None])


def shuffled(table, seed=0):
    return np.random.default_rng(seed).permutation(table.values)


@st.composite
def streams(draw, max_samples=80):
    """A table, a packing plan for it of one shape or two, and how many samples wait."""
    table = draw(st.one_of(length_tables(max_samples), uneven_tables(max_samples)))
    size = draw(st.integers(1, 6))
    plan = plan_packing(
        table, batch_size=size, alignment=draw(st.sampled_from([1, 8])), max_shapes=draw(st.integers(1, 2))
    )
    return table, plan, size + draw(st.integers(0, 20))


@settings(max_examples=80, deadline=None)
@given(streams(), st.integers(0, 9))
def test_every_sample_comes_once_within_the_smallest_capacity(drawn, seed):
    table, plan, capacity = drawn
    came = []
    for taken in steps(BalancedBuffer(Packed(plan), capacity, seed=seed), table.values):
        assert taken.batch_size == plan.batch_size
        assert 1 <= len(taken.ordinals) <= plan.batch_size
        holds = (table.values[taken.ordinals].sum(axis=0) <= plan.lengths).all(axis=1)
        assert list(taken.padded) == plan.lengths[holds][0].tolist()
        assert taken.ordinals == taken.samples
        came += taken.ordinals
    assert sorted(came) == list(range(len(table)))


@settings(deadline=None)
@given(streams(), st.integers(0, 9))
def test_batches_are_of_exactly_so_many_where_capacities_allow_it(drawn, seed):
    table, plan, capacity = drawn
    roomy = replace(plan, lengths=np.maximum(table.values.max(axis=0), 1)[None] * plan.batch_size, batches=np.ones(1))
    counts = [len(t.ordinals) for t in steps(BalancedBuffer(Packed(roomy), capacity, seed=seed), table.values)]
    full, rest = divmod(len(table), plan.batch_size)
    assert counts == [plan.batch_size] * full + [rest] * (rest > 0)


@pytest.mark.parametrize(("size", "buffer"), [pytest.param(32, 2048, marks=pytest.mark.slow), (32, 512), (8, 512)])
def test_a_stream_is_nearly_as_full_as_an_epoch(size, buffer):
    table = Synthetic(6000).lengths
    plan, held, short = plan_packing(table, batch_size=size), 0, 0
    values = shuffled(table)
    for taken in steps(BalancedBuffer(Packed(plan), buffer), values):
        held += sum(taken.padded)
        short += len(taken.ordinals) < size
    assert values.sum() / held >= 0.99 * plan.position_efficiency["total"]
    assert short <= plan.extra + 2


@pytest.mark.slow
def test_sums_of_lengths_are_alike_and_neither_long_nor_short_samples_are_left():
    table = Synthetic(6000).lengths
    plan = plan_packing(table, batch_size=32)
    values = shuffled(table)
    loads = np.array([values[t.ordinals].sum(axis=0) for t in steps(BalancedBuffer(Packed(plan), 1024), values)])[:-1]
    by_chance = values[: 32 * (len(values) // 32)].reshape(-1, 32, values.shape[1]).sum(axis=1)
    assert (loads.std(axis=0) < 0.35 * by_chance.std(axis=0)).all()
    quarter = len(loads) // 4
    np.testing.assert_allclose(loads[:quarter].mean(axis=0), loads[-quarter:].mean(axis=0), rtol=0.03)


def test_batches_are_drawn_at_random():
    """Most samples of a batch are the ones drawn: their lengths spread as those of all do."""
    table = Synthetic(6000).lengths
    values = shuffled(table)
    batches = steps(BalancedBuffer(Packed(plan_packing(table, batch_size=32)), 1024), values)
    spreads = np.array([values[t.ordinals].std(axis=0) for t in batches if len(t.ordinals) == 32])
    by_chance = values[: 32 * (len(values) // 32)].reshape(-1, 32, values.shape[1]).std(axis=1)
    np.testing.assert_allclose(spreads.mean(axis=0), by_chance.mean(axis=0), rtol=0.05)


def test_a_longer_shape_takes_long_samples_when_they_are_drawn():
    plan = plan_packing(HEAVY, batch_size=16, max_shapes=2)
    long = [int(i) for i in np.flatnonzero(HEAVY.values[:, 0] > plan.lengths[0, 0])]
    assert len(long) == 2
    places = [
        (number, set(long) & set(taken.ordinals))
        for number, taken in enumerate(steps(BalancedBuffer(Packed(plan), 160), HEAVY.values))
        if list(taken.padded) == plan.lengths[1].tolist()
    ]
    assert all(found for _, found in places)
    assert len(places) == 2
    waits = [16 * number + 160 - max(found) for number, found in places]
    assert max(waits) < 4 * 160, "none of them has to be overdue first"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(streams(max_samples=12), st.integers(0, 99))
def test_none_waits_for_long(drawn, seed):
    """Most samples are of the first rows of the table, which a plan for as many of each serves badly."""
    table, plan, capacity = drawn
    rare = np.random.default_rng(seed).geometric(0.6, 40 * capacity) - 1
    values = table.values[np.minimum(rare, len(table) - 1)]
    buffer = BalancedBuffer(Packed(plan), capacity)
    assert longest_wait(buffer, values) <= (URGENT + 1) * capacity + plan.batch_size


@pytest.mark.parametrize("limit", ["OVERDUE", "URGENT"])
def test_many_samples_that_need_a_batch_of_their_own_do_not_keep_each_other_waiting(monkeypatch, limit):
    values = np.array([[21]] * 30 + [[1]] * 1000)  # two of the long ones don't meet
    plan = plan_packing(LengthTable(("text",), values), batch_size=20, alignment=1)
    policy, capacity = Packed(replace(plan, lengths=np.array([[40]]))), 40
    bound = (URGENT + 1) * capacity + plan.batch_size
    assert longest_wait(BalancedBuffer(policy, capacity), values) <= bound
    monkeypatch.setattr(f"multimodal_pad.batching.streams.balanced_buffer.{limit}", 10**9)
    assert longest_wait(BalancedBuffer(policy, capacity), values) > bound, "so both limits are needed"


@settings(max_examples=25, deadline=None)
@given(streams(max_samples=40), st.integers(0, 9), st.integers(0, 9))
def test_a_rebuilt_buffer_goes_on_as_the_first_would(drawn, seed, epoch):
    table, plan, capacity = drawn
    policy, options = Packed(plan), {"seed": seed, "epoch": epoch}
    points = []
    buffer = BalancedBuffer(policy, capacity, **options)
    whole = [plain(t) for t in steps(buffer, table.values, look=lambda: points.append((buffer.batch, buffer.held)))]
    came = set()
    for (batch, held), taken in zip(points, whole, strict=True):
        again = BalancedBuffer(policy, capacity, **options, batch=batch)
        again.add(table.values[held], held, held)
        read = max([*came, *held]) + 1
        assert [plain(t) for t in steps(again, table.values, start=read)] == whole[batch:]
        came.update(taken[2])


def test_the_order_is_this_one():
    """Pinned, because a run that is resumed with another NumPy must go on in the same order."""
    values = np.array([[1 + 5 * (i % 3 == 0)] for i in range(12)])
    plan = plan_packing(LengthTable(("text",), values), batch_size=3, alignment=1)
    buffer = BalancedBuffer(Packed(plan), 6, seed=3, epoch=1)
    assert [t.ordinals for t in steps(buffer, values)] == [[1, 3, 5], [8, 4, 0], [10, 6, 2], [7, 11, 9]]


def test_seed_and_epoch_change_the_order():
    table = LengthTable(("text",), np.ones((60, 1), int))
    policy = Packed(plan_packing(table, batch_size=4))
    orders = [
        [t.ordinals for t in steps(BalancedBuffer(policy, 20, **options), table.values)]
        for options in ({}, {"seed": 1}, {"epoch": 1}, {})
    ]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_misuse_is_told():
    policy = Packed(plan_packing(HEAVY, batch_size=16))
    with pytest.raises(PaddingError, match="buffer of 9 samples for batches of up to 16 rows"):
        BalancedBuffer(policy, 9)
    with pytest.raises(PaddingError, match="got batch_size=8 for Packed"):
        BalancedBuffer(policy, 99, batch_size=8)
    with pytest.raises(PaddingError, match=r"got Exact\(\['text'\]\), which has no capacities; use Packed"):
        BalancedBuffer(Exact(["text"]), 99, batch_size=8)
    buffer = BalancedBuffer(policy, 20)
    with pytest.raises(UncoveredLengthError, match="row 1: 'text' has 999 positions and the largest capacity is"):
        buffer.add(np.array([[3], [999]]), range(2), range(2))
    assert buffer.held == [], "what is refused leaves nothing behind"
    assert len(buffer) == 0
