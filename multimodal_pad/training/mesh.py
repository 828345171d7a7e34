"""Several devices, in one process or many: the rows of each batch are spread over all of them."""

from __future__ import annotations

import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.errors import PaddingError, TrainingError
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.spans import TELL, span
from multimodal_pad.training.stopping import Interrupted

AXIS = "data"
"""The name of the mesh's only axis."""

_AHEAD = 4
"""Batches whose shapes are agreed upon ahead of their steps, so that no agreement waits for the device. They are held
in host memory, beside those that are prefetched and in flight."""

_BATCH, _END, _FAILED = 1, 0, -1


class DataMesh:
    """Devices in a row, each of which has an equal run of every batch's rows, and the whole train state.

    Every process takes its share of the samples, at the same shapes (:meth:`share`). JAX does not notice when two
    processes pad one step to different lengths: they train on, on wrong values. So processes exchange the
    shape of every batch before its step, and all of them end with an error where they differ, or where one of them has
    no batch.

    Args:
        devices: those of all processes, by default all that there are.

    Attributes:
        mesh: the mesh, with one axis called ``"data"``.
        state_sharding: of the train state: all of it on each device.
        batch_sharding: of a batch: its rows spread over the devices.
        process_count: how many processes there are.

    Raises:
        TrainingError: no devices, one of them twice, or more of one process than of another.

    >>> DataMesh(jax.devices()[:1]).mesh.size
    1
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        devices = sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index)
        counts = Counter(device.process_index for device in devices)
        each = [counts[index] for index in range(jax.process_count())]
        if len(set(devices)) < len(devices) or len(set(each)) > 1 or not each[0]:
            raise TrainingError(
                f"got {len(devices)} devices, {each} of the processes 0 to {jax.process_count() - 1}; give as many of "
                "every process, at least one, and each once"
            )
        self.mesh = Mesh(np.array(devices), (AXIS,))
        self.state_sharding = NamedSharding(self.mesh, PartitionSpec())
        self.batch_sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self._gather = jax.jit(_all_messages, in_shardings=self.batch_sharding, out_shardings=self.state_sharding)
        self.process_count = jax.process_count()
        self._compiled: dict[int, Any] = {}

    def share(self, batcher: BucketBatcher, name: str = "batcher") -> BucketBatcher:
        """Return this process's shard of the batches; ``name`` is what errors call them.

        With several devices it is another batcher than the one given, which keeps its position.

        Raises:
            TrainingError: the devices can't share a batch evenly, or the batcher is a shard already, and of another
                number of processes or devices.
        """
        wanted = jax.process_index(), jax.process_count(), len(self.mesh.local_devices)
        given = batcher.shard_index, batcher.shard_count, batcher.devices
        if given == wanted:
            return batcher
        if given != (0, 1, 1):
            raise TrainingError(
                f"{name}: got shard {given[0]} of {given[1]} with devices={given[2]}, in process {wanted[0]} of "
                f"{wanted[1]} with {wanted[2]} devices; give the whole batcher, each process takes its own shard of it"
            )
        try:
            return batcher.shard(wanted[0], wanted[1], devices=wanted[2])
        except PaddingError as error:
            raise TrainingError(f"{name}: {error}, or fewer devices (devices=jax.devices()[:1])") from None

    def check_agreed(self, facts: Mapping[str, Any]) -> None:
        """Raise a TrainingError in all processes that names the facts (JSON values or bytes) that are not the same."""
        said = [
            zlib.crc32(value if isinstance(value, bytes) else json.dumps(value).encode()) for value in facts.values()
        ]
        told = np.asarray(self._tell(np.array(said, np.uint32).view(np.int32).tolist()))
        different = [name for name, column in zip(facts, told.T, strict=True) if (column != column[0]).any()]
        if different:
            raise TrainingError(
                f"the processes differ in {', '.join(different)}; give each the same (this one is process "
                f"{jax.process_index()} of {jax.process_count()})"
            )

    def place_state(self, state: Any) -> Any:
        """Return a pytree of arrays that every process has alike, whole on each device."""
        return jax.tree.map(lambda x: _spread(self.state_sharding, np.asarray(x), np.shape(x)), state)

    def place_batch(self, batch: Batch) -> Batch:
        """Place this process's rows as a part of the batch of all processes."""
        count = jax.process_count()
        return jax.tree.map(lambda x: _spread(self.batch_sharding, x, (x.shape[0] * count, *x.shape[1:])), batch)

    def prepare(self, modalities: Sequence[str]) -> None:
        """Compile the exchange of shapes in :meth:`batches`."""
        if jax.process_count() > 1:
            self._compile(3 + len(modalities))

    def batches(
        self, batches: Iterator[Batch], modalities: Sequence[str], stop: Callable[[], int] = int
    ) -> Iterator[Batch]:
        """Yield the batches of all processes together, as arrays over the devices.

        Args:
            batches: this process's shard.
            modalities: their names, in any order that is the same in all processes.
            stop: returns the number of the signal that this process is to stop for, 0 for none. It is sent ahead of
                each step, so that all processes stop at the same one, by a KeyboardInterrupt whose ``signal_number`` it
                is.

        Raises:
            TrainingError: a process has a batch of another shape, none any more, or failed to make one: all raise it,
                but for the failed one, which raises its own error.
        """
        if jax.process_count() == 1:
            yield from map(self.place_batch, batches)
            return
        self.prepare(modalities)
        # An error of this process waits for its turn like a batch, since the steps before it need this process too. A
        # process that has run out keeps sending an end, because all must join each exchange.
        waiting: deque[tuple[Batch | Exception | None, jax.Array]] = deque()
        made: Batch | Exception | None = None
        ended = False
        while True:
            while len(waiting) <= _AHEAD:
                if not ended:
                    try:
                        made = next(batches, None)
                    except Exception as error:  # noqa: BLE001  raised in its turn
                        made = error
                    ended = made is None or isinstance(made, Exception)
                with span(TELL):
                    waiting.append((made, self._tell([*_say(made, modalities), stop()])))
            batch, told = waiting.popleft()
            with span(TELL):
                said, stops = np.split(np.asarray(told), [-1], axis=1)
            if isinstance(batch, Exception):
                raise batch
            _check_alike(said, modalities)
            if stops.any():
                raise Interrupted(int(stops.max()))
            if batch is None:
                return
            yield self.place_batch(batch)

    def epoch(self, batcher: BucketBatcher, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch of all processes together; ``batcher`` is this process's :meth:`share`."""
        return self.batches(batcher.epoch(epoch), batcher.policy.modalities)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Explain an error of a step that comes from the death of another process.

        Raises:
            TrainingError: JAX fails in a step that all processes take.
        """
        try:
            yield
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            # gloo's errors are now one, now the other
            if jax.process_count() == 1 or not (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)):
                raise
            raise TrainingError(
                f"process {jax.process_index()} of {jax.process_count()} failed in a step that all of them take; if "
                f"another has died, its own log says why. Start all of them again, from the last checkpoint ({error})"
            ) from error

    def _compile(self, size: int) -> Any:
        """Compile the gathering of so many numbers of each process."""
        if size not in self._compiled:
            struct = jax.ShapeDtypeStruct((self.mesh.size, size), np.int32)
            self._compiled[size] = self._gather.lower(struct).compile()
        return self._compiled[size]

    def _tell(self, said: list[int]) -> jax.Array:
        """Gather the numbers of every process, ``(devices, n)``: a row for each of its devices."""
        mine = np.repeat(np.array([said], np.int32), len(self.mesh.local_devices), axis=0)
        return self._compile(len(said))(_spread(self.batch_sharding, mine, (self.mesh.size, len(said))))


def _all_messages(messages: jax.Array) -> jax.Array:
    return messages


def _spread(sharding: NamedSharding, local: Any, shape: tuple[int, ...]) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, local, shape)


def _say(made: Batch | Exception | None, modalities: Sequence[str]) -> list[int]:
    if made is None or isinstance(made, Exception):
        return [_END if made is None else _FAILED] + [0] * (1 + len(modalities))
    lengths = dict(made.shape.lengths)
    return [_BATCH, made.shape.batch_size, *(lengths[name] for name in modalities)]


def _check_alike(said: np.ndarray, modalities: Sequence[str]) -> None:
    """Raise a TrainingError unless all processes sent the same."""
    if (said == said[0]).all():
        return
    described = " and ".join(sorted(_describe(row, modalities) for row in np.unique(said, axis=0).tolist()))
    raise TrainingError(
        f"the processes don't have the same batch: {described}; make the batcher from the same source, plan and "
        f"options in each (this one is process {jax.process_index()} of {jax.process_count()})"
    )


def _describe(said: list[int], modalities: Sequence[str]) -> str:
    if said[0] == _FAILED:
        return "one failed to make its batch (its own error says why)"
    if said[0] == _END:
        return "one has no more batches"
    lengths = [f"{name} {length}" for name, length in zip(modalities, said[2:], strict=True)]
    return f"one has {said[1]} x ({', '.join(lengths)})"
