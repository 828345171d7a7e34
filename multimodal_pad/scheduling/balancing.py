"""Balanced batches for the packed layout: exactly B samples each, dealt so that their sums of lengths are alike.

The samples of an epoch are ranked by size once, and their random order is dealt row by row of a grid: row r of it holds
the samples of rank r P to (r + 1) P, where P is the number of packs, so that all windows of packs get alike samples.
Within a window each sample, the largest first, goes to the pack that it leaves least full (Graham 1969, with the number
of samples of a pack fixed). A pack above its capacity changes samples with those that have most room; what still does
not fit makes packs of its own, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from multimodal_pad.lengths.samples import EMPTY

MOST_PACKS = 64
"""Packs of a window, for packs of 32 samples or more: a larger window saves little, and the time to deal a pack grows
with its window. Windows of smaller packs have as many samples."""

LEAST_SAMPLES = 2048  # of a window

_LEAST = np.iinfo(np.uint16).max  # the sort key of an empty place

_TOGETHER = 2**17  # packs dealt to at once: more don't fit the cache
_THREADS = 2
_CHANGES = 16  # swaps to try for a pack above its capacity before samples are taken out of it
_LOOKED_AT = 128  # packs to try swaps with: those with most room
_FIRST = 16  # packs to try first: enough where a swap halves the excess


@dataclass(frozen=True)
class Packs:
    """The packs of an epoch.

    Attributes:
        members: int64 ``(packs, size)``: the samples of each, by their place in the lengths; EMPTY where there are
            fewer.
        loads: int64 ``(packs, M)``: sums of lengths.
        extra: packs beyond those that the number of samples asks for; they come last.
    """

    members: np.ndarray
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
    total = -(-len(lengths) // size)
    scale = np.maximum(lengths.mean(axis=0) * size if capacities is None else capacities[0], 1e-9)
    shares = [np.asarray(column / one, np.float32) for column, one in zip(lengths.T, scale, strict=True)]
    keys = _descending(np.maximum.reduce(shares))
    grid = _grid(keys, order, size, total)
    members = np.full((total, size), EMPTY)

    def balance(packs: np.ndarray) -> None:
        ids = grid[packs].reshape(len(packs), -1)
        largest_first = np.argsort(np.where(ids == EMPTY, _LEAST, keys[ids]), axis=1, kind="stable")
        members[packs] = _balance(shares, np.take_along_axis(ids, largest_first, axis=1), size)

    windows = _windows(total, window, max(1, _TOGETHER // window), short=total * size > len(lengths))
    with ThreadPoolExecutor(_THREADS) as threads:  # NumPy lets go of Python's lock
        list(threads.map(balance, windows))
    loads = _loads(lengths, members)
    if capacities is None:
        return Packs(members, loads, 0)
    more = _keep_within(members, loads, lengths, capacities)
    return Packs(np.concatenate([members, more]), np.concatenate([loads, _loads(lengths, more)]), len(more))


def _descending(sizes: np.ndarray) -> np.ndarray:
    """Return sort keys of numbers from 0 on, largest first: uint16, for NumPy's radix sort; 7 bits of precision."""
    return _LEAST - 1 - (sizes.view(np.uint32) >> 16).astype(np.uint16)


def _grid(keys: np.ndarray, order: np.ndarray, size: int, packs: int) -> np.ndarray:
    """Return sample numbers ``(packs, size)``, the largest first; EMPTY in the last pack, where none are left."""
    held = np.ones((size, packs), bool)
    held[size - (size * packs - len(order)) :, -1] = False
    rank = np.empty(len(order), np.min_scalar_type(size))
    rank[np.argsort(keys, kind="stable")] = np.repeat(np.arange(size, dtype=rank.dtype), held.sum(axis=1))
    grid = np.full((size, packs), EMPTY)
    grid[held] = order[np.argsort(rank[order], kind="stable")]
    return grid.T


def _windows(total: int, window: int, together: int, *, short: bool) -> Iterator[np.ndarray]:
    """Yield packs ``(windows, width)`` of windows as equal as can be, many at once; a short last one alone."""
    edges = np.linspace(0, total, max(1, round(total / window)) + 1).round().astype(np.int64)
    firsts, widths = edges[:-1], np.diff(edges)
    alone = len(firsts) - short
    for width in np.unique(widths[:alone]).tolist():
        alike = firsts[:alone][widths[:alone] == width]
        for i in range(0, len(alike), together):
            yield alike[i : i + together, None] + np.arange(width)
    if short:
        yield firsts[-1:, None] + np.arange(widths[-1])


