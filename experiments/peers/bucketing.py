"""The grouping and padding rules of other libraries: computed here, and dealt by the libraries themselves.

A short last batch stays short, as in all of them. Sample numbers come in a given order, so that a rule and its library
deal the same batches.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from multimodal_pad import Ladder, LengthTable
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.scheduling.steps import Steps

MOST_MEGABATCH = 50
"""Largest number of batches that Hugging Face sorts together."""


@dataclass(frozen=True)
class Task:
    """The samples that a rule deals.

    Attributes:
        lengths: of the N samples.
        order: their numbers ``(N,)`` in the random order of the epoch.
        batch_size: rows of a batch.
        cost: of a row at its padded lengths.
    """

    lengths: LengthTable
    order: np.ndarray
    batch_size: int
    cost: Cost

    def column(self, key: str) -> np.ndarray:
        """Return the lengths of one modality, at least 1, ``(N,)``."""
        return np.maximum(self.lengths.select((key,)).values[:, 0], 1)


def split(order: np.ndarray, rows: int) -> list[np.ndarray]:
    """Split into consecutive batches of so many rows; the last one may be shorter."""
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def pad_to_maxima(task: Task, batches: Sequence[np.ndarray], multiple: int = 1) -> Steps:
    """Pad each batch to its own maxima, rounded up to multiples as by ``pad_to_multiple_of``."""
    maxima = np.stack([task.lengths.values[ids].max(axis=0) for ids in batches])
    return to_steps(batches, -(-np.maximum(maxima, 1) // multiple) * multiple)


def to_steps(batches: Sequence[np.ndarray], padded: np.ndarray) -> Steps:
    """Make steps of batches of sample numbers and their padded lengths ``(steps, M)``."""
    starts = np.cumsum([0, *map(len, batches)])
    return Steps(np.asarray(padded, np.int64), starts, np.concatenate(batches).astype(np.int64))


def deal_rounded(task: Task, multiple: int) -> Steps:
    """Deal random batches, padded as by Hugging Face's collators with ``pad_to_multiple_of``."""
    return pad_to_maxima(task, split(task.order, task.batch_size), multiple)


