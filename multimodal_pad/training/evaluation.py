"""Loss and metrics over an evaluation set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from multimodal_pad.compiling import StepTable
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.training.any_batches import AnyBatches, as_feed
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import Metrics, classification_metrics, regression_metrics
from multimodal_pad.training.state import TrainState


def evaluate(
    table: StepTable,
    state: TrainState,
    batcher: AnyBatches,
    mesh: DataMesh | None = None,
    *,
    metrics: Metrics | None = None,
) -> dict[str, float]:
    """Compute loss and metrics over every sample of a batcher once.

    ``table`` holds :meth:`TrainStep.eval_step`. With a mesh, which is the step's, every process gives the whole
    batcher (or its own shard) and gets the figures of all samples.

    Args:
        table: of the evaluation step.
        state: of the training; it is not donated, nor changed.
        batcher: the samples: a batcher's epoch 0, or one pass over a stream.
        mesh: devices that share the rows.
        metrics: of the outputs and targets of all real samples ``(n, ...)``, or positions where targets are of these,
            see :mod:`multimodal_pad.training.metrics`; where either is a dict, of dicts of arrays. By default one
            integer target for several outputs is a class (accuracy, weighted F1), as many targets as outputs are
            regressed (mean absolute error), and of everything else there are no metrics.

    Returns:
        ``{"loss": ..., ...}``: the loss and the metrics of a ``loss_fn``, means over the whole set by the weights of
        its batches, and those of ``metrics``.

    Raises:
        TrainingError: batches without targets, classes without scikit-learn, what gives no batches, or as
            :meth:`DataMesh.share` and :meth:`DataMesh.batches`.

    >>> from multimodal_pad import BucketBatcher, Ladder
    >>> from multimodal_pad.training import Evaluated, l1
    >>> def eval_step(state, batch):
    ...     outputs = state + batch.features["audio"].sum(axis=1)
    ...     loss = l1(outputs, batch.targets, batch.sample_mask)
    ...     return Evaluated(outputs, batch.targets, batch.sample_mask, loss)
    >>> samples = [{"audio": np.ones((n, 1), np.float32), "targets": np.float32(2)} for n in (1, 2, 4)]
    >>> evaluate(StepTable(eval_step), np.float32(0), BucketBatcher(samples, Ladder({"audio": [4]}), batch_size=2))
    {'loss': 1.0, 'mae': 1.0}
    """
    feed = as_feed(batcher)
    if mesh is None:
        batches = feed.epoch(0)
    else:
        batches = mesh.batches(feed.shared(mesh, "batcher").epoch(0), feed.policy.modalities)
    return evaluate_batches(table, state, batches, metrics=metrics)


def evaluate_batches(
    table: StepTable, state: TrainState, batches: Iterable[Batch], *, metrics: Metrics | None = None
) -> dict[str, float]:
    """:func:`evaluate` over batches as they come, which lie where the table wants them."""
    total, sums, kept = 0.0, {}, []
    for batch in batches:
        found: Any = table(state, batch)
        real = np.asarray(found.mask)
        weight = float(real.sum() if found.weight is None else found.weight)
        if weight:  # a mean over nothing may be NaN
            total += weight
            for name, mean in {"loss": found.loss, **(found.metrics or {})}.items():
                sums[name] = sums.get(name, 0.0) + weight * float(mean)
        if found.outputs is not None:
            kept.append(jax.tree.map(lambda x, real=real: _wide(np.asarray(x)[real]), (found.outputs, found.targets)))
    means = {name: amount / total for name, amount in sums.items()} or {"loss": float("nan")}
    if not kept:
        return means
    predicted, wanted = jax.tree.map(lambda *arrays: np.concatenate(arrays), *kept)
    metrics = metrics or _usual_metrics(predicted, wanted)
    figures = {} if metrics is None else metrics(predicted, wanted)
    return {**means, **{name: float(figure) for name, figure in figures.items()}}


def _usual_metrics(predicted: Any, wanted: Any) -> Metrics | None:
    """What is computed of outputs and targets where nothing is asked for."""
    if isinstance(wanted, Mapping) or not isinstance(predicted, np.ndarray):
        return None
    if predicted.ndim == 2 and predicted.shape[1] > 1 and wanted.ndim == 1 and wanted.dtype.kind in "iu":
        return classification_metrics
    return regression_metrics if predicted.size == wanted.size else None


def _wide(array: np.ndarray) -> np.ndarray:
    """Half precision as float32, in which to add up."""
    return array.astype(np.float32) if jax.numpy.issubdtype(array.dtype, np.inexact) and array.itemsize < 4 else array
