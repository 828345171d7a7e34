"""Dealing samples to batches, window by window, from counts alone.

Every sample has a *kind*, the shape that it rounds up to, and the samples of a kind wait in a queue in random order.
How many a window takes off each queue follows from counts, so the whole epoch is laid out in one pass over the windows,
and the rows of any window are then looked up by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchShape, batch_shapes
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.filling import share_out
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.scheduling.steps import Steps

MOST_KINDS = 2**13
"""Most kinds to deal samples by: filling up short batches looks at every pair of them, minutes for more."""

RANDOM_WINDOW = 1024  # steps that a random epoch looks up at once


@dataclass(frozen=True, eq=False)
class Kinds:
    """The shapes that samples round up to.

    Attributes:
        lengths: int64 ``(K, M)``: bucket lengths, cheapest first.
        batch_sizes: int64 ``(K,)``: of each.
        of: the kind of each sample dealt, unsigned ``(n,)``.
    """

    lengths: np.ndarray
    batch_sizes: np.ndarray
    of: np.ndarray


def batch_sizes_at(policy: Policy, padded: np.ndarray, batch_size: int | None) -> np.ndarray:
    """Return samples per batch at each of the shapes' lengths ``(k, M)``: the policy's, or else those given."""
    own = policy.batch_sizes(padded)
    return np.full(len(padded), batch_size) if own is None else own


def policy_shapes(policy: Policy, batch_size: int | None) -> list[BatchShape]:
    """Return every batch shape of a policy that has finitely many, the most rows and the longest first."""
    padded = policy.lengths()
    if padded is None:
        raise PaddingError(f"{policy!r} has infinitely many shapes; use a plan, or padding to few lengths")
    return sorted_shapes(policy, batch_sizes_at(policy, padded, batch_size), padded)


def sorted_shapes(policy: Policy, batch_sizes: np.ndarray, lengths: np.ndarray) -> list[BatchShape]:
    """Return batch shapes of a policy, each once, the most rows and the longest first."""
    rows = np.unique(np.concatenate([batch_sizes[:, None], lengths], axis=1), axis=0)[::-1]
    return batch_shapes(rows[:, 0], rows[:, 1:], policy.modalities, policy.layout)


def find_kinds(
    lengths: LengthTable, policy: Policy, batch_size: int | None, cost: Cost, keep: np.ndarray | None
) -> Kinds:
    """Return the kinds of the samples kept; their lengths are covered.

    Raises:
        PaddingError: there are too many of them to deal samples by.
    """
    shapes, of = policy.number_shapes(block for _, block in lengths.blocks(keep))
    if len(shapes) > MOST_KINDS:
        raise PaddingError(
            f"got samples of {len(shapes):,} shapes for grouping='length', which deals to at most {MOST_KINDS:,}; use "
            "a plan, a ladder with wider edges, or grouping='random'"
        )
    by_cost = np.argsort(cost(shapes), kind="stable")
    rank = np.argsort(by_cost).astype(np.min_scalar_type(len(shapes)))
    return Kinds(shapes[by_cost], batch_sizes_at(policy, shapes[by_cost], batch_size), rank[of])


def shuffled(count: int, seed: int, *path: int) -> np.ndarray:
    """Return the numbers below ``count`` in a random order that any version of NumPy gives; int32 where they fit.

    ``path`` makes orders of one seed different: an epoch's, and those of its windows.

    NumPy promises the bits of a seeded generator for good, but not what ``permutation`` makes of them. So random bits
    stand before the bits of each number, and the whole is sorted. Of 10 million numbers some 90 share their random bits
    with another and are in ascending order.

    >>> shuffled(5, 0, 1).tolist()
    [1, 3, 2, 0, 4]
    """
    low = np.uint64(max(0, count - 1).bit_length())
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path)).random_raw(count)
    keys >>= low
    keys <<= low
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low) - np.uint64(1)
    return keys.astype(np.int32 if count <= 2**31 else np.int64)


class RandomDeal:
    """An epoch of batches drawn from a random order, each rounded up from its own maxima.

    Attributes:
        starts: int64 ``(windows + 1,)``: the number of the first step of each window, and of the steps.
    """

    def __init__(self, order: np.ndarray, lengths: LengthTable, policy: Policy, rows: int) -> None:
        self._order, self._lengths, self._policy, self._rows = order, lengths, policy, rows
        steps = -(-len(order) // rows)
        self.starts = np.append(np.arange(0, steps, RANDOM_WINDOW), steps)

    def window(self, number: int) -> Steps:
        """Return the steps of one window."""
        start, stop = self.starts[number : number + 2].tolist()
        ids = _filled_up(self._order[start * self._rows : stop * self._rows], self._rows)
        starts = np.arange(0, len(ids) + 1, self._rows)
        values = np.where((ids == EMPTY)[:, None], 0, self._lengths.values[ids])
        shapes = self._policy.round_up(np.maximum.reduceat(values, starts[:-1]))
        sizes = batch_sizes_at(self._policy, shapes, self._rows)
        if (sizes != self._rows).any():
            raise PaddingError(
                f"got grouping='random' for {self._policy!r}, which has batches of {self._rows} and of "
                f"{sizes[sizes != self._rows][0]}; a random batch is drawn before its shape is known: use "
                "grouping='length'"
            )
        return Steps(shapes, starts, ids)

    @property
    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows ``(k,)`` and padded lengths ``(k, M)`` that the epoch has."""
        windows = [np.unique(self.window(number).lengths, axis=0) for number in range(len(self.starts) - 1)]
        shapes = np.unique(np.concatenate(windows), axis=0)
        return np.full(len(shapes), self._rows), shapes


