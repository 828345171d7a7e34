"""Balanced batches for the packed layout: exactly B samples each, dealt so that their sums of lengths are alike.

The samples of an epoch are ranked by size once, and their random order is dealt row by row of a grid: row r of it holds
the samples of rank r P to (r + 1) P, where P is the number of packs, so that all windows of packs get alike samples.
Within a window each sample, the largest first, goes to the pack that it leaves least full (Graham 1969, with the number
of samples of a pack fixed). A pack above its capacity changes samples with those that have most room; what still does
not fit makes packs of its own, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_pad.lengths.samples import EMPTY

MOST_PACKS = 64
"""Packs of a window, where they are of 32 samples or more: more of them save little, and each takes as long to deal as
there are. Smaller packs have windows of as many samples."""

LEAST_SAMPLES = 2048  # of a window

_CHANGES = 16  # swaps that a pack above its capacity may take before what is too much leaves it
_LOOKED_AT = 64  # packs that it may swap with: those with most room


@dataclass(frozen=True)
class Packs:
    """The packs of an epoch.

    Attributes:
        of: int64 ``(n,)``: the pack of each sample, in the order in which they were given.
        loads: int64 ``(packs, M)``: sums of lengths.
        extra: packs beyond as many as the number of samples asks for; they come last.
    """

    of: np.ndarray
    loads: np.ndarray
    extra: int


def deal_packs(
    lengths: np.ndarray,
    order: np.ndarray,
    size: int,
    *,
    window: int = MOST_PACKS,
    capacities: np.ndarray | None = None,
) -> Packs:
    """Deal samples to packs of exactly ``size``; what is left over after the last full one is a pack too.

    Args:
        lengths: ``(n, M)``, of the samples.
        order: the random order of the epoch, a permutation of them.
        size: samples of a pack.
        window: packs of a window.
        capacities: ``(k, M)`` of a pack, the smallest first: as many packs as can be keep the first, and none exceeds
            the last. By default packs are as full as they come.

    >>> lengths = np.array([[1], [9], [8], [2], [3], [7]])
    >>> packs = deal_packs(lengths, np.arange(6), 2, capacities=np.array([[10]]))
    >>> packs.loads.ravel().tolist(), packs.extra
    ([10, 10, 10], 0)
    """
    count, total = len(lengths), -(-len(lengths) // size)
    scale = np.maximum(lengths.mean(axis=0) * size if capacities is None else capacities[0], 1e-9)
    shares = np.asarray(lengths / scale, np.float32)
    grid = _grid(shares.max(axis=1), order, size, total)
    edges = np.linspace(0, total, max(1, round(total / window)) + 1).round().astype(np.int64)
    of = np.empty(count, np.int64)
    widths = np.diff(edges)
    for width in np.unique(widths).tolist():
        firsts = edges[:-1][widths == width]
        ids = grid[:, firsts[:, None] + np.arange(width)].swapaxes(0, 1).reshape(len(firsts), -1)
        sizes = np.where(ids == EMPTY, -1, shares.max(axis=1)[ids])
        ids = np.take_along_axis(ids, np.argsort(-sizes, axis=1, kind="stable"), axis=1)
        bins = _balance(shares, ids, size, width)
        real = ids != EMPTY
        of[ids[real]] = (firsts[:, None] + bins)[real]
    loads = np.stack([np.bincount(of, column, total) for column in lengths.T], axis=1).astype(np.int64)
    extra = 0 if capacities is None else _keep_within(of, loads, lengths, capacities, size)
    if extra:
        loads = np.stack([np.bincount(of, column, total + extra) for column in lengths.T], axis=1).astype(np.int64)
    return Packs(of, loads, extra)


def members_of(of: np.ndarray, packs: int, size: int) -> np.ndarray:
    """Which samples each pack has, int64 ``(packs, size)``, from the pack of each sample; EMPTY behind them.

    >>> members_of(np.array([1, 0, 1]), 2, 2).tolist()
    [[1, -1], [0, 2]]
    """
    order, counts = np.argsort(of, kind="stable"), np.bincount(of, minlength=packs)
    members = np.full((packs, size), EMPTY)
    members[of[order], np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)] = order
    return members


def _grid(sizes: np.ndarray, order: np.ndarray, size: int, packs: int) -> np.ndarray:
    """Sample numbers ``(size, packs)``, the largest in the first row; EMPTY in the last pack, where none are left."""
    held = np.ones((size, packs), bool)
    held[size - (size * packs - len(order)) :, -1] = False
    rank = np.empty(len(order), np.min_scalar_type(size))
    rank[np.argsort(-sizes, kind="stable")] = np.repeat(np.arange(size), held.sum(axis=1))
    grid = np.full((size, packs), EMPTY)
    grid[held] = order[np.argsort(rank[order], kind="stable")]
    return grid


def _balance(shares: np.ndarray, ids: np.ndarray, size: int, width: int) -> np.ndarray:
    """The pack ``(windows, n)`` of each sample of each window, within its window; ``ids`` are in the order dealt."""
    windows = np.arange(len(ids))
    holes = (ids == EMPTY).sum(axis=1)
    room = np.full((len(ids), width), size)
    room[:, -1] -= holes  # the last pack of all is the one that is short
    loads = np.zeros((shares.shape[1], len(ids), width), np.float32)
    loads[:, :, -1] = holes / size  # and is as full as it should be sooner
    closed = np.where(room > 0, 0, np.inf).astype(np.float32)
    bins = np.zeros(ids.shape, np.int64)
    for i in range(ids.shape[1]):
        real = ids[:, i] != EMPTY
        share = np.where(real[:, None], shares[ids[:, i]], 0).T
        full = closed + loads[0] + share[0][:, None]
        for load, more in zip(loads[1:], share[1:], strict=True):
            np.maximum(full, load + more[:, None], out=full, where=closed == 0)
        best = full.argmin(axis=1)
        bins[:, i] = best
        loads[:, windows, best] += share
        room[windows, best] -= real
        closed[windows, best] = np.where(room[windows, best] > 0, 0, np.inf)
    return bins


def _keep_within(of: np.ndarray, loads: np.ndarray, lengths: np.ndarray, capacities: np.ndarray, size: int) -> int:
    """Change samples until no pack exceeds its capacity; gives the number of packs that this took. Works in place."""
    over = np.flatnonzero((loads > capacities[0]).any(axis=1))
    if not len(over):
        return 0
    members = members_of(of, len(loads), size)
    left: list[int] = []
    emptiest = over[:0]
    for number, pack in enumerate(over.tolist()):
        if number % _LOOKED_AT == 0:  # to look for each is slow where there are many
            fullness = (loads / capacities[0]).max(axis=1)
            emptiest = np.argpartition(fullness, min(_LOOKED_AT, len(loads) - 1))[:_LOOKED_AT]
        mine, others = members[pack][members[pack] != EMPTY], emptiest[emptiest != pack]
        for capacity in capacities:
            for _ in range(_CHANGES if len(others) and _fits(lengths[mine].max(axis=0), capacity) else 0):
                if _fits(loads[pack], capacity) or not _change(members, loads, lengths, capacity, pack, others):
                    break
            if _fits(loads[pack], capacity):
                break
        while not _fits(loads[pack], capacities[-1]):
            excess = ((loads[pack] - capacities[-1]) / capacities[-1]).argmax()
            place = int(np.where(members[pack] == EMPTY, -1, lengths[members[pack], excess]).argmax())
            left.append(int(members[pack, place]))
            loads[pack] -= lengths[left[-1]]
            members[pack, place] = EMPTY
    packs, places = np.nonzero(members != EMPTY)
    of[members[packs, places]] = packs
    return _first_fit(of, left, lengths, capacities[-1], size, len(loads))


def _change(
    members: np.ndarray, loads: np.ndarray, lengths: np.ndarray, capacity: np.ndarray, pack: int, others: np.ndarray
) -> bool:
    """Swap a sample of a pack for one of other packs, so that it exceeds its capacity least; says whether one did."""
    mine, theirs = members[pack], members[others].ravel()
    gain = lengths[theirs][None] - lengths[mine][:, None]  # what the pack gets, and the other one loses
    held = (np.repeat(loads[others], members.shape[1], axis=0)[None] - gain <= capacity).all(axis=2)
    held &= (mine != EMPTY)[:, None] & (theirs != EMPTY)[None]
    excess = np.where(held, (np.maximum(loads[pack] + gain - capacity, 0) / capacity).sum(axis=2), np.inf)
    a, b = np.unravel_index(int(excess.argmin()), excess.shape)
    if excess[a, b] >= (np.maximum(loads[pack] - capacity, 0) / capacity).sum():
        return False
    other, place = others[b // members.shape[1]], b % members.shape[1]
    loads[other] -= gain[a, b]
    loads[pack] += gain[a, b]
    members[pack, a], members[other, place] = theirs[b], mine[a]
    return True


def _first_fit(
    of: np.ndarray, left: list[int], lengths: np.ndarray, capacity: np.ndarray, size: int, packs: int
) -> int:
    """Packs of what is left, the largest first, each into the first that holds it; gives their number."""
    made: list[tuple[np.ndarray, int]] = []
    for sample in sorted(left, key=lambda i: -(lengths[i] / capacity).max()):
        fits = (n for n, (load, count) in enumerate(made) if count < size and _fits(load + lengths[sample], capacity))
        number = next(fits, len(made))
        load, count = made[number] if number < len(made) else (np.zeros_like(lengths[sample]), 0)
        made[number : number + 1] = [(load + lengths[sample], count + 1)]
        of[sample] = packs + number
    return len(made)


def _fits(load: np.ndarray, capacity: np.ndarray) -> bool:
    return bool((load <= capacity).all())
