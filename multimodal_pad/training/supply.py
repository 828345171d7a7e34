"""Batches on their way to the steps: watched for a stop, counted, and spread over the devices."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import partial

from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.limits import Limits
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.run import Fed
from multimodal_pad.training.stopping import Stop

_NOTHING = Fed("", 0, 0, 0.0)


class Supply:
    """The batches of a feed, as a training's steps take them.

    Args:
        feed: this process's share.
        mesh: devices that share the rows.
        stop: ends the batches, by Interrupted, before the next one; in several processes at the same one in all.
        limits: checked for every batch.

    Attributes:
        fed: figures of the batch that was given last. Positions are those of this process.
    """

    def __init__(self, feed: Feed, mesh: DataMesh | None, stop: Stop, limits: Limits | None = None) -> None:
        self._feed, self._mesh, self._stop, self._limits = feed, mesh, stop, limits
        self._alone = mesh is None or mesh.process_count == 1
        self._counts: deque[tuple[int, int]] = deque()
        self._padded: dict[BatchShape, int] = {}
        self._names: dict[BatchShape, str] = {}
        self.fed = _NOTHING

    def epoch(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, or those that are left of it from a step on.

        Raises:
            SampleError: a sample holds what the model or its loss doesn't take.
        """
        self._counts.clear()
        batches = self._feed.epoch(epoch)
        if self._alone:
            batches = self._stop.watch(batches, at_once=self._feed.breaks_off)
        batches = self._counted(batches, epoch, step)
        if self._mesh is not None:
            batches = self._mesh.batches(batches, self._feed.policy.modalities, lambda: self._stop.signal_number)
        since = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - since
            shape = batch.shape
            name = self._names.get(shape) or self._names.setdefault(shape, str(shape))
            self.fed = Fed(name, *self._counts.popleft(), waited)
            yield batch
            since = time.perf_counter()

    def _counted(self, batches: Iterator[Batch], epoch: int, step: int) -> Iterator[Batch]:
        # Here, where batches are on the host.
        for number, batch in enumerate(batches, step):
            if self._limits is not None:
                self._limits.check(batch, partial(self._feed.names, epoch, number))
            shape = batch.shape
            padded = self._padded.get(shape) or self._padded.setdefault(shape, shape.positions)
            self._counts.append((sum(int(lengths.sum()) for lengths in batch.lengths.values()), padded))
            yield batch