class LengthDeal:
    """An epoch of batches whose samples are dealt to the cheapest shape that holds them, window by window.

    Args:
        order: sample numbers in the random order of the epoch.
        kinds: their kinds, in the same order.
        window: batches per window.
        seeds: of the order of the steps within a window, together with its number.

    Attributes:
        starts: int64 ``(windows + 1,)``: the number of the first step of each window, and of the steps.
    """

    def __init__(self, order: np.ndarray, kinds: Kinds, window: int, seeds: tuple[int, ...]) -> None:
        self._kinds, self._seeds = kinds, seeds
        self._queues = order[np.argsort(kinds.of, kind="stable")]
        counts = np.bincount(kinds.of, minlength=len(kinds.batch_sizes))
        samples = max(1, round(window * len(order) / (counts / kinds.batch_sizes).sum()))
        self._parts, steps = _lay_out(kinds, counts, samples)
        self.starts = np.concatenate([[0], np.cumsum(steps)])

    def window(self, number: int) -> Steps:
        """Return the steps of one window, in random order."""
        parts, kinds = self._parts[number], self._kinds
        ids, sizes, of = [], [], []
        for kind in np.unique(parts[:, 0]).tolist():
            rows = [self._queues[start : start + count] for _, start, count in parts[parts[:, 0] == kind].tolist()]
            size = int(kinds.batch_sizes[kind])
            ids.append(_filled_up(np.concatenate(rows), size))
            sizes += [size] * (len(ids[-1]) // size)
            of += [kind] * (len(ids[-1]) // size)
        if not of:
            return Steps(kinds.lengths[:0], np.zeros(1, np.int64), np.zeros(0, np.int64))
        steps = Steps(kinds.lengths[of], np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(ids))
        return steps.take(shuffled(len(steps), *self._seeds, number))

    @property
    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows ``(k,)`` and padded lengths ``(k, M)`` that the epoch has."""
        kinds = np.unique(np.concatenate(self._parts)[:, 0])
        return self._kinds.batch_sizes[kinds], self._kinds.lengths[kinds]


def _filled_up(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return the sample numbers, int64, with EMPTY ones behind them up to a multiple of ``rows``."""
    return np.concatenate([ids.astype(np.int64), np.full(-len(ids) % rows, EMPTY)])


def _lay_out(kinds: Kinds, counts: np.ndarray, samples: int) -> tuple[list[np.ndarray], list[int]]:
    """Return which queues each window of so many samples takes how much from, and its number of steps.

    A window is rows ``(kind of the batch, first place in the queues, how many)``. A queue is taken in its order: own
    batches first, then what fills up batches of larger shapes.
    """
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    waiting = np.zeros_like(counts)
    windows, steps = [], []
    for start in range(0, len(kinds.of), samples):
        arrivals = np.bincount(kinds.of[start : start + samples], minlength=len(counts))
        last = start + samples >= len(kinds.of)
        own, moved = share_out(waiting + arrivals, kinds.lengths, kinds.batch_sizes, last=last)
        used = np.flatnonzero(own)
        parts = [np.stack([used, first[used], own[used]], axis=1)]
        first = first + own
        waiting = waiting + arrivals - own
        for kind, source, count in moved:
            parts.append(np.array([[kind, first[source], count]]))
            first[source] += count
            waiting[source] -= count
        windows.append(np.concatenate(parts))
        rows = np.bincount(windows[-1][:, 0], windows[-1][:, 2], minlength=len(counts))
        steps.append(int(np.ceil(rows / kinds.batch_sizes).sum()))
    return windows, steps
