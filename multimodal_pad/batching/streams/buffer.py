"""Who goes with whom in a stream: a bounded buffer of samples that wait for their batch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.scheduling.checks import choose_batch_size
from multimodal_pad.scheduling.dealing import batch_sizes_at
from multimodal_pad.scheduling.filling import fill_up, share_out
from multimodal_pad.scheduling.policy import Policy

OVERDUE = 4
"""A sample that so many buffers full of later ones have passed takes the next batch. With a smaller number rare kinds
go before they fill a batch, which costs padding; with a larger one samples wait, and a resumed run reads, for longer.
"""

URGENT = OVERDUE + 1
"""From here on no sample that is not overdue goes along. Each batch then frees only rows of overdue samples, of which
there are at most ``capacity``, so that none waits for more than ``(URGENT + 1) * capacity`` samples and a batch."""

MOST_TRIED = 64
"""Where no kind fills a batch, so many kinds are tried for the one that wastes least. Exact padding has almost as many
kinds as samples, and to try them all would take longer than to pad them."""

_STREAM = 1  # tells these random bits from those of a schedule's windows

T = TypeVar("T")


class Taken(NamedTuple, Generic[T]):
    """The samples of one batch.

    Attributes:
        padded: the padded lengths, in the policy's column order.
        batch_size: of the batch; what the samples leave over is empty.
        ordinals: numbers of the samples.
        samples: what was added under these numbers.
    """

    padded: tuple[int, ...]
    batch_size: int
    ordinals: list[int]
    samples: list[T]


@dataclass(slots=True)
class _Kind(Generic[T]):
    """Samples of the same padded lengths, oldest first."""

    price: float
    shape: tuple[int, ...]
    batch_size: int
    members: list[tuple[int, T]] = field(default_factory=list)


class StreamBuffer(Generic[T]):
    """At most ``capacity`` samples of a stream, and which of them are the next batch.

    Samples wait by kind: the padded lengths that the policy gives them. Once the buffer is full, the next batch is
    drawn from a random kind that fills it; where no kind does, from the one that wastes least, filled up with samples
    of cheaper kinds that fit, and then with empty rows. A sample that ``OVERDUE * capacity`` later ones have passed
    takes the next batch, with the oldest of its kind. At the end of the stream the dearest kinds are filled up first,
    so that empty rows end at the cheapest.

    What is taken follows from the samples held and their order, ``seed``, ``epoch`` and the number of the batch alone,
    by a bit stream that NumPy promises not to change. So a buffer is rebuilt by adding the samples that :attr:`held`
    names, in that order, to a new one with the same ``batch``; there is no other state. None of them is older than
    ``(URGENT + 1) * capacity`` samples and the rows of one batch.

    Args:
        policy: rounds lengths up.
        capacity: samples held at most; at least the rows of the largest batch.
        batch_size: rows per batch; by default what the policy's plan says.
        cost: per sample; tells which kind is the cheaper one, and what is wasted.
        seed: of the order.
        epoch: changes the order.
        batch: number of the next batch.

    Raises:
        PaddingError: a number out of range, no batch size and a policy that leaves it open, a batch size for a plan
            with a batch budget, or a ``capacity`` below the rows of the largest batch.

    >>> from multimodal_pad import Ladder
    >>> buffer = StreamBuffer(Ladder({"text": [4, 16]}), 3, batch_size=2)
    >>> buffer.add(np.array([[3], [12], [4]]), range(3), ["a", "b", "c"])
    >>> taken = buffer.take()
    >>> taken.padded, taken.batch_size, sorted(taken.samples), buffer.held
    ((4,), 2, ['a', 'c'], [1])
    """

    def __init__(
        self,
        policy: Policy,
        capacity: int,
        *,
        batch_size: int | None = None,
        cost: Cost = position_count,
        seed: int = 0,
        epoch: int = 0,
        batch: int = 0,
    ) -> None:
        batch_size = choose_batch_size(policy, batch_size)
        for name, value, least in (
            ("seed", seed, 0),
            ("buffer capacity", capacity, 1),
            ("epoch", epoch, 0),
            ("batch", batch, 0),
        ):
            check_whole(name, value, least)
        shapes = policy.lengths() if batch_size is None else None
        most = batch_size if shapes is None else int(batch_sizes_at(policy, shapes, None).max())
        if most is not None and most > capacity:
            raise PaddingError(
                f"got a buffer of {capacity} samples for batches of up to {most} rows; let it hold one batch at least, "
                "and many of them for little padding"
            )
        self.policy, self.capacity, self.batch_size, self.cost = policy, capacity, batch_size, cost
        self.seed, self.epoch, self.batch = seed, epoch, batch
        self._by_shape: dict[tuple[int, ...], _Kind[T]] = {}  # none of them is empty
        self._kinds: list[_Kind[T]] = []  # the same, cheapest first, once a batch is taken
        self._shapes, self._rows, self._prices = np.empty(0), np.empty(0), np.empty(0)  # of each of these
        self._count, self._newest, self._finished = 0, -1, False

    def __len__(self) -> int:
        return self._count

    @property
    def room(self) -> int:
        """How many samples may be added before a batch is to be taken."""
        return self.capacity - self._count

    @property
    def ready(self) -> bool:
        """Whether a batch is to be taken: the buffer is full, or the stream has ended and samples are left."""
        return self._count == self.capacity or (self._finished and self._count > 0)

    @property
    def held(self) -> list[int]:
        """The ordinals of the samples that wait, rising: the order in which a rebuilt buffer is to be given them."""
        return sorted(ordinal for kind in self._by_shape.values() for ordinal, _ in kind.members)

    def add(self, lengths: np.ndarray, ordinals: Sequence[int], samples: Sequence[T]) -> None:
        """Let samples wait.

        Args:
            lengths: int ``(n, M)``, covered by the policy.
            ordinals: rising numbers, above those of all samples before. The wait is counted in them, so number the
                samples that are added, and not those that are left out.
            samples: anything; it is kept as it is.

        Raises:
            PaddingError: more samples than there is room for, or ordinals that don't rise.
            UncoveredLengthError: a sample is longer than every bucket.
        """
        if len(lengths) > self.room:
            raise PaddingError(f"got {len(lengths)} samples and there is room for {self.room}; take a batch first")
        added: dict[tuple[int, ...], list[tuple[int, T]]] = {}
        newest = self._newest
        for row, ordinal, sample in zip(self.policy.round_up(lengths).tolist(), ordinals, samples, strict=True):
            if ordinal <= newest:
                raise PaddingError(f"got sample {ordinal} after sample {newest}; add samples in rising order")
            newest = ordinal
            added.setdefault(tuple(row), []).append((ordinal, sample))
        self._newest = newest
        self._count += len(lengths)
        for shape, members in added.items():
            if shape not in self._by_shape:
                self._by_shape[shape] = self._new_kind(shape)
            self._by_shape[shape].members += members

    def finish(self) -> None:
        """The stream has ended: what is left is to be taken, without waiting for more."""
        self._finished = True

    def take(self) -> Taken[T]:
        """The next batch.

        Raises:
            PaddingError: it is not time for one.
        """
        if not self.ready:
            raise PaddingError(
                f"the buffer holds {self._count} of {self.capacity} samples; fill it up, or tell it that the stream "
                "has ended (finish)"
            )
        if len(self._kinds) < len(self._by_shape):
            self._sort_kinds()
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(self.epoch, self.batch, _STREAM)))
        counts = np.array([len(kind.members) for kind in self._kinds])
        oldest = min(range(len(counts)), key=lambda index: self._kinds[index].members[0][0])
        waited = self._newest - self._kinds[oldest].members[0][0]
        overdue = not self._finished and waited > OVERDUE * self.capacity
        if self._finished:
            shares = self._choose_last(counts, bits)
        elif overdue:
            if waited > URGENT * self.capacity:
                limit = self._newest - OVERDUE * self.capacity
                counts = np.array([bisect_right(kind.members, limit, key=_ordinal) for kind in self._kinds])
            shares = self._fill_up(oldest, counts)
        else:
            shares = self._choose(counts, bits)
        return self._take(shares, None if overdue else bits)

    def _choose(self, counts: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
        """A random kind that fills a batch, or the one that wastes least: how many to take of each kind up to it."""
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
        """A random batch of those that are left, short ones filled up from the dearest kind down.

        To take one of them leaves the others as they were, so that each batch may work them out anew.
        """
        own, lent = share_out(counts, self._shapes, self._rows, last=True)
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
            for kind, source, count in lent:
                if kind == index:
                    shares[source] = count
        return shares

    def _fill_up(self, index: int, counts: np.ndarray) -> np.ndarray:
        return fill_up(index, counts, self._shapes, self._kinds[index].batch_size)

    def _take(self, shares: np.ndarray, bits: np.random.PCG64 | None) -> Taken[T]:
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
        self._count -= len(taken)
        self.batch += 1
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
