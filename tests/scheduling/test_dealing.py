import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import Exact, Ladder, position_count
from multimodal_pad.scheduling.dealing import find_kinds, shuffled
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
        np.testing.assert_array_equal(kinds.lengths[kinds.of], padded)
        assert len(kinds.lengths) == len(np.unique(padded, axis=0))
        assert (np.diff(position_count(kinds.lengths)) >= 0).all()
