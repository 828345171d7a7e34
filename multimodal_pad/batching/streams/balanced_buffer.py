"""Packed batches of a stream: as many samples as a batch has, chosen so that their sums of lengths fit it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, TypeVar

import numpy as np

from multimodal_pad.batching.streams.buffer import OVERDUE, URGENT, StreamBuffer, Taken
from multimodal_pad.errors import PaddingError
from multimodal_pad.scheduling.dealing import batch_sizes_at

NEAR = 0.01  # of a capacity: sums of lengths that are so near to their goal are left as they are
LOOKED_AT = 256  # waiting samples to try as exchanges for drawn ones
_CHANGES = 16  # most exchanges, for sums that fit but are not near their goal
_EXCESS = 1000.0  # weight of a position too many; one too few has weight 1

T = TypeVar("T")


class BalancedBuffer(StreamBuffer[T]):
    """A buffer in which any samples may meet: a batch is drawn at random, and a few samples are then exchanged.

    An exchange is the one, of a drawn sample for one that waits, that brings the sums of lengths nearest to those of as
    many samples of the mean lengths held, or to the capacity where it is less: so neither long samples nor short ones
    pile up. A batch takes the smallest capacity that it can be brought within, and has fewer samples than the others
    only where it can't be brought within the largest, or the stream has ended. A sample that only a longer shape holds
    goes when it is drawn; an overdue one always, with others that are overdue before any that are not.

    Args:
        args, options: see :class:`~multimodal_pad.batching.streams.buffer.StreamBuffer`.

    Raises:
        PaddingError: the policy has no capacities.

    >>> from multimodal_pad import LengthTable, Packed, plan_packing
    >>> lengths = np.array([[1], [9], [8], [2], [3], [7]])
    >>> plan = plan_packing(LengthTable(("text",), lengths), batch_size=2, alignment=1)
    >>> buffer = BalancedBuffer(Packed(plan), 6)
    >>> buffer.add(lengths, range(6), lengths.ravel().tolist())
    >>> buffer.finish()
    >>> [sum(buffer.take().samples) for _ in range(3)]
    [10, 10, 10]
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        capacities = self.policy.lengths()
        if capacities is None:
            raise PaddingError(f"got {self.policy!r}, which has no capacities; use Packed(plan)")
        self._capacities = capacities
        self._size = int(batch_sizes_at(self.policy, capacities, self.batch_size)[0])
        self._ordinals = np.empty(0, np.int64)  # rising
        self._lengths = np.empty((0, capacities.shape[1]), np.int64)
        self._samples: list[T] = []

    @property
    def held(self) -> list[int]:
        """The ordinals of the samples that wait, rising."""
        return self._ordinals.tolist()

    def _hold(self, lengths: np.ndarray, ordinals: Sequence[int], samples: Sequence[T]) -> None:
        self.policy.check_held(lengths, self.policy.covers(lengths))
        self._ordinals = np.append(self._ordinals, np.asarray(ordinals, np.int64))
        self._lengths = np.concatenate([self._lengths, lengths])
        self._samples += samples

    def _take(self, bits: np.random.PCG64) -> Taken[T]:
        order, kept = self._order(bits)
        drawn = self._draw(order, kept)
        holds = (self._lengths[drawn].sum(axis=0) <= self._capacities).all(axis=1)
        padded = self._capacities[holds.argmax()]
        taken = [self._samples[place] for place in drawn.tolist()]
        ordinals, stays = self._ordinals[drawn].tolist(), np.ones(len(self._samples), bool)
        stays[drawn] = False
        self._samples = list(compress(self._samples, stays.tolist()))
        self._ordinals, self._lengths = self._ordinals[stays], self._lengths[stays]
        return Taken(tuple(padded.tolist()), self._size, ordinals, taken)

    def _order(self, bits: np.random.PCG64) -> tuple[np.ndarray, int]:
        """Return the places of samples in the order in which they are drawn, and how many of the first must go."""
        order = np.argsort(bits.random_raw(len(self._samples)), kind="stable")
        oldest = int(self._ordinals[0])
        if self._waits(oldest, OVERDUE):
            overdue = int(np.searchsorted(self._ordinals, self._newest - OVERDUE * self.capacity))
            others = order[:0] if self._waits(oldest, URGENT) else order[order >= overdue]
            return np.concatenate([np.arange(overdue), others]), 1
        long = (self._lengths[order[: self._size]] > self._capacities[0]).any(axis=1)
        if long.any():
            place = int(long.argmax())
            return np.concatenate([order[place : place + 1], np.delete(order, place)]), 1
        return order, 0

    def _draw(self, order: np.ndarray, kept: int) -> np.ndarray:
        """Draw the first samples of an order, and exchange others than the first ``kept`` to fit a capacity."""
        size = min(self._size, len(order))
        mine, others = order[:size].copy(), order[size:].copy()
        goal = size * self._lengths.mean(axis=0)
        for capacity in self._capacities:
            for looked_at in (others[:LOOKED_AT], others):  # both are views, which an exchange writes to
                if self._exchange(mine, looked_at, kept, capacity, np.minimum(goal, capacity)):
                    return mine
        return self._shortened(mine, kept)

    def _exchange(
        self, mine: np.ndarray, others: np.ndarray, kept: int, capacity: np.ndarray, goal: np.ndarray
    ) -> bool:
        """Exchange samples until sums of lengths are near the goal; return whether they are within the capacity."""
        lengths, load = self._lengths, self._lengths[mine].sum(axis=0)
        fits = bool((load <= capacity).all())
        if (lengths[mine[:kept]] > capacity).any():
            return False
        for number in range(2 * len(mine)):
            near = (np.abs(load - goal) <= NEAR * capacity).all()
            if (fits and (near or number >= _CHANGES)) or not len(others) or kept == len(mine):
                break
            changed = load + lengths[others][None] - lengths[mine[kept:]][:, None]
            missed = _missed(changed, goal, capacity)
            a, b = np.unravel_index(int(missed.argmin()), missed.shape)
            if missed[a, b] >= _missed(load, goal, capacity):
                break
            load = changed[a, b]
            mine[kept + a], others[b] = others[b], mine[kept + a]
            fits = bool((load <= capacity).all())
        return fits

    def _shortened(self, mine: np.ndarray, kept: int) -> np.ndarray:
        """Leave out the samples that exceed the largest capacity most, but none of the first ``kept``."""
        capacity, lengths = self._capacities[-1], self._lengths
        while (excess := (lengths[mine].sum(axis=0) - capacity) / capacity).max() > 0:
            mine = np.delete(mine, kept + int(lengths[mine[kept:], excess.argmax()].argmax()))
        return mine


def _missed(loads: np.ndarray, goal: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Measure how far sums of lengths ``(..., M)`` are from a goal, and above all from a capacity: ``(...,)``."""
    missed = np.zeros(loads.shape[:-1])
    for m in range(len(goal)):  # one by one, so that the order of the additions is the same everywhere
        load = loads[..., m]
        missed += (np.abs(load - goal[m]) + _EXCESS * np.maximum(load - capacity[m], 0)) / capacity[m]
    return missed
