"""Contenders that pad the same batches of the same samples: this project's, and those of other libraries.

A contender is made once from the :class:`Work`, and then gives an iterator over the epoch's batches each time it is
called. Samples are ready arrays in memory; each contender gets them in its fastest form before
anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad import BucketBatcher, LengthTable, PaddedBatch, Policy, pad_samples
from multimodal_pad.layouts.arrays import aligned_empty
from multimodal_pad.lengths.samples import EMPTY

Samples = list[dict[str, np.ndarray]]
Epoch = Callable[[], Iterator["Padded"]]


class Padded(NamedTuple):
    """Features ``(B, L_m, F_m)`` and lengths ``(B,)``, as the arrays or tensors of the contender."""

    features: dict[str, Any]
    lengths: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The samples and batches that all contenders pad.

    Attributes:
        samples: N samples of float32 ``(length, width)``, and at -1, which is EMPTY in a schedule, one of length 0.
        lengths: of the N samples.
        policy: whose lengths the batches are padded to.
        batch_size: rows of a batch.
        steps: padded lengths and sample numbers of each batch of the schedule.
        ready: the batches, padded; gone when the contender is made and checked.
    """

    samples: Samples
    lengths: LengthTable
    policy: Policy
    batch_size: int
    steps: list[tuple[dict[str, int], list[int]]]
    ready: list[PaddedBatch]

    def batcher(self, prefetch: int) -> BucketBatcher:
        """Return the batcher of this work."""
        return make_batcher(self.samples, self.policy, self.lengths, self.batch_size, prefetch)


def make_batcher(
    samples: Samples, policy: Policy, lengths: LengthTable, batch_size: int, prefetch: int
) -> BucketBatcher:
    """Make a batcher of all samples except the empty one at the end."""
    return BucketBatcher(samples[:-1], policy, batch_size=batch_size, lengths=lengths, prefetch=prefetch)


def copy_batches(work: Work) -> Epoch:
    """Copy the ready arrays to fresh, aligned ones by ``np.copyto``: one call per array of features and of lengths."""

    def copied(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        fresh = {name: aligned_empty(array.shape, array.dtype) for name, array in arrays.items()}
        for name, array in arrays.items():
            np.copyto(fresh[name], array)
        return fresh

    ready = list(work.ready)
    return lambda: (Padded(copied(batch.features), copied(batch.lengths)) for batch in ready)


def copy_samples(work: Work) -> Epoch:
    """Copy each sample by ``np.copyto``, without checks or padding: scattered reads, small calls."""

    def copied(name: str, length: int, ids: list[int]) -> np.ndarray:
        width = work.samples[-1][name].shape[1]
        fresh = aligned_empty((len(ids), length, width), np.dtype(np.float32))
        for row, index in zip(fresh, ids, strict=True):
            array = work.samples[index][name]
            np.copyto(row[: len(array)], array)
        return fresh

    real = [batch.lengths for batch in work.ready]

    def batches() -> Iterator[Padded]:
        for (padded, ids), lengths in zip(work.steps, real, strict=True):
            yield Padded({name: copied(name, length, ids) for name, length in padded.items()}, lengths)

    return batches


def batcher(work: Work, prefetch: int) -> Epoch:
    """Iterate over this project's batcher, every check included."""
    made = work.batcher(prefetch)
    return lambda: (Padded(batch.features, batch.lengths) for batch in made.epoch(0))


def padding_alone(work: Work) -> Epoch:
    """Call this project's padding function on the samples of each batch: no schedule, no ledger, no prefetch."""
    batches = [
        ([work.samples[index] for index in ids if index != EMPTY], lengths, len(ids)) for lengths, ids in work.steps
    ]

    def padded() -> Iterator[Padded]:
        for samples, lengths, rows in batches:
            batch = pad_samples(samples, pad_to=lengths, batch_size=rows)
            yield Padded(batch.features, batch.lengths)

    return padded


def numpy_pad(work: Work) -> Epoch:
    """Pad by hand: ``np.pad`` of each sample to the longest of the batch, and ``np.stack``."""

    def padded(samples: Samples) -> Padded:
        features, lengths = {}, {}
        for name in samples[0]:
            lengths[name] = np.array([len(sample[name]) for sample in samples], np.int32)
            longest = lengths[name].max()
            features[name] = np.stack([np.pad(x[name], ((0, longest - len(x[name])), (0, 0))) for x in samples])
        return Padded(features, lengths)

    batches = [[work.samples[index] for index in ids] for _, ids in work.steps]
    return lambda: map(padded, batches)


def torch_loader(work: Work) -> Epoch:
    """Use torch's ``DataLoader`` in process, with a batch sampler of the schedule and ``pad_sequence``."""
    torch = import_module("torch")
    torch.set_num_threads(1)  # like its own workers; two threads wait for each other longer than they save
    samples = [{name: torch.from_numpy(array) for name, array in sample.items()} for sample in work.samples]

    def collate(batch: list[dict[str, Any]]) -> Padded:
        features, lengths = {}, {}
        for name in batch[0]:
            sequences = [sample[name] for sample in batch]
            features[name] = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
            lengths[name] = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int32)
        return Padded(features, lengths)

    batches = [ids for _, ids in work.steps]
    loader = torch.utils.data.DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=0)
    return lambda: iter(loader)


