"""Exact partitions: of sorted costs by dynamic programming, and of a few rows by enumeration.

Samples that share a shape cost at least the most expensive of them each. So the cheapest partition of
the *sorted sample costs* into k runs, each charged at its last cost, is the cost of k shapes in one
modality, where longer is never cheaper, and a lower bound of it in several.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multimodal_pad.lengths.cost import Cost

PIECES = 48
"""Places where :func:`joint_runs` may cut, at most."""

ENUMERATED = 8
"""Most distinct rows for which every partition is tried: 4,140 of them (the 8th Bell number)."""


def optimal_runs(costs: np.ndarray, weights: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Yield, for k = 1, 2, ..., the least total of at most k runs, and where these runs end.

    The recurrence is ``D_k(j) = min_i D_{k-1}(i) + costs[j-1] (W_j - W_i)`` with W the running sum of
    the weights. Its best i never falls as j grows, because costs don't, so each layer is found by
    halving the gaps between the j that are known: O(n log n) a layer.

    Args:
        costs: ``(n,)``, not decreasing.
        weights: ``(n,)``, samples at each cost, 0 or more.

    Yields:
        The total, and the index of the last member of each run, in order, without end:
        once every cost has a run of its own, the answer stays as it is.

    >>> runs = optimal_runs(np.array([1.0, 2, 10]), np.array([5, 5, 1]))
    >>> [(total, ends.tolist()) for total, ends in (next(runs), next(runs), next(runs))]
    [(110.0, [2]), (30.0, [1, 2]), (25.0, [0, 1, 2])]
    """
    n = len(costs)
    charges = np.concatenate([[0.0], np.asarray(costs, np.float64)])  # of a run that ends before j
    running = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
    totals = charges * running
    layers: list[np.ndarray] = []
    while True:
        ends = [n]
        for layer in reversed(layers):
            ends.append(int(layer[ends[-1]]))
        yield float(totals[n]), np.unique([end - 1 for end in ends if end])
        if len(layers) < n:
            totals, layer = _next_layer(totals, charges, running)
            layers.append(layer)


def _next_layer(totals: np.ndarray, charges: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``D_k`` and its best i for every j, from ``D_{k-1}``."""
    n = len(totals) - 1
    best, cheapest = np.zeros(n + 1, np.int64), np.zeros(n + 1)
    best[n:], cheapest[n:] = _cheapest_start(totals, charges, running, np.array([n]), np.array([0]), np.array([n]))
    gap = 1 << n.bit_length()
    while gap > 1:
        js = np.arange(gap // 2, n, gap)
        if len(js):
            above = np.minimum(js + gap // 2, n)
            low, high = best[js - gap // 2], np.minimum(best[above], js)
            best[js], cheapest[js] = _cheapest_start(totals, charges, running, js, low, high)
        gap //= 2
    return cheapest, best


def _cheapest_start(
    totals: np.ndarray, charges: np.ndarray, running: np.ndarray, js: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each j the first best i in ``low..high``, and the total with it."""
    counts = high - low + 1
    starts = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(js)), counts)
    i = np.arange(counts.sum()) - starts[owner] + low[owner]
    tried = totals[i] + charges[js][owner] * (running[js][owner] - running[i])
    least = np.minimum.reduceat(tried, starts)
    hits = np.flatnonzero(tried == least[owner])
    return i[hits[np.searchsorted(owner[hits], np.arange(len(js)))]], least


def joint_runs(rows: np.ndarray, weights: np.ndarray, cost: Cost) -> Iterator[np.ndarray]:
    """Yield, for k = 1, 2, ..., the shapes of the best k runs of rows in the order given, cut at few places.

    These are starts for the search, along one modality, say, where two run in opposite order.

    Args:
        rows: ``(M, n)`` lengths.
        weights: ``(n,)``, samples at each.
        cost: per sample, of lengths ``(n, M)``.
    """
    n = rows.shape[1]
    firsts = np.unique(np.linspace(0, n, PIECES, endpoint=False).astype(np.int64))
    longest = np.maximum.reduceat(rows, firsts, axis=1)
    del rows  # else this generator would keep it for as long as it is used
    running = np.append(0, np.cumsum(weights))[np.append(firsts, n)]
    count = len(firsts)
    charges = np.full((count, count), np.inf)  # of a run, by its first and its last piece
    for first in range(count):
        joins = np.maximum.accumulate(longest[:, first:], axis=1)
        charges[first, first:] = cost(joins.T) * (running[first + 1 :] - running[first])
    totals, layers = charges[0], []
    while True:
        starts = [count]
        for layer in reversed(layers):
            starts.append(int(layer[max(starts[-1], 1) - 1]))
        yield np.maximum.reduceat(longest, np.unique([0, *starts[1:]]), axis=1).T
        tried = np.append(np.inf, totals[:-1])[:, None] + charges
        layers.append(tried.argmin(axis=0))
        totals = tried.min(axis=0)


def enumerate_shapes(rows: np.ndarray, weights: np.ndarray, cost: Cost) -> Iterator[np.ndarray]:
    """Yield, for k = 1, 2, ..., the best at most k shapes, by trying every partition of the rows.

    Args:
        rows: ``(n, M)`` distinct lengths, n at most :data:`ENUMERATED`.
        weights: ``(n,)``, samples at each row.
        cost: per sample, of lengths ``(n, M)``.
    """
    groups = _set_partitions(len(rows))
    totals = np.zeros(len(groups))
    for group in range(len(rows)):
        inside = groups == group
        joins = np.where(inside[..., None], rows, 0).max(axis=1)
        used = inside.any(axis=1)
        totals[used] += cost(joins[used]) * (inside[used] @ weights)
    counts = groups.max(axis=1) + 1
    for k in range(1, len(rows) + 1):
        allowed = np.flatnonzero(counts <= k)
        chosen = groups[allowed[np.argmin(totals[allowed])]]
        yield np.stack([rows[chosen == group].max(axis=0) for group in range(chosen.max() + 1)])


def _set_partitions(n: int) -> np.ndarray:
    """Return every partition of n items, as the group number of each item ``(Bell(n), n)``."""
    groups = np.zeros((1, 1), np.int64)
    for _ in range(n - 1):
        options = groups.max(axis=1) + 2
        nth = np.arange(options.sum()) - np.repeat(np.cumsum(options) - options, options)
        groups = np.column_stack([np.repeat(groups, options, axis=0), nth])
    return groups