def _balance(shares: Sequence[np.ndarray], ids: np.ndarray, size: int) -> np.ndarray:
    """Return the members ``(windows, width, size)`` of packs from samples ``(windows, n)``, the largest first."""
    windows, width = np.arange(len(ids)), ids.shape[1] // size
    holes = int((ids[0] == EMPTY).sum())  # only in the last pack of all, which has a window to itself
    ids = ids[:, : ids.shape[1] - holes]
    members = np.full((len(windows), width, size), EMPTY)
    loads = np.zeros((len(shares), len(windows), width), np.float32)
    taken = np.zeros((len(windows), width), np.int64)
    taken[:, -1] = holes
    loads[:, :, -1] = holes / size  # counts as filled in part, so that it gets fewer samples
    loads[0][taken == size] = np.inf
    full, more = np.empty_like(loads[0]), np.empty_like(loads[0])
    for some in ids.T:
        each = [share[some] for share in shares]
        np.add(loads[0], each[0][:, None], out=full)
        for load, share in zip(loads[1:], each[1:], strict=True):
            np.maximum(full, np.add(load, share[:, None], out=more), out=full)
        best = full.argmin(axis=1)
        members[windows, best, taken[windows, best]] = some
        taken[windows, best] += 1
        for load, share in zip(loads, each, strict=True):
            load[windows, best] += share
        closed = taken[windows, best] == size
        loads[0, windows[closed], best[closed]] = np.inf
    if holes:
        members[0, -1] = np.roll(members[0, -1], -holes)
    return members


def _loads(lengths: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return sums of lengths ``(packs, M)``."""
    loads = np.stack([column[members].sum(axis=1) for column in lengths.T], axis=1)
    short = (members == EMPTY).any(axis=1)
    loads[short] = np.where(members[short, :, None] == EMPTY, 0, lengths[members[short]]).sum(axis=1)
    return loads


def _keep_within(members: np.ndarray, loads: np.ndarray, lengths: np.ndarray, capacities: np.ndarray) -> np.ndarray:
    """Change samples, in place, until no pack exceeds its capacity; return the packs that this adds, as members."""
    over = np.flatnonzero((loads > capacities[0]).any(axis=1))
    left: list[int] = []
    emptiest = over[:0]
    for number, pack in enumerate(over.tolist()):
        if number % _LOOKED_AT == 0:  # a new search for each is slow where there are many
            fullness = (loads / capacities[0]).max(axis=1) + _short(members)
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
    return _first_fit(left, lengths, capacities[-1], members.shape[1])


def _change(
    members: np.ndarray, loads: np.ndarray, lengths: np.ndarray, capacity: np.ndarray, pack: int, others: np.ndarray
) -> bool:
    """Swap a sample of a pack for one of other packs to lower its excess; return whether there was such a swap."""
    now = (np.maximum(loads[pack] - capacity, 0) / capacity).sum()
    for some, enough in ((others[:_FIRST], now / 2), (others, now)):
        excess, a, b = _best_change(members, loads, lengths, capacity, pack, some)
        if excess < enough:
            other, place = some[b // members.shape[1]], b % members.shape[1]
            gain = lengths[members[other, place]] - lengths[members[pack, a]]
            loads[other] -= gain
            loads[pack] += gain
            members[pack, a], members[other, place] = members[other, place], members[pack, a]
            return True
    return False


def _best_change(
    members: np.ndarray, loads: np.ndarray, lengths: np.ndarray, capacity: np.ndarray, pack: int, others: np.ndarray
) -> tuple[float, int, int]:
    """Return a pack's excess after the best swap, inf where none is possible, and where the swapped samples are."""
    mine, theirs = members[pack], members[others].ravel()
    room = capacity * (1 - _short(members[others])[:, None]) - loads[others]
    room = np.repeat(room, members.shape[1], axis=0)
    held = (mine != EMPTY)[:, None] & (theirs != EMPTY)[None]
    excess = np.zeros(held.shape)
    for column, limit, load, free in zip(lengths.T, capacity, loads[pack], room.T, strict=True):
        gain = column[theirs][None] - column[mine][:, None]  # positions that move from the other pack to this one
        held &= gain >= -free
        excess += np.maximum(gain + (load - limit), 0) / limit
    excess[~held] = np.inf
    a, b = np.unravel_index(int(excess.argmin()), excess.shape)
    return float(excess[a, b]), int(a), int(b)


def _short(members: np.ndarray) -> np.ndarray:
    """Return the part of each pack that is taken by no sample: else the short pack would get the longest ones."""
    return (members == EMPTY).mean(axis=1)


def _first_fit(left: list[int], lengths: np.ndarray, capacity: np.ndarray, size: int) -> np.ndarray:
    """Pack what is left, the largest first, each into the first pack that holds it: members ``(packs, size)``."""
    made: list[list[int]] = []
    for sample in sorted(left, key=lambda i: -(lengths[i] / capacity).max()):
        together = (some for some in made if len(some) < size and _fits(lengths[[*some, sample]].sum(axis=0), capacity))
        some = next(together, None)
        if some is None:
            made.append(some := [])
        some.append(sample)
    return np.array([some + [EMPTY] * (size - len(some)) for some in made], np.int64).reshape(-1, size)


def _fits(load: np.ndarray, capacity: np.ndarray) -> bool:
    return bool((load <= capacity).all())
