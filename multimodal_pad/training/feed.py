"""What a training asks of its batches, and everything that it takes for batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import jax

from multimodal_pad.batching.batcher import BucketBatcher, Position
from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.batching.streams.options import StreamOptions
from multimodal_pad.errors import PaddingError, TrainingError
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec
from multimodal_pad.scheduling.dealing import policy_shapes
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.spans import WAIT, span
from multimodal_pad.training.mesh import DataMesh


class GrainBatches(Protocol):
    """:class:`~multimodal_pad.grain.BatchIterDataset` and :class:`~multimodal_pad.grain.BatchMapDataset`."""

    batcher: BucketBatcher
    epochs: int

    def epoch(self, epoch: int, step: int = 0) -> Iterator[Any]: ...  # noqa: D102
    def with_batcher(self, batcher: BucketBatcher) -> Any: ...  # noqa: D102


class GrainStream(Protocol):
    """:class:`~multimodal_pad.grain.StreamIterDataset`."""

    stream_options: StreamOptions

    def epoch(self, epoch: int) -> Any: ...  # noqa: D102
    def spec(self, epochs: int = 1) -> BatchSpec: ...  # noqa: D102
    def example(self) -> Any: ...  # noqa: D102


AnyBatches = BucketBatcher | StreamBatcher | GrainBatches | GrainStream
"""What a training takes for batches."""


class Feed(ABC):
    """Batches, as a training asks for them.

    Attributes:
        policy: of the batches.
        batch_size: of the batches, where the policy doesn't say.
        source: what the samples are read from.
        resumes_in_epochs: whether an epoch can be gone on with in its middle.
        breaks_off: whether the wait for a batch may be broken off, and :meth:`state` is right all the same.
    """

    policy: Policy
    batch_size: int | None
    source: Any
    resumes_in_epochs: ClassVar[bool] = True
    breaks_off: ClassVar[bool] = True

    @abstractmethod
    def spec(self, epochs: int = 1) -> BatchSpec:
        """What a step is to be compiled for."""

    @abstractmethod
    def example(self) -> Batch:
        """Any batch, for its feature widths, dtypes and targets."""

    @abstractmethod
    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; after :meth:`restore`, those that are left of it."""

    @abstractmethod
    def steps(self, epoch: int) -> int | None:
        """How many there are, or None where nobody knows yet."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the batches are of, as JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken; raises a PaddingError where it is of other batches."""

    @abstractmethod
    def shared(self, mesh: DataMesh, name: str) -> Feed:
        """This process's share over the devices; raises a TrainingError where they can't be shared."""

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """What :meth:`restore` is given to go on at a step, as JSON values."""
        return {**self.identity(), "epoch": epoch, "step": step}

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        """Raise a TrainingError unless it can give so many epochs, and be read through so many times."""
        del name, epochs, passes


class _BatcherFeed(Feed):
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

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.batcher.state().items() if name not in ("epoch", "step")}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.batcher.restore(state)

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        return _BatcherFeed(mesh.share(self.batcher, name))

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        del epochs, passes
        if self.batcher.resumes:
            raise TrainingError(
                f"{name}: got a batcher that was restored to {self.batcher.position}; fit goes on by checkpoints: give "
                "it a new batcher, and checkpoints of the run"
            )


class _GrainFeed(_BatcherFeed):
    """The epochs of a batcher, made by Grain."""

    def __init__(self, dataset: GrainBatches) -> None:
        super().__init__(dataset.batcher)
        self._dataset, self._start = dataset, Position(0, 0)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return _named(self._dataset.epoch(epoch, self._start.step if epoch == self._start.epoch else 0))

    def restore(self, state: Mapping[str, Any]) -> None:
        self._start = self.batcher.position_of(state)

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        return _GrainFeed(self._dataset.with_batcher(mesh.share(self.batcher, name)))

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


class _StreamFeed(Feed):
    """The passes over a stream, which can't be gone on with in their middle."""

    resumes_in_epochs = False

    def __init__(self, stream: StreamBatcher) -> None:
        self._stream, self.policy, self._options = stream, stream.policy, stream.options
        self.batch_size, self.source = stream.options.batch_size, stream.samples

    def spec(self, epochs: int = 1) -> BatchSpec:
        return self._stream.spec(epochs)

    def example(self) -> Batch:
        return self._stream.example()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return self._stream.epoch(epoch)

    def steps(self, epoch: int) -> int | None:
        del epoch  # nobody knows before it is over
        return None

    def identity(self) -> dict[str, Any]:
        return _identity(self._options)

    def restore(self, state: Mapping[str, Any]) -> None:
        _check_stream(state, self.identity())

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        _check_spread(self._options, mesh, name)
        return self

    def check(self, name: str, *, epochs: int, passes: int) -> None:
        del epochs
        if passes > 1 and isinstance(self._stream.samples, Iterator):
            raise TrainingError(
                f"{name}: got a stream of an iterator, which can be read once, to be read {passes} times; give "
                "something that begins anew each time (a list, or an object whose __iter__ does), or one epoch"
            )


