"""The passes over a stream, of ours or of Grain's."""

# ruff: noqa: D102  Feed says what its methods are for

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax

from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.batching.streams.options import StreamOptions
from multimodal_pad.errors import PaddingError, TrainingError
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec
from multimodal_pad.scheduling.dealing import policy_shapes
from multimodal_pad.training.feed import Feed, waited_for
from multimodal_pad.training.mesh import DataMesh


class GrainStream(Protocol):
    """:class:`~multimodal_pad.grain.StreamIterDataset`."""

    stream_options: StreamOptions

    def epoch(self, epoch: int) -> Any: ...
    def spec(self, epochs: int = 1) -> BatchSpec: ...
    def example(self) -> Any: ...


class StreamFeed(Feed):
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
        del epoch  # not known before it is over
        return None

    def identity(self) -> dict[str, Any]:
        return _identity(self._options)

    def check_state(self, state: Mapping[str, Any]) -> None:
        _check_stream(state, self.identity())

    def restore(self, state: Mapping[str, Any]) -> None:
        self.check_state(state)

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


class GrainStreamFeed(Feed):
    """The passes over a stream of Grain's, which can be gone on with in their middle."""

    breaks_off = False  # a half-read sample would be in the state

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
        return waited_for(batches)

    def steps(self, epoch: int) -> int | None:
        del epoch  # not known before it is over
        return None

    def identity(self) -> dict[str, Any]:
        return _identity(self._options)

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        number, batches = self._reading
        return {**super().state(epoch, step), "iterator": batches.get_state() if number == epoch and step else None}

    def check_state(self, state: Mapping[str, Any]) -> None:
        _check_stream(state, self.identity())

    def restore(self, state: Mapping[str, Any]) -> None:
        self.check_state(state)
        self._start = None if state.get("iterator") is None else (state["epoch"], state["iterator"])

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        _check_spread(self._options, mesh, name)
        return self


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
