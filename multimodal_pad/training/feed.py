"""The interface between a training and its batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from multimodal_pad.layouts.layout import Batch, BatchSpec
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.spans import WAIT, span
from multimodal_pad.training.mesh import DataMesh


class Feed(ABC):
    """Batches, with all that a training calls.

    Attributes:
        policy: of the batches.
        batch_size: of the batches, where the policy leaves it open.
        source: what the samples are read from.
        resumes_in_epochs: whether an epoch can be gone on with in its middle.
        breaks_off: whether the wait for a batch may be broken off without spoiling :meth:`state`.
    """

    policy: Policy
    batch_size: int | None
    source: Any
    resumes_in_epochs: ClassVar[bool] = True
    breaks_off: ClassVar[bool] = True

    @abstractmethod
    def spec(self, epochs: int = 1) -> BatchSpec:
        """Return the spec that a step is compiled for."""

    @abstractmethod
    def example(self) -> Batch:
        """Return any batch, for its feature widths, dtypes and targets."""

    @abstractmethod
    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch; after :meth:`restore`, those that are left of it."""

    @abstractmethod
    def steps(self, epoch: int) -> int | None:
        """Return how many steps an epoch has, or None where that is not known beforehand."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return a description of the batches, as JSON values."""

    @abstractmethod
    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise a PaddingError where :meth:`state` was taken of other batches; changes no position."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken; raises a PaddingError where it is of other batches."""

    @abstractmethod
    def shared(self, mesh: DataMesh, name: str) -> Feed:
        """Return this process's share over the devices; raises a TrainingError where they can't be shared."""

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """Return JSON values with which :meth:`restore` goes on at a step."""
        return {**self.identity(), "epoch": epoch, "step": step}

    def names(self, epoch: int, step: int) -> list[str] | None:
        """Name the real samples in this process's rows of a step, for errors; None where they have no numbers."""
        del epoch, step

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        """Raise a TrainingError unless it can give so many epochs, and be read through so many times."""
        del name, epochs, passes


def waited_for(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the same batches, and give the wait for each a name in profiles."""
    try:
        while True:
            with span(WAIT):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