class _GrainStreamFeed(Feed):
    """The passes over a stream of Grain's, which says where it stands."""

    breaks_off = False  # what was half read would be in the state

    def __init__(self, dataset: GrainStream) -> None:
        self._dataset, self._options, self.policy = dataset, dataset.stream_options, dataset.stream_options.policy
        self.batch_size, self.source = self._options.batch_size, dataset
        self._start: tuple[int, Any] | None = None
        self._reading: tuple[int, Any] = (-1, None)

    def spec(self, epochs: int = 1) -> BatchSpec:
        return self._dataset.spec(epochs)

    def example(self) -> Batch:
        return self._dataset.example()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batches = self._dataset.epoch(epoch)
        if self._start is not None and self._start[0] == epoch:
            batches.set_state(self._start[1])
        self._start, self._reading = None, (epoch, batches)
        return _named(batches)

    def steps(self, epoch: int) -> int | None:
        del epoch  # nobody knows before it is over
        return None

    def identity(self) -> dict[str, Any]:
        return _identity(self._options)

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        number, batches = self._reading
        return {**super().state(epoch, step), "iterator": batches.get_state() if number == epoch and step else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        _check_stream(state, self.identity())
        self._start = None if state.get("iterator") is None else (state["epoch"], state["iterator"])

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        _check_spread(self._options, mesh, name)
        return self


def as_feed(batches: Any, name: str = "batcher") -> Feed:
    """Take batches as they come.

    Raises:
        TrainingError: they are none; ``name`` is what it calls them.

    >>> from multimodal_pad import Fixed
    >>> as_feed(BucketBatcher([{"text": [5, 6, 7]}], Fixed({"text": 4}), batch_size=1)).steps(0)
    1
    """
    if isinstance(batches, Feed):
        return batches
    if isinstance(batches, BucketBatcher):
        return _BatcherFeed(batches)
    if isinstance(batches, StreamBatcher):
        return _StreamFeed(batches)
    # Grain's, told by what they have: to import their classes would be to need Grain.
    if isinstance(getattr(batches, "batcher", None), BucketBatcher) and hasattr(batches, "with_batcher"):
        return _GrainFeed(batches)
    if isinstance(getattr(batches, "stream_options", None), StreamOptions):
        return _GrainStreamFeed(batches)
    raise TrainingError(
        f"{name}: got {_describe(batches)}; give a BucketBatcher, a StreamBatcher, or a dataset of multimodal_pad.grain"
    )


def _describe(batches: Any) -> str:
    kind = type(batches)
    if isinstance(batches, (list, tuple)):
        of = type(batches[0]).__name__ if batches else "nothing"
        return f"a {kind.__name__} of {of}: of samples make BucketBatcher(samples, plan)"
    if kind.__module__.partition(".")[0] == "grain":
        return (
            f"{kind.__module__}.{kind.__name__}: a MapDataset of samples is a source for BucketBatcher, and of an "
            "IterDataset StreamIterDataset makes batches"
        )
    if hasattr(batches, "dataset"):
        return f"a {kind.__name__}, which makes batches of its own: give its dataset to BucketBatcher(dataset, plan)"
    if hasattr(batches, "__getitem__") and hasattr(batches, "__len__"):
        return f"{kind.__module__}.{kind.__name__}: of an indexable source make BucketBatcher(source, plan)"
    if hasattr(batches, "__iter__"):
        return f"{kind.__module__}.{kind.__name__}: of an iterable of samples make StreamBatcher(samples, plan)"
    return f"{kind.__module__}.{kind.__name__}"


def _named(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, the wait for which has a name in a profile."""
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


def _identity(options: StreamOptions) -> dict[str, Any]:
    return {
        "stream": str(options.policy.layout),
        "policy": type(options.policy).__name__,
        "shapes": options.policy.fingerprint,
        "batch_size": options.batch_size,
        "buffer": options.buffer,
        "seed": options.seed,
        "long_samples": options.long_samples,
    }


def _check_stream(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    different = [
        f"{key} is {value!r} here and {state.get(key)!r} there"
        for key, value in identity.items()
        if state.get(key) != value
    ]
    if different:
        raise PaddingError(
            f"the checkpoints are of a run on another stream: {'; '.join(different)}; go on with the same, or name "
            "another folder"
        )


def _check_spread(options: StreamOptions, mesh: DataMesh, name: str) -> None:
    """Raise a TrainingError unless each batch of a stream can be spread over the devices."""
    if jax.process_count() > 1:
        raise TrainingError(
            f"{name}: got a stream in {jax.process_count()} processes, which is not shared out; give a BucketBatcher, "
            "of which each takes its shard"
        )
    policy, count = options.policy, mesh.mesh.size
    if count == 1:
        return
    if policy.layout.end_to_end:
        raise TrainingError(
            f"{name}: got a packed stream for {count} devices, which is not shared out; give one device "
            "(devices=jax.devices()[:1]), or a BucketBatcher whose plan has shares"
        )
    try:
        if options.batch_size is None:
            shapes = policy_shapes(policy, None)
        else:
            shapes = [BatchShape.of(options.batch_size, dict.fromkeys(policy.modalities, 1), policy.layout)]
        for shape in shapes:
            policy.layout.share(shape, count)
    except PaddingError as error:
        raise TrainingError(f"{name}: {error}, or fewer devices (devices=jax.devices()[:1])") from None
