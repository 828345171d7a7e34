"""The bias of a schedule against a random order, which is the price of length grouping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.steps import Steps
from multimodal_pad.text_table import text_table


class Bias(NamedTuple):
    """A figure of a schedule, and of the same steps with their samples in fully random order."""

    scheduled: float
    random: float


@dataclass(frozen=True)
class BiasReport:
    """The bias of a schedule against a random order; ``print`` it for a table.

    Attributes:
        adjacent_correlation: per modality, Pearson's correlation between the mean length of a batch and that of the
            next; around 0 where the order of the batches says nothing.
        within_batch_spread: per modality, standard deviation of the lengths within a batch / over all samples;
            near 1 in a random order, 0 where every batch is of one length.
        label_on_shape: dependence of the label on the batch shape, 0 (none) to 1: Cramér's V of classes, the
            correlation ratio of values. Never quite 0 in a finite sample: compare with the random order. None
            without labels.
    """

    adjacent_correlation: dict[str, Bias]
    within_batch_spread: dict[str, Bias]
    label_on_shape: Bias | None

    def __str__(self) -> str:
        rows = [
            [f"{what}, {name}", f"{bias.scheduled:.3f}", f"{bias.random:.3f}"]
            for what, biases in (
                ("correlation of adjacent batches", self.adjacent_correlation),
                ("spread within a batch", self.within_batch_spread),
            )
            for name, bias in biases.items()
        ]
        if self.label_on_shape is not None:
            rows.append(["dependence of label on shape", *(f"{value:.3f}" for value in self.label_on_shape)])
        return "\n".join(text_table(["", "schedule", "random order"], rows, left=1))


def measure_bias(steps: Steps, lengths: LengthTable, labels: np.ndarray | None, seed: int) -> BiasReport:
    """Report on all steps of an epoch; see :meth:`Schedule.bias_report <multimodal_pad.Schedule.bias_report>`."""
    if labels is not None and np.shape(labels) != (len(lengths),):
        raise PaddingError(
            f"got labels of shape {np.shape(labels)} for {len(lengths)} samples; give one class or value per sample"
        )
    labels = None if labels is None else np.asarray(labels)
    if labels is not None and (
        labels.dtype.kind not in "biufUS" or (labels.dtype.kind == "f" and np.isnan(labels).any())
    ):
        raise PaddingError(f"got labels of dtype {labels.dtype}; give whole numbers, strings, or floats without NaN")
    real = steps.ids != EMPTY
    ids, batch = steps.ids[real], np.repeat(np.arange(len(steps)), steps.batch_sizes)[real]
    orders = ids, np.random.default_rng(seed).permutation(ids)
    adjacent, spread = {}, {}
    for column, name in enumerate(lengths.modalities):
        of_orders = [_of_batches(lengths.values[order, column], batch) for order in orders]
        adjacent[name] = Bias(*(_correlation(means) for means, _ in of_orders))
        spread[name] = Bias(*(share for _, share in of_orders))
    if labels is None:
        return BiasReport(adjacent, spread, None)
    shape = np.unique(steps.lengths, axis=0, return_inverse=True)[1].ravel()[batch]
    dependence = _cramers_v if labels.dtype.kind in "biuUS" else _correlation_ratio
    return BiasReport(adjacent, spread, Bias(*(dependence(labels[order], shape) for order in orders)))


def _of_batches(values: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean of each batch, and the spread within batches."""
    counts = np.bincount(batch)
    means = np.bincount(batch, values) / counts
    total = values.var()
    within = np.square(values - means[batch]).mean()
    return means, float(np.sqrt(within / total)) if total else 1.0


def _correlation(means: np.ndarray) -> float:
    if len(means) < 3 or not means[1:].std() or not means[:-1].std():
        return 0.0
    return float(np.corrcoef(means[:-1], means[1:])[0, 1])


def _cramers_v(labels: np.ndarray, shape: np.ndarray) -> float:
    """Compute sqrt(chi² / (n (min(rows, columns) - 1))): Cramér (1946), Mathematical Methods of Statistics, 21."""
    classes, label = np.unique(labels, return_inverse=True)
    used, shape = np.unique(shape, return_inverse=True)
    smaller = min(len(classes), len(used)) - 1
    if not smaller:
        return 0.0
    table = np.bincount(label * len(used) + shape, minlength=len(classes) * len(used)).reshape(len(classes), -1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / len(label)
    return float(np.sqrt((np.square(table - expected) / expected).sum() / (len(label) * smaller)))


def _correlation_ratio(labels: np.ndarray, shape: np.ndarray) -> float:
    """Compute sqrt(variance between the shapes' means / variance of the labels): Pearson (1903)."""
    total = labels.var()
    counts = np.bincount(shape)
    means = np.bincount(shape, labels) / np.maximum(counts, 1)
    return float(np.sqrt(np.square(means[shape] - labels.mean()).mean() / total)) if total else 0.0
