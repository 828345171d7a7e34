"""Buffers of streams: samples that wait for their batch, and no hidden state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.scheduling.checks import choose_batch_size
from multimodal_pad.scheduling.dealing import batch_sizes_at
from multimodal_pad.scheduling.policy import Policy

OVERDUE = 4
"""Buffers full of later samples after which a sample takes the next batch. With fewer, samples go before they suit a
batch, which adds padding; with more, samples wait longer, and a resumed run reads for longer."""

URGENT = OVERDUE + 1
"""Buffers full of later samples after which only overdue samples share a batch. Each batch then frees only rows of
overdue samples, of which there are at most ``capacity``: none waits for more than ``(URGENT + 1) * capacity`` samples
and a batch."""

_STREAM = 1  # keeps these random bits apart from those of a schedule's windows

T = TypeVar("T")


class Taken(NamedTuple, Generic[T]):
    """The samples of one batch.

    Attributes:
        padded: the lengths of the batch's shape, in the policy's column order.
        batch_size: rows of the batch; those that the samples leave over are empty.
        ordinals: numbers of the samples.
        samples: what was added under these numbers.
    """

    padded: tuple[int, ...]
    batch_size: int
    ordinals: list[int]
    samples: list[T]


class StreamBuffer(ABC, Generic[T]):
    """At most ``capacity`` samples of a stream, and which of them are the next batch.

    A sample that ``OVERDUE * capacity`` later ones have passed takes the next batch.

    What is taken follows from the samples held and their order, ``seed``, ``epoch`` and the number of the batch alone,
    by a bit stream that NumPy promises not to change. So a buffer is rebuilt by adding the samples that :attr:`held`
    names, in that order, to a new one with the same ``batch``; there is no other state. None of them is older than
    ``(URGENT + 1) * capacity`` samples and the rows of one batch.

    Args:
        policy: rounds lengths up.
        capacity: samples held at most; at least the rows of the largest batch.
        batch_size: rows per batch; by default the policy's own.
        cost: per sample, by which batches and waste are compared.
        seed: of the order.
        epoch: changes the order.
        batch: number of the next batch.

    Raises:
        PaddingError: a number out of range, no batch size and a policy that leaves it open, a batch size for a plan
            with a batch budget, or a ``capacity`` below the rows of the largest batch.
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
        for name, value in (("seed", seed), ("epoch", epoch), ("batch", batch)):
            check_whole(name, value, 0, most=None)
        check_whole("buffer capacity", capacity, 1)
        shapes = policy.lengths() if batch_size is None else None
        most = batch_size if shapes is None else int(batch_sizes_at(policy, shapes, None).max())
        if most is not None and most > capacity:
            raise PaddingError(
                f"got a buffer of {capacity} samples for batches of up to {most} rows; let it hold one batch at least, "
                "and many of them for little padding"
            )
        self.policy, self.capacity, self.batch_size, self.cost = policy, capacity, batch_size, cost
        self.seed, self.epoch, self.batch = seed, epoch, batch
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
    @abstractmethod
    def held(self) -> list[int]:
        """The ordinals of the samples that wait, rising: the order in which a rebuilt buffer is to be given them."""

    def add(self, lengths: np.ndarray, ordinals: Sequence[int], samples: Sequence[T]) -> None:
        """Add samples, which wait for their batch.

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
        newest = self._newest
        for ordinal in ordinals:
            if ordinal <= newest:
                raise PaddingError(f"got sample {ordinal} after sample {newest}; add samples in rising order")
            newest = ordinal
        self._hold(lengths, ordinals, samples)
        self._newest = newest
        self._count += len(lengths)

    def finish(self) -> None:
        """Mark the end of the stream: samples that are left are then taken without waiting for more."""
        self._finished = True

    def take(self) -> Taken[T]:
        """Return the next batch.

        Raises:
            PaddingError: it is not time for one.
        """
        if not self.ready:
            raise PaddingError(
                f"the buffer holds {self._count} of {self.capacity} samples; fill it up, or, where the stream "
                "has ended, call finish()"
            )
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(self.epoch, self.batch, _STREAM)))
        taken = self._take(bits)
        self._count -= len(taken.ordinals)
        self.batch += 1
        return taken

    @abstractmethod
    def _hold(self, lengths: np.ndarray, ordinals: Sequence[int], samples: Sequence[T]) -> None:
        """Keep samples that are checked but for their lengths, or raise an UncoveredLengthError and keep none."""

    @abstractmethod
    def _take(self, bits: np.random.PCG64) -> Taken[T]:
        """Choose the samples of the next batch, and let go of them."""

    def _waits(self, ordinal: int, buffers: int) -> bool:
        """Return whether later samples that fill so many buffers have passed one; never after the stream has ended."""
        return not self._finished and self._newest - ordinal > buffers * self.capacity
