"""The epochs of a batcher, made by itself or by Grain."""

# ruff: noqa: D102  Feed says what its methods are for

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from multimodal_pad.batching.batcher import BucketBatcher, Position
from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import Batch, BatchSpec
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.resuming import check_state
from multimodal_pad.scheduling.steps import Steps
from multimodal_pad.training.feed import Feed, waited_for
from multimodal_pad.training.mesh import DataMesh


class GrainBatches(Protocol):
    """:class:`~multimodal_pad.grain.BatchIterDataset` and :class:`~multimodal_pad.grain.BatchMapDataset`."""

    batcher: BucketBatcher
    epochs: int

    def epoch(self, epoch: int, step: int = 0) -> Iterator[Any]: ...
    def with_batcher(self, batcher: BucketBatcher) -> Any: ...


class BatcherFeed(Feed):
    """The epochs of a batcher."""

    def __init__(self, batcher: BucketBatcher) -> None:
        self.batcher, self.policy = batcher, batcher.policy
        self.batch_size, self.source = batcher.batch_size, batcher.source

    def spec(self, epochs: int = 1) -> BatchSpec:
        return self.batcher.spec(epochs)

    def example(self) -> Batch:
        return self.batcher.example()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return self.batcher.epoch(epoch)

    def steps(self, epoch: int) -> int | None:
        return len(self.batcher.schedule(epoch))

    def names(self, epoch: int, step: int) -> list[str] | None:
        shape, ids = self.batcher.schedule(epoch)[step]
        one = Steps(shape[None], np.array([0, len(ids)]), ids)
        rows = one.shard(self.batcher.shard_index, self.batcher.shard_count).ids
        real = rows[rows != EMPTY].tolist()
        known = getattr(self.source, "ids", None)
        if isinstance(known, Sequence) and len(known) == len(self.source):  # as the corpora of sources/ have them
            return [f"sample {row} ({known[row]})" for row in real]
        return [f"sample {row}" for row in real]

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.batcher.state().items() if name not in ("epoch", "step")}

    def check_state(self, state: Mapping[str, Any]) -> None:
        check_state(state, self.batcher.state())

    def restore(self, state: Mapping[str, Any]) -> None:
        self.batcher.restore(state)

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        return BatcherFeed(mesh.share(self.batcher, name))

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        del epochs, passes
        if self.batcher.resumes:
            raise TrainingError(
                f"{name}: got a batcher that was restored to {self.batcher.position}; fit goes on by checkpoints: give "
                "it a new batcher, and checkpoints of the run"
            )


class GrainFeed(BatcherFeed):
    """The epochs of a batcher, made by Grain."""

    def __init__(self, dataset: GrainBatches) -> None:
        super().__init__(dataset.batcher)
        self._dataset, self._start = dataset, Position(0, 0)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return waited_for(self._dataset.epoch(epoch, self._start.step if epoch == self._start.epoch else 0))

    def restore(self, state: Mapping[str, Any]) -> None:
        self._start = self.batcher.position_of(state)

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        return GrainFeed(self._dataset.with_batcher(mesh.share(self.batcher, name)))

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        super().check(name, epochs=epochs, passes=passes)
        kind = type(self._dataset).__name__
        if self._dataset.epochs not in (1, epochs):
            raise TrainingError(
                f"{name}: got a {kind} of {self._dataset.epochs} epochs where {epochs} are asked for; leave its epochs "
                "out, since each epoch of the training is one of its batcher"
            )
        if getattr(self._dataset, "first_epoch", 0):
            raise TrainingError(f"{name}: got a {kind} with first_epoch; leave it out, since training begins at 0")
