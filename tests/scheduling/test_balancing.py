"""Dealing to packs: every sample once, exactly as many of them as asked for, and none above its capacity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.balancing import deal_packs
from tests.strategies import uneven_lengths


@st.composite
def drawn_tables(draw):
    """Lengths, an order of them, and how many share a pack, and a window."""
    lengths = draw(uneven_lengths())
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(lengths))
    return lengths, order, draw(st.integers(1, 40)), draw(st.integers(1, 9))


@settings(max_examples=80, deadline=None)
@given(drawn_tables(), st.floats(1, 2))
def test_every_sample_once_exactly_so_many_and_none_above(drawn, margin):
    lengths, order, size, window = drawn
    mean = lengths.mean(axis=0) * min(size, len(lengths))
    capacity = np.maximum(np.ceil(margin * mean), np.maximum(lengths.max(axis=0), 1)).astype(int)
    packs = deal_packs(lengths, order, size, window=window, capacities=capacity[None])
    real = packs.members != EMPTY
    np.testing.assert_array_equal((lengths[packs.members] * real[:, :, None]).sum(axis=1), packs.loads)
    assert (packs.loads <= capacity).all()
    np.testing.assert_array_equal(np.sort(packs.members[real]), np.arange(len(lengths)))
    counts = real.sum(axis=1)
    assert len(packs.loads) == -(-len(lengths) // size) + packs.extra
    if not packs.extra:  # then all but the last are of exactly so many
        assert (counts[:-1] == size).all()


def test_sums_are_alike():
    """Where a random order has batches of 1.4 times the mean."""
    rng = np.random.default_rng(0)
    lengths = np.stack([rng.gamma(1.2, scale, 4000).astype(int) + 1 for scale in (8, 60, 45)], axis=1)
    order = rng.permutation(4000)
    packs, mean = deal_packs(lengths, order, 32), lengths.mean(axis=0) * 32
    by_chance = lengths[order].reshape(-1, 32, 3).sum(axis=1)
    assert (by_chance.max(axis=0) > 1.25 * mean).all()
    assert (packs.loads.max(axis=0) < 1.06 * mean).all()
    assert not deal_packs(lengths, order, 32, capacities=np.ceil(1.01 * mean)[None]).extra


def test_changes_bring_packs_within_a_capacity_that_dealing_exceeds():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 100, (640, 2))
    dealt = deal_packs(lengths, np.arange(640), 8)
    capacity = dealt.loads.max(axis=0) - 4
    assert (dealt.loads > capacity).any()
    packs = deal_packs(lengths, np.arange(640), 8, capacities=capacity[None])
    assert (packs.loads <= capacity).all()
    assert packs.extra == 0


def test_what_fits_nowhere_makes_a_pack_of_its_own_at_the_end():
    lengths = np.array([[9]] * 5 + [[1]])
    packs = deal_packs(lengths, np.arange(6), 2, capacities=np.array([[10]]))
    assert packs.extra == 2
    assert sorted(packs.loads.ravel().tolist()) == [9, 9, 9, 9, 10]


def test_a_longer_capacity_takes_the_packs_of_long_samples_and_no_others():
    lengths = np.array([[10]] * 30 + [[90], [80]])
    packs = deal_packs(lengths, np.arange(32), 4, capacities=np.array([[40], [130]]))
    assert ((packs.loads > 40).sum(), packs.extra) == (2, 0)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_windows_get_alike_samples(window):
    """Each pack gets as many of the longest, and of the shortest, as any other, whatever the window."""
    lengths = np.arange(1, 401)[:, None]
    packs = deal_packs(lengths, np.random.default_rng(2).permutation(400), 8, window=window)
    means = packs.loads.ravel() / 8
    assert abs(means - lengths.mean()).max() < 0.2 * lengths.mean()


def test_another_order_deals_other_batches():
    lengths = np.random.default_rng(3).integers(1, 50, (200, 2))
    packs = [deal_packs(lengths, np.random.default_rng(seed).permutation(200), 10).members for seed in (1, 2)]
    one, other = ({frozenset(pack) for pack in members.tolist()} for members in packs)
    assert not one & other
