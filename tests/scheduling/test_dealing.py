import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import Exact, Ladder, position_count
from multimodal_pad.scheduling.dealing import find_kinds, share_out, shuffled
from tests.strategies import length_tables


@given(st.integers(0, 300), st.integers(0, 2**40))
def test_shuffled_is_a_permutation(count, seed):
    assert sorted(shuffled(count, seed, 1).tolist()) == list(range(count))


def test_every_permutation_is_as_likely():
    orders = [tuple(shuffled(3, seed)) for seed in range(3000)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 3000
    assert min(counts) > 420, "each is expected 500 times, with a standard deviation of 20"


@given(length_tables(), st.integers(1, 9))
def test_kinds_are_the_distinct_padded_lengths_cheapest_first(table, multiple):
    for policy in (Exact(table.modalities), Ladder.multiples_of(table, multiple)):
        kinds = find_kinds(table, policy, 4, position_count, None)
        padded = policy.round_up(table.values)
        np.testing.assert_array_equal(kinds.shapes[kinds.of], padded)
        assert len(kinds.shapes) == len(np.unique(padded, axis=0))
        assert (np.diff(position_count(kinds.shapes)) >= 0).all()


@given(st.data(), st.integers(1, 6), st.booleans())
def test_sharing_out_keeps_its_promises(data, kinds, last):
    def numbers(low, high):
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=kinds, max_size=kinds)))

    counts, sizes = numbers(0, 12), numbers(1, 5)
    shapes = np.stack([numbers(1, 4), numbers(1, 4)], axis=1)
    own, lent = share_out(counts, shapes, sizes, last=last)
    gone, batches = own.copy(), own.copy()
    for kind, source, count in lent:
        assert count > 0
        assert source < kind
        assert (shapes[source] <= shapes[kind]).all()
        gone[source] += count
        batches[kind] += count
    if last:
        np.testing.assert_array_equal(gone, counts)
        for kind in np.flatnonzero(batches % sizes):
            below = (shapes[:kind] <= shapes[kind]).all(axis=1)
            assert (own[:kind][below] == 0).all(), "rows stay empty only where nobody is left to fill them"
    else:
        assert (gone <= counts).all()
        assert (batches % sizes == 0).all()
        if not lent:
            np.testing.assert_array_equal(own, counts - counts % sizes)


@pytest.mark.parametrize(("counts", "lends"), [([8, 4], False), ([1, 2], True), ([7, 5], False)])
def test_nobody_is_lent_while_at_most_half_would_wait(counts, lends):
    _, lent = share_out(np.array(counts), np.array([[4], [8]]), np.array([4, 3]), last=False)
    assert bool(lent) == lends
