from itertools import combinations, islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.lengths.cost import position_count
from multimodal_pad.planning.partition import ENUMERATED, enumerate_shapes, optimal_runs

COSTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=9)


def cheapest_runs(costs, weights, k):
    """The oracle: every way to cut the sorted costs into at most k runs."""
    n = len(costs)
    totals = []
    for inner in combinations(range(1, n), min(k, n) - 1):
        cuts = [0, *inner, n]
        totals.append(sum(costs[b - 1] * weights[a:b].sum() for a, b in pairwise(cuts)))
    return min(totals)


@given(COSTS)
def test_runs_equal_every_cut_tried(pairs):
    pairs = np.array(sorted(pairs))
    costs, weights = pairs[:, 0].astype(float), pairs[:, 1]
    found = list(islice(optimal_runs(costs, weights), 10))
    assert len(found) == 10
    for k, (total, ends) in enumerate(found, 1):
        assert total == pytest.approx(cheapest_runs(costs, weights, k))
        assert len(ends) <= k
        assert ends[-1] == len(costs) - 1
        cuts = [0, *(ends + 1)]
        charged = sum(costs[b - 1] * weights[a:b].sum() for a, b in pairwise(cuts))
        assert charged == pytest.approx(total), "the ends belong to the total"


def test_runs_of_many_costs_equal_the_quadratic_recurrence():
    rng = np.random.default_rng(0)
    costs, weights = np.sort(rng.pareto(1.2, 300)), rng.integers(1, 9, 300)
    running = np.append(0, np.cumsum(weights))
    totals = np.append(0, costs) * running
    found = list(islice(optimal_runs(costs, weights), 12))
    assert len(found) == 12
    for k, (total, _) in enumerate(found, 1):
        if k > 1:
            charge = np.append(0, costs)[None] * (running[None] - running[:, None])
            totals = np.where(np.tri(301, dtype=bool).T, totals[:, None] + charge, np.inf).min(axis=0)
        assert total == pytest.approx(totals[-1], rel=1e-12)


@pytest.mark.parametrize(("n", "bell"), [(1, 1), (2, 2), (3, 5), (4, 15), (ENUMERATED, 4140)])
def test_every_partition_is_tried_once(n, bell):
    seen = []

    def watch(lengths):
        seen.append(len(lengths))
        return position_count(lengths)

    rows = np.arange(1, n + 1)[:, None]
    shapes = list(enumerate_shapes(rows, np.ones(n), watch))
    assert seen[0] == bell, "each partition has a first group"
    assert shapes[-1].tolist() == rows.tolist()