def tf_generator(work: Work) -> Epoch:
    """Use ``tf.data`` on a Python generator of samples."""
    tf = import_module("tensorflow")
    signature = {name: tf.TensorSpec((None, array.shape[1]), tf.float32) for name, array in work.samples[-1].items()}

    def samples() -> Iterator[dict[str, np.ndarray]]:
        return (work.samples[index] for _, ids in work.steps for index in ids)

    return _tf_padded(tf, work, tf.data.Dataset.from_generator(samples, output_signature=signature))


def tf_tensors(work: Work) -> Epoch:
    """Use ``tf.data`` on samples in TensorFlow's tensors, so that no Python runs per sample."""
    tf = import_module("tensorflow")
    tensors, starts = {}, {}
    for name in work.samples[-1]:
        tensors[name] = tf.constant(np.concatenate([sample[name] for sample in work.samples]))
        starts[name] = tf.constant(np.cumsum([0, *(len(sample[name]) for sample in work.samples)]))
    empty = len(work.samples) - 1
    order = [empty if index < 0 else index for _, ids in work.steps for index in ids]

    def sample(index: Any) -> dict[str, Any]:
        return {name: tensors[name][starts[name][index] : starts[name][index + 1]] for name in tensors}

    read = tf.data.Dataset.from_tensor_slices(order).map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    return _tf_padded(tf, work, read)


def _tf_padded(tf: Any, work: Work, samples: Any) -> Epoch:
    """Apply ``padded_batch``, with the lengths beside the features."""

    def with_lengths(sample: dict[str, Any]) -> Any:
        return sample, {name: tf.shape(array)[0] for name, array in sample.items()}

    batches = samples.map(with_lengths).padded_batch(work.batch_size).prefetch(tf.data.AUTOTUNE)
    return lambda: (Padded(*batch) for batch in batches)


def grain_stack(work: Work) -> Epoch:
    """Use Grain's own batch, which only stacks: each sample is padded by itself before."""
    grain = import_module("grain")
    order = [(work.samples[index], lengths) for lengths, ids in work.steps for index in ids]

    def padded(entry: tuple[dict[str, np.ndarray], dict[str, int]]) -> Padded:
        sample, lengths = entry
        features = {name: np.zeros((lengths[name], array.shape[1]), array.dtype) for name, array in sample.items()}
        for name, array in sample.items():
            features[name][: len(array)] = array
        return Padded(features, {name: np.int32(len(array)) for name, array in sample.items()})

    batches = grain.MapDataset.source(order).map(padded).batch(work.batch_size)
    return lambda: iter(batches.to_iter_dataset())


def grain_batch_fn(work: Work, threads: int | None) -> Epoch:
    """Use Grain's batch with a ``batch_fn`` of plain NumPy, with default read options or one thread that is 2 ahead."""
    grain = import_module("grain")
    order = [work.samples[index] for _, ids in work.steps for index in ids]

    def padded(samples: Samples) -> Padded:
        features, lengths = {}, {}
        for name, first in samples[0].items():
            lengths[name] = np.array([len(sample[name]) for sample in samples], np.int32)
            features[name] = np.zeros((len(samples), lengths[name].max(), first.shape[1]), first.dtype)
            for row, sample in enumerate(samples):
                features[name][row, : lengths[name][row]] = sample[name]
        return Padded(features, lengths)

    batches = grain.MapDataset.source(order).batch(work.batch_size, batch_fn=padded)
    options = None if threads is None else grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2)
    return lambda: iter(batches.to_iter_dataset(options))


class Contender(NamedTuple):
    """One way to pad.

    Attributes:
        name: for the table.
        make: from the work to an iterator per epoch.
        package: what must be installed for it.
        own_maxima: it pads each batch to the batch's own maxima, not to the policy's lengths.
        fills: it writes the padding too.
    """

    name: str
    make: Callable[[Work], Epoch]
    package: str = "numpy"
    own_maxima: bool = False
    fills: bool = True


CONTENDERS = (
    Contender("np.copyto of ready batches", copy_batches),
    Contender("np.copyto per sample, no padding", copy_samples, fills=False),
    Contender("BucketBatcher, in the consumer's thread", lambda work: batcher(work, 0)),
    Contender("BucketBatcher, prefetch=2", lambda work: batcher(work, 2)),
    Contender("pad_samples", padding_alone),
    Contender("np.pad and np.stack", numpy_pad, own_maxima=True),
    Contender("torch DataLoader, pad_sequence", torch_loader, "torch", own_maxima=True),
    Contender("tf.data padded_batch, samples from a generator", tf_generator, "tensorflow", own_maxima=True),
    Contender("tf.data padded_batch, samples in tensors", tf_tensors, "tensorflow", own_maxima=True),
    Contender("Grain batch, each sample padded before", grain_stack, "grain"),
    Contender("Grain batch_fn", lambda work: grain_batch_fn(work, None), "grain", own_maxima=True),
    Contender("Grain batch_fn, 1 thread", lambda work: grain_batch_fn(work, 1), "grain", own_maxima=True),
)
