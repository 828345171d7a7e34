"""Loss and metrics over an evaluation set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from multimodal_pad.compiling import StepTable
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.training.any_batches import AnyBatches, as_feed
from multimodal_pad.training.loss import Loss
from multimodal_pad.training.measured import Evaluated
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import (
    OURS,
    Metrics,
    check_metrics,
    classification_metrics,
    multilabel_metrics,
    regression_metrics,
    require_scikit_learn,
    usual_metrics_of,
)
from multimodal_pad.training.run import score
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
            integer (or bool) for several outputs is a class (:func:`classification_metrics`), as many bools as outputs
            are tasks (:func:`multilabel_metrics`), as many numbers are regressed (:func:`regression_metrics`), and of
            everything else there are no metrics.

    Returns:
        ``{"loss": ..., ...}``: the loss and the metrics of a ``loss_fn``, means over the whole set by the weights of
        its batches, and those of ``metrics``.

    Raises:
        TrainingError: metrics that are no function, batches without targets, classes without scikit-learn, what gives
            no batches, or as :meth:`DataMesh.share` and :meth:`DataMesh.batches`.

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
    check_metrics(metrics)
    feed = as_feed(batcher)
    if mesh is None:
        batches = feed.epoch(0)
    else:
        batches = mesh.batches(feed.shared(mesh, "batcher").epoch(0), feed.policy.modalities)
    return evaluate_batches(table, state, batches, metrics=metrics)


def evaluate_batches(
    table: StepTable, state: TrainState, batches: Iterable[Batch], *, metrics: Metrics | None = None
) -> dict[str, float]:
    """Compute :func:`evaluate` over batches as they come, which lie where the table takes them."""
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
    metrics = metrics or _metrics_for(predicted, wanted)
    figures = {} if metrics is None else metrics(predicted, wanted)
    return {**means, **{name: float(figure) for name, figure in figures.items()}}


def choose_metrics(evaluated: Evaluated, loss: Loss | None, metrics: Metrics | None, monitor: str) -> Metrics | None:
    """Choose the metrics of an evaluation, before anything is computed.

    Args:
        evaluated: shapes and dtypes of what the evaluation step gives.
        loss: of outputs and targets; None where a ``loss_fn`` calls the model.
        metrics: those asked for.
        monitor: the figure that must be among them.

    Raises:
        TrainingError: metrics of ours that don't take such outputs and targets, or classes without scikit-learn; or
            the evaluation will have no figure to monitor.
    """
    names = ["loss", *(evaluated.metrics or {})]
    if evaluated.outputs is not None:
        axes = evaluated.mask.ndim
        few = jax.tree.map(
            lambda x: _wide(np.zeros((2, *x.shape[axes:]), x.dtype)), (evaluated.outputs, evaluated.targets)
        )
        metrics = metrics or usual_metrics_of(loss) or _metrics_for(*few)
        if metrics is not None and metrics not in OURS:
            return metrics  # the user's own may fail on two samples, so their names stay unknown
        names += metrics(*few) if metrics is not None else ()
    score(dict.fromkeys(names, 0.0), monitor)
    return metrics


def _metrics_for(predicted: Any, wanted: Any) -> Metrics | None:
    """Return the metrics that suit outputs and targets, where neither metrics nor loss say which."""
    if not isinstance(wanted, np.ndarray) or not isinstance(predicted, np.ndarray):
        return None
    if predicted.ndim == 2 and predicted.shape[1] > 1 and wanted.ndim == 1 and wanted.dtype.kind in "biu":
        require_scikit_learn()
        return classification_metrics
    if predicted.size != wanted.size or len(predicted) != len(wanted) or wanted.dtype.kind not in "biuf":
        return None
    return multilabel_metrics if wanted.dtype.kind == "b" else regression_metrics


def _wide(array: np.ndarray) -> np.ndarray:
    """Return half precision as float32, in which to add up."""
    return array.astype(np.float32) if jax.numpy.issubdtype(array.dtype, np.inexact) and array.itemsize < 4 else array
