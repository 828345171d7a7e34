"""Padded batches of a stream: samples of like shape."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from multimodal_pad.batching.streams.buffer import OVERDUE, URGENT, StreamBuffer, Taken
from multimodal_pad.scheduling.dealing import batch_sizes_at
from multimodal_pad.scheduling.filling import fill_up, share_out

MOST_TRIED = 64
"""Where no kind fills a batch, kinds to try for the one that wastes least. Exact padding has almost as many kinds as
samples, and to try them all would take longer than to pad them."""

T = TypeVar("T")


@dataclass(slots=True)
class _Kind(Generic[T]):
    """Samples of the same padded lengths, oldest first."""

    price: float
    shape: tuple[int, ...]
    batch_size: int
    members: list[tuple[int, T]] = field(default_factory=list)


class LengthBuffer(StreamBuffer[T]):
    """A buffer whose samples wait by kind: the padded lengths that the policy gives them.

    Once the buffer is full, the next batch is drawn from a random kind that fills it; where no kind does, from the one
    that wastes least, filled up with samples of cheaper kinds that fit, and then with empty rows. An overdue sample
    takes the next batch with the oldest of its kind. At the end of the stream the dearest kinds are filled up first, so
    that empty rows end at the cheapest.

    Args:
        args, options: see :class:`~multimodal_pad.batching.streams.buffer.StreamBuffer`.

    >>> from multimodal_pad import Ladder
    >>> buffer = LengthBuffer(Ladder({"text": [4, 16]}), 3, batch_size=2)
    >>> buffer.add(np.array([[3], [12], [4]]), range(3), ["a", "b", "c"])
    >>> taken = buffer.take()
    >>> taken.padded, taken.batch_size, sorted(taken.samples), buffer.held
    ((4,), 2, ['a', 'c'], [1])
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._by_shape: dict[tuple[int, ...], _Kind[T]] = {}  # none of them is empty
        self._kinds: list[_Kind[T]] = []  # the same, cheapest first, once a batch is taken
        self._shapes, self._rows, self._prices = np.empty(0), np.empty(0), np.empty(0)  # of each of these

    @property
    def held(self) -> list[int]:
        """The ordinals of the samples that wait, rising."""
        return sorted(ordinal for kind in self._by_shape.values() for ordinal, _ in kind.members)

    def _hold(self, lengths: np.ndarray, ordinals: Sequence[int], samples: Sequence[T]) -> None:
        added: dict[tuple[int, ...], list[tuple[int, T]]] = {}
        for row, ordinal, sample in zip(self.policy.round_up(lengths).tolist(), ordinals, samples, strict=True):
            added.setdefault(tuple(row), []).append((ordinal, sample))
        for shape, members in added.items():
            if shape not in self._by_shape:
                self._by_shape[shape] = self._new_kind(shape)
            self._by_shape[shape].members += members

    def _take(self, bits: np.random.PCG64) -> Taken[T]:
        if len(self._kinds) < len(self._by_shape):
            self._sort_kinds()
        counts = np.array([len(kind.members) for kind in self._kinds])
        oldest = min(range(len(counts)), key=lambda index: self._kinds[index].members[0][0])
        ordinal = self._kinds[oldest].members[0][0]
        overdue = self._waits(ordinal, OVERDUE)
        if self._finished:
            shares = self._choose_last(counts, bits)
        elif overdue:
            if self._waits(ordinal, URGENT):
                limit = self._newest - OVERDUE * self.capacity
                counts = np.array([bisect_right(kind.members, limit, key=_ordinal) for kind in self._kinds])
            shares = self._fill_up(oldest, counts)
        else:
            shares = self._choose(counts, bits)
        return self._let_go(shares, None if overdue else bits)

    def _choose(self, counts: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
        """Choose a kind at random that fills a batch, or the one that wastes least; return how many of each to take."""
        upto = np.cumsum(counts // self._rows)
        if upto[-1]:
            index = np.searchsorted(upto, bits.random_raw() % int(upto[-1]), side="right")
            return self._fill_up(int(index), counts)
        tried = np.arange(len(counts))
        if len(tried) > MOST_TRIED:
            tried = np.argsort(bits.random_raw(len(tried)), kind="stable")[:MOST_TRIED]
        filled = [self._fill_up(index, counts) for index in tried.tolist()]
        used = np.array([shares @ self._prices[: len(shares)] for shares in filled])
        paid = self._prices[tried] * self._rows[tried]
        return filled[int(np.argmax(np.divide(used, paid, out=np.ones_like(used), where=paid > 0)))]

    def _choose_last(self, counts: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
        """Choose a random batch of those that are left, short ones filled up from the dearest kind down.

        Taking one of them leaves the others as they were, so that each call may work them out anew.
        """
        own, moved = share_out(counts, self._shapes, self._rows, last=True)
        full, short = np.divmod(own, self._rows)
        # The dearest kind first, and of each kind the short batch before the full ones.
        upto = np.cumsum(np.stack([short > 0, full], axis=1)[::-1])
        place = int(np.searchsorted(upto, bits.random_raw() % int(upto[-1]), side="right"))
        index = len(own) - 1 - place // 2
        shares = np.zeros(index + 1, np.int64)
        if place % 2:
            shares[index] = self._rows[index]
        else:
            shares[index] = short[index]
            for kind, source, count in moved:
                if kind == index:
                    shares[source] = count
        return shares

    def _fill_up(self, index: int, counts: np.ndarray) -> np.ndarray:
        return fill_up(index, counts, self._shapes, self._kinds[index].batch_size)

    def _let_go(self, shares: np.ndarray, bits: np.random.PCG64 | None) -> Taken[T]:
        """Take so many of each kind up to the batch's own, at random or the oldest."""
        batch = self._kinds[len(shares) - 1]
        taken: list[tuple[int, T]] = []
        for index in np.flatnonzero(shares).tolist():
            members, share = self._kinds[index].members, int(shares[index])
            if bits is None or share == len(members):
                places = list(range(share))
            else:
                places = sorted(np.argsort(bits.random_raw(len(members)), kind="stable")[:share].tolist())
            taken += [members[place] for place in places]
            for place in reversed(places):
                del members[place]
        if not all(kind.members for kind in self._kinds):
            self._by_shape = {kind.shape: kind for kind in self._kinds if kind.members}
            self._sort_kinds()
        return Taken(batch.shape, batch.batch_size, [ordinal for ordinal, _ in taken], [sample for _, sample in taken])

    def _new_kind(self, shape: tuple[int, ...]) -> _Kind[T]:
        padded = np.array([shape])
        return _Kind(float(self.cost(padded)[0]), shape, int(batch_sizes_at(self.policy, padded, self.batch_size)[0]))

    def _sort_kinds(self) -> None:
        self._kinds = sorted(self._by_shape.values(), key=lambda kind: (kind.price, kind.shape))
        self._shapes = np.array([kind.shape for kind in self._kinds], np.int64)
        self._rows = np.array([kind.batch_size for kind in self._kinds], np.int64)
        self._prices = np.array([kind.price for kind in self._kinds])


def _ordinal(member: tuple[int, object]) -> int:
    return member[0]