def group_by_length(lengths: np.ndarray, order: np.ndarray, batch_size: int) -> np.ndarray:
    """Order as Hugging Face does: longest first within megabatches of the random order, the longest of all in front.

    ``get_length_grouped_indices`` of ``transformers.trainer_pt_utils``: a megabatch is 50 batches, or fewer so that
    there are four of them. The longest sample changes places with the first one of the first megabatch.

    >>> group_by_length(np.array([3, 5, 9, 4]), np.array([0, 1, 2, 3]), 2).tolist()
    [2, 0, 1, 3]
    """
    size = max(1, min(len(lengths) // (4 * batch_size), MOST_MEGABATCH)) * batch_size
    parts = [part[np.argsort(-lengths[part], kind="stable")] for part in split(order, size)]
    longest = parts[int(np.argmax([lengths[part[0]] for part in parts]))]
    parts[0][0], longest[0] = longest[0], parts[0][0]
    return np.concatenate(parts)


def deal_grouped(task: Task, key: str, multiple: int = 1) -> Steps:
    """Deal batches of Hugging Face's ``group_by_length``."""
    order = group_by_length(task.column(key), task.order, task.batch_size)
    return pad_to_maxima(task, split(order, task.batch_size), multiple)


def quantile_edges(task: Task, key: str, count: int) -> np.ndarray:
    """Return the longest length of each of at most ``count`` buckets with equal numbers of samples."""
    return Ladder.quantiles(task.lengths.select((key,)), count).edges[0]


def duration_bins(durations: np.ndarray, count: int) -> np.ndarray:
    """Return the lengths at which Lhotse's buckets begin: buckets of about equal total duration.

    ``estimate_duration_buckets`` of ``lhotse.dataset.sampling.dynamic_bucketing``. Buckets overshoot their share, so
    the last one is the smallest, or there are fewer; where durations repeat, two bins can be the same.

    >>> duration_bins(np.array([1, 1, 1, 1, 4, 4]), 3).tolist()
    [4]
    """
    share, bins, total = durations.sum() / count, [], 0
    for duration in np.sort(durations).tolist():
        if total > share:
            bins.append(duration)
            total = 0
        total += duration
    return np.array(bins, durations.dtype)


def into_buckets(lengths: np.ndarray, edges: np.ndarray, order: np.ndarray, rows: int) -> list[np.ndarray]:
    """Deal batches of one bucket each; a length equal to an edge belongs to the bucket below, as in Lhotse.

    Within a bucket samples stay in order. The order of buckets doesn't matter here.
    """
    buckets = np.searchsorted(edges, lengths[order])
    return [ids for bucket in np.unique(buckets) for ids in split(order[buckets == bucket], rows)]


def deal_bucketed(task: Task, key: str, count: int, *, to_boundary: bool) -> Steps:
    """Deal by ``bucket_by_sequence_length`` of tf.data, with boundaries at quantiles of the key.

    To the boundary, every dimension of unknown size is padded to it, of any modality. A sample with a longer modality
    ends a run of tf.data with an error, and is left out here.
    """
    edges, column = quantile_edges(task, key, count), task.column(key)
    if not to_boundary:
        return pad_to_maxima(task, into_buckets(column, edges, task.order, task.batch_size))
    batches = into_buckets(column, edges, fitting_order(task, key, edges), task.batch_size)
    padded = edges[np.searchsorted(edges, [column[ids[0]] for ids in batches])]
    return to_steps(batches, np.repeat(padded[:, None], len(task.lengths.modalities), axis=1))


def fitting_order(task: Task, key: str, edges: np.ndarray) -> np.ndarray:
    """Return the order without samples that have a modality longer than the key's boundary."""
    limits = edges[np.searchsorted(edges, task.column(key))]
    return task.order[(task.lengths.values.max(axis=1) <= limits)[task.order]]


def run_tensorflow(task: Task, key: str, count: int, *, to_boundary: bool) -> Steps:
    """Run :func:`deal_bucketed` by tf.data itself, on vectors of zeros."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # without TensorFlow's messages at its start
    tf = import_module("tensorflow")
    names, values = task.lengths.modalities, tf.constant(np.maximum(task.lengths.values, 1))
    edges = quantile_edges(task, key, count)
    order = fitting_order(task, key, edges) if to_boundary else task.order
    boundaries = (edges + 1 if to_boundary else edges[:-1] + 1).tolist()

    def element(index: Any) -> dict[str, Any]:
        return {"id": index, **{name: tf.zeros([values[index, m]], tf.int8) for m, name in enumerate(names)}}

    def look(batch: dict[str, Any]) -> tuple[Any, Any]:
        return batch["id"], tf.stack([tf.shape(batch[name])[1] for name in names])

    batches = (
        tf.data.Dataset.from_tensor_slices(order)
        .map(element)
        .bucket_by_sequence_length(
            lambda sample: tf.shape(sample[key])[0],
            boundaries,
            [task.batch_size] * (len(boundaries) + 1),
            pad_to_bucket_boundary=to_boundary,
        )
        .map(look)
    )
    ids, padded = zip(*batches.as_numpy_iterator(), strict=True)
    return to_steps(ids, np.stack(padded))


def deal_durations(task: Task, key: str, count: int) -> Steps:
    """Deal by Lhotse's ``DynamicBucketingSampler`` with a constant number of cuts and the key as the duration."""
    durations = task.column(key)
    batches = into_buckets(durations, duration_bins(durations, count), task.order, task.batch_size)
    return pad_to_maxima(task, batches)


def run_lhotse(task: Task, key: str, count: int) -> Steps:
    """Run :func:`deal_durations` by Lhotse itself, on cuts without a recording, in the random order."""
    cut, sampling = (import_module(f"lhotse.{name}") for name in ("cut", "dataset.sampling.dynamic_bucketing"))
    column = task.column(key)
    cuts = [cut.MonoCut(str(i), start=0.0, duration=float(column[i]), channel=0) for i in task.order]
    sampler = sampling.DynamicBucketingSampler(
        cuts,
        max_cuts=task.batch_size,
        num_buckets=count,
        num_cuts_for_bins_estimate=len(cuts),
        buffer_size=len(cuts),
        world_size=1,
        rank=0,
    )
    return pad_to_maxima(task, [np.array([int(each.id) for each in batch]) for batch in sampler])
