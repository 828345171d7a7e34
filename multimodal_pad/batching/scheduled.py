"""The epochs of a batcher before a sample is read: their schedules, batch shapes and padding."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.batching.long_samples import CoveredLengths
from multimodal_pad.layouts.layout import BatchShape, batch_shapes
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.scheduling.dealing import policy_shapes, sorted_shapes
from multimodal_pad.scheduling.policy import Grouping, Policy
from multimodal_pad.scheduling.schedule import Schedule, Schedules


class ScheduledEpochs:
    """The epochs that follow from lengths and options; :class:`~multimodal_pad.BucketBatcher` reads the samples.

    Args:
        covered: lengths, cut or left out where they are too long.
        policy: rounds them up to buckets.
        batch_size: samples of every batch, where the policy leaves it open.
        grouping: which samples share a batch.
        window: batches per shuffle window.
        seed: of the order.
        cost: per sample.
    """

    def __init__(
        self,
        covered: CoveredLengths,
        policy: Policy,
        *,
        batch_size: int | None,
        grouping: Grouping,
        window: int,
        seed: int,
        cost: Cost,
    ) -> None:
        self._covered, self.lengths, self.policy = covered, covered.table, policy
        self.batch_size, self.grouping, self.window, self.seed, self.cost = batch_size, grouping, window, seed, cost
        self._schedules: Schedules | None = None
        self._made: dict[int, Schedule] = {}
        self._making = threading.Lock()

    def schedule(self, epoch: int) -> Schedule:
        """Return the steps of an epoch, of all shards together: padded lengths and sample numbers. Reads no sample.

        The last two schedules asked for are kept.

        Raises:
            PaddingError: every sample was dropped, or too many shapes to group by length.
        """
        with self._making:  # at the end of an epoch, threads that read ahead ask for the next one all at once
            if self._schedules is None:
                self._schedules = Schedules(
                    self.lengths,
                    self.policy,
                    batch_size=self.batch_size,
                    grouping=self.grouping,
                    window=self.window,
                    seed=self.seed,
                    cost=self.cost,
                    keep=self._covered.keep,
                )
            if epoch not in self._made:
                newest = dict(list(self._made.items())[-1:])
                self._made = {}  # or three of them would be held while the next one is made
                self._made = {**newest, epoch: self._schedules.epoch(epoch)}
            return self._made[epoch]

    def check_shares(self, count: int) -> None:
        """Raise a PaddingError unless every batch can be shared out evenly over so many."""
        self.grouping.check_shares(count)
        for shape in self._known_shapes():
            self.policy.layout.share(shape, count)

    @property
    def batch_sizes(self) -> list[int]:
        """The samples of batches, of all shards together, each number once."""
        return sorted({shape.batch_size for shape in self._known_shapes()})

    def _known_shapes(self) -> list[BatchShape]:
        """Return a batch shape of each batch size, at least."""
        if self.batch_size is not None:
            ones = np.ones((1, len(self.policy.modalities)), np.int64)
            return batch_shapes(np.array([self.batch_size]), ones, self.policy.modalities, self.policy.layout)
        return policy_shapes(self.policy, None) if self.policy.finite else self._used_shapes(1)

    def forecast(self, epoch: int = 0) -> PaddingStats:
        """Return the ledger of an epoch ahead of it, from the lengths alone."""
        stats = self._new_stats()
        for part in self.schedule(epoch).parts():
            stats.record(part, self.lengths)
        return stats

    def batch_shapes(self, epochs: int) -> list[BatchShape]:
        """Return the batch shapes of the epochs 0 to ``epochs - 1``: what a step is to be compiled for.

        A plan and fixed padding give every shape, whichever epochs use it. A ladder, whose shapes are a large product,
        and exact padding give those that the schedules of these epochs use, each of which is made for that.

        >>> from multimodal_pad import BucketBatcher, Ladder
        >>> samples = [{"text": np.arange(n)} for n in (3, 5, 12)]
        >>> batcher = BucketBatcher(samples, Ladder({"text": [8, 16, 32]}), batch_size=2)
        >>> [str(shape) for shape in batcher.batch_shapes(epochs=3)]
        ['2 x (text 16)', '2 x (text 8)']
        """
        check_whole("epochs", epochs, 1)
        return policy_shapes(self.policy, self.batch_size) if self.policy.compile_all else self._used_shapes(epochs)

    def _used_shapes(self, epochs: int) -> list[BatchShape]:
        """Return the batch shapes that the schedules of so many epochs use."""
        used = [self.schedule(epoch).used for epoch in range(epochs)]
        sizes, lengths = (np.concatenate(arrays) for arrays in zip(*used, strict=True))
        return sorted_shapes(self.policy, sizes, lengths)

    def _new_stats(self) -> PaddingStats:
        lost = {"dropped": self._covered.dropped, "truncated": self._covered.truncated}
        return PaddingStats(self.policy.modalities, self.cost, self.policy.layout, **lost)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the schedules, which a worker process makes for itself."""
        return {**self.__dict__, "_schedules": None, "_made": {}, "_making": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._making = threading.Lock()
