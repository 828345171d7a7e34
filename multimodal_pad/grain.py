"""Grain: a batcher's steps as a dataset, and streams of samples as streams of batches.

Grain holds 500 elements ready by default, and here each is a batch: :class:`BatchIterDataset` holds a few.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing, nullcontext
from functools import cached_property
from itertools import repeat
from typing import Any, Unpack

import grain
import numpy as np
from absl import flags

from multimodal_pad.batching.batcher import BucketBatcher, Position
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.batching.streams.intake import CHUNK
from multimodal_pad.batching.streams.options import StreamKeywords, StreamOptions
from multimodal_pad.errors import PaddingError, PlanWarning
from multimodal_pad.layouts.layout import BatchOfLayout, BatchSpec
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.planning.plan_policy import PolicyLike, as_policy
from multimodal_pad.scheduling.dealing import policy_shapes
from multimodal_pad.spans import READ, span


class BatchMapDataset(grain.MapDataset[BatchOfLayout]):
    """The steps of a batcher's epochs, one after another; element i is the batch of step i.

    Made from step numbers alone, so any order and any number of threads or processes give the same elements. To train,
    take :class:`BatchIterDataset`, which bounds what is made ahead.

    Args:
        batcher: over any source, one of Grain's too (``batcher.shard`` for one of several hosts).
        epochs: how many; the schedule of each is made to count its steps. Of the schedules two are kept, so shuffle
            within epochs.
        first_epoch: the number of the first one.

    Raises:
        PaddingError: a number out of range.

    >>> from multimodal_pad import Ladder
    >>> samples = [{"text": np.arange(n)} for n in (3, 5, 12, 4)]
    >>> dataset = BatchMapDataset(BucketBatcher(samples, Ladder({"text": [8, 16]}), batch_size=2), epochs=3)
    >>> len(dataset), str(dataset[0].shape)
    (6, '2 x (text 8)')
    """

    def __init__(self, batcher: BucketBatcher, *, epochs: int = 1, first_epoch: int = 0) -> None:
        check_whole("epochs", epochs, 1)
        check_whole("first_epoch", first_epoch, 0)
        super().__init__()
        self.batcher, self.epochs, self.first_epoch = batcher, epochs, first_epoch

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first step of each epoch, and of all steps, int64 ``(epochs + 1,)``."""
        numbers = range(self.first_epoch, self.first_epoch + self.epochs)
        return np.cumsum([0, *(len(self.batcher.schedule(number)) for number in numbers)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        index = int(index) % len(self)
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.batcher.batch(self.first_epoch + place, index - int(self.starts[place]))

    def epoch(self, epoch: int, step: int = 0) -> Iterator[BatchOfLayout]:
        """Yield the batches of one epoch of the batcher from a step on, as many made ahead as the batcher does."""
        made = map(self.batcher.batch, repeat(epoch), range(step, len(self.batcher.schedule(epoch))))
        with Prefetch(made, self.batcher.prefetch) if self.batcher.prefetch else nullcontext(made) as batches:
            yield from batches

    def with_batcher(self, batcher: BucketBatcher) -> BatchMapDataset:
        """Return the same dataset of another batcher, such as a shard."""
        return BatchMapDataset(batcher, epochs=self.epochs, first_epoch=self.first_epoch)


class BatchIterDataset(grain.IterDataset[BatchOfLayout]):
    """The batches of a batcher's epochs in order, made a few ahead, and resumed at any step.

    The state of its iterator is that of :meth:`BucketBatcher.state <multimodal_pad.BucketBatcher.state>`: either takes
    the other's, with any number of shards and workers.

    Args:
        batcher: over any source, one of Grain's too.
        epochs: how many.
        workers: processes that make batches; 0 makes them in a thread of this one, which is fastest unless
            reading a sample takes much computing. Workers start anew with each epoch, and each makes the schedule
            for itself.
        buffer: batches made ahead, by each worker.

    Raises:
        PaddingError: a number out of range; from the iterator's ``set_state``: the state of another run, or of more
            epochs.

    >>> from multimodal_pad import Ladder
    >>> samples = [{"text": np.arange(n)} for n in (3, 5, 12, 4)]
    >>> batches = iter(BatchIterDataset(BucketBatcher(samples, Ladder({"text": [8, 16]}), batch_size=2), epochs=2))
    >>> str(next(batches).shape), [batches.get_state()[key] for key in ("epoch", "step")]
    ('2 x (text 8)', [0, 1])
    """

    def __init__(self, batcher: BucketBatcher, *, epochs: int = 1, workers: int = 0, buffer: int = 2) -> None:
        for name, value, least in (("epochs", epochs, 1), ("workers", workers, 0), ("buffer", buffer, 1)):
            check_whole(name, value, least)
        super().__init__()
        self.batcher, self.epochs, self.workers, self.buffer = batcher, epochs, workers, buffer

    def __iter__(self) -> grain.DatasetIterator[BatchOfLayout]:
        return _BatchIterator(self)

    def epoch(self, epoch: int, step: int = 0) -> Iterator[BatchOfLayout]:
        """Yield the batches of one epoch of the batcher from a step on, whatever the number of epochs.

        Leaving the loop early stops the threads or workers that make them.
        """
        with closing(_BatchIterator(self, Position(epoch, step))) as batches:
            yield from batches

    def with_batcher(self, batcher: BucketBatcher) -> BatchIterDataset:
        """Return the same dataset of another batcher, such as a shard."""
        return BatchIterDataset(batcher, epochs=self.epochs, workers=self.workers, buffer=self.buffer)


class _BatchIterator(grain.DatasetIterator[BatchOfLayout]):
    """An iterator that counts the steps itself: the state of Grain's own fits one number of workers only."""

    def __init__(self, dataset: BatchIterDataset, position: Position | None = None) -> None:
        """Start from a position: to the end of that epoch, or without one, through all epochs."""
        super().__init__()
        self._dataset, self._position = dataset, position or Position(0, 0)
        self._epochs = dataset.epochs if position is None else position.epoch + 1
        self._inner: grain.DatasetIterator[BatchOfLayout] | None = None

    def __next__(self) -> BatchOfLayout:
        self._assert_not_closed()
        batcher, (epoch, step) = self._dataset.batcher, self._position
        if epoch < self._epochs and step == len(batcher.schedule(epoch)):
            self._close_inner()
            epoch, step = epoch + 1, 0
        if epoch == self._epochs:
            raise StopIteration
        try:
            if self._inner is None:
                self._inner = self._begin(epoch, step)
            batch = next(self._inner)
        except BaseException:
            # A loop that goes on after an error must get this step, and not one that was made ahead of it.
            self._close_inner()
            raise
        self._position = Position(epoch, step + 1)
        names = batcher.policy.modalities  # workers return them in the order of the alphabet
        features, lengths = ({name: arrays[name] for name in names} for arrays in (batch.features, batch.lengths))
        return batch._replace(features=features, lengths=lengths)

    def get_state(self) -> dict[str, Any]:
        return {**self._dataset.batcher.state(), **self._position._asdict()}

    def set_state(self, state: dict[str, Any]) -> None:
        position = self._dataset.batcher.position_of(state)
        if position.epoch > self._dataset.epochs or (position.epoch == self._dataset.epochs and position.step):
            raise PaddingError(
                f"got the state of epoch {position.epoch}, and there are {self._dataset.epochs} epochs, counted from "
                "0; ask for more"
            )
        self._close_inner()
        self._position = position

    def close(self) -> None:
        self._close_inner()
        super().close()

    def _begin(self, epoch: int, step: int) -> grain.DatasetIterator[BatchOfLayout]:
        workers, buffer = self._dataset.workers, self._dataset.buffer
        rest = BatchMapDataset(self._dataset.batcher, first_epoch=epoch)[step:]
        read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=buffer)
        dataset: grain.IterDataset[BatchOfLayout] = rest.to_iter_dataset(read)
        if workers:
            # Grain 0.2.17 and 0.2.18 read absl's flags here, which only absl's own app.run parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)

    def _close_inner(self) -> None:
        if self._inner is not None:
            self._inner.close()
        self._inner = None


class StreamIterDataset(grain.IterDataset[BatchOfLayout]):
    """Samples of any Grain dataset, of unknown number, as batches of a small set of shapes.

    It is :class:`~multimodal_pad.StreamBatcher` as a transformation. The state of its iterator is that of the
    parent at a sample before the oldest one that waits, and the numbers of those that wait: to resume, at most
    some six buffers full of samples are read again.

    Args:
        parent: gives ``{modality: (length, *feature_shape), "targets": ...}``.
        policy: rounds lengths up to buckets; its modalities are the ones that are padded. Or a plan, or the path of its
            file.
        options: how samples become batches, such as ``batch_size`` and ``buffer``: the fields of
            :class:`~multimodal_pad.batching.streams.StreamOptions` beside the policy.

    Raises:
        PaddingError: an option out of range, a parent that is no ``IterDataset``; from the iterator: no samples.
        SampleError: from the iterator: a sample that does not fit the others, named by its number.
        UncoveredLengthError: from the iterator: a sample is longer than every bucket and ``long_samples="error"``.

    >>> from multimodal_pad import Ladder
    >>> samples = grain.MapDataset.source([{"text": np.arange(n)} for n in (3, 5, 12, 4)]).to_iter_dataset()
    >>> dataset = StreamIterDataset(samples, Ladder({"text": [8, 16]}), batch_size=2)
    >>> sorted(str(batch.shape) for batch in dataset)
    ['2 x (text 16)', '2 x (text 8)']
    """

    def __init__(self, parent: grain.IterDataset[Any], policy: PolicyLike, **options: Unpack[StreamKeywords]) -> None:
        if not isinstance(parent, grain.IterDataset):
            instead = ".to_iter_dataset() of it" if isinstance(parent, grain.MapDataset) else "StreamBatcher(samples)"
            raise PaddingError(
                f"got samples of type {type(parent).__name__}, which is no grain.IterDataset; take {instead}"
            )
        super().__init__(parent)
        self.stream_options = StreamOptions(as_policy(policy), **options)

    def __iter__(self) -> grain.DatasetIterator[BatchOfLayout]:
        return self.epoch(0)

    def epoch(self, epoch: int) -> _StreamIterator:
        """Return a pass over the samples, in the order of pass number ``epoch``; ``for`` loops are that of number 0."""
        check_whole("epoch", epoch, 0)
        return _StreamIterator(self._parent.__iter__(), self.stream_options, epoch)

    def spec(self, epochs: int = 1) -> BatchSpec:
        """Return the spec that a step is compiled for, whichever ``epochs`` use it; reads the first sample.

        Raises:
            PaddingError: the policy has infinitely many shapes, or there are no samples.
        """
        del epochs
        options = self.stream_options
        shapes = policy_shapes(options.policy, options.batch_size)
        return BatchSpec(shapes, self.example(), options.policy.fingerprint)

    def example(self) -> BatchOfLayout:
        """Return a batch of the first sample that a bucket holds, in a separate pass.

        Raises:
            PaddingError: there are no samples.
        """
        with closing(self.epoch(0)) as batches:
            return batches.example()


class _StreamIterator(grain.DatasetIterator[BatchOfLayout]):
    def __init__(self, parent: grain.DatasetIterator[Any], options: StreamOptions, epoch: int) -> None:
        super().__init__(parent)
        self._options, self._intake, self._epoch = options, options.new_intake(), epoch
        self._begin(0, 0, 0)

    def example(self) -> BatchOfLayout:
        """Return a batch of the first sample; the samples that were read for it are then gone."""
        while not self._intake.knows_all and self._buffer.room and not self._finished:
            self._fill(1)
        if self._intake.first is None:
            raise PaddingError("the dataset gave no samples; there is none to make an example of")
        return self._options.example(self._intake.first, self._intake)

    def __next__(self) -> BatchOfLayout:
        self._assert_not_closed()
        while not self._buffer.ready:
            if self._finished:
                raise StopIteration
            self._fill(min(self._buffer.room, CHUNK))
        return self._options.lay_out(self._buffer.take(), self._intake)

    def get_state(self) -> dict[str, Any]:
        held = self._buffer.held
        oldest = held[0] if held else self._added
        while len(self._marks) > 1 and self._marks[1][0] <= oldest:
            self._marks.popleft()
        added, number, parent = self._marks[0]
        return {
            "parent": parent,
            "parent_added": added,
            "parent_number": number,
            "added": self._added,
            "number": self._number,
            "finished": int(self._finished),
            "epoch": self._epoch,
            "batch": self._buffer.batch,
            # As text, since Grain needs states of one structure, and the samples that wait are now more, now fewer.
            "held": ",".join(map(str, held)),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state["parent"])
        self._epoch = state.get("epoch", 0)  # missing in states of older versions
        self._begin(state["parent_added"], state["parent_number"], state["batch"])
        held = set(map(int, filter(None, state["held"].split(","))))
        while self._number < state["number"] and not self._finished:
            self._fill(min(CHUNK, state["number"] - self._number), held)
        if (self._added, self._number) != (state["added"], state["number"]):
            raise PaddingError(
                f"got the state of {state['number']} samples read and {state['added']} kept, and the dataset now gives "
                f"{self._number} and {self._added}; give the dataset that the state was taken with"
            )
        self._finished = bool(state["finished"])
        if self._finished:
            self._buffer.finish()

    def _begin(self, added: int, number: int, batch: int) -> None:
        """Begin with an empty buffer, before the sample that the parent gives next."""
        self._buffer = self._options.new_buffer(self._epoch, batch)
        self._added, self._number, self._finished = added, number, False
        self._read: list[tuple[int, Any]] = []  # samples that are not measured yet
        # States of the parent, each with the numbers of samples kept and read before it.
        self._marks = deque([(added, number, self._parent.get_state())])

    def _fill(self, count: int, held: set[int] | None = None) -> None:
        """Read so many samples; of those that are kept, let all wait or those that are held."""
        if self._number > self._marks[-1][1] and not self._read:
            self._marks.append((self._added, self._number, self._parent.get_state()))
        # Samples read stay where the next one, or one of these, is an error: a loop that goes on loses none.
        samples = self._read
        with span(READ):
            while len(samples) < count:
                number = self._number + len(samples)
                try:
                    sample = next(self._parent)
                except StopIteration:
                    break
                except Exception as error:
                    error.add_note(f"while sample {number} of the stream was read")
                    raise
                samples.append((number, sample))
                samples[-1] = (number, self._intake.held(number, sample))
        if not samples:
            if not self._added:
                raise PaddingError("the dataset gave no samples that a bucket holds; give at least one")
            self._finished = True
            self._buffer.finish()
            return
        _, lengths, waiting = self._intake.admit(samples)
        ordinals = range(self._added, self._added + len(waiting))
        chosen = [place for place, ordinal in enumerate(ordinals) if held is None or ordinal in held]
        self._buffer.add(lengths[chosen], [ordinals[place] for place in chosen], [waiting[place] for place in chosen])
        self._number += len(samples)
        self._added += len(waiting)
        self._read = []
        while self._intake.notices:
            warnings.warn(self._intake.notices.popleft(), PlanWarning, stacklevel=4)
