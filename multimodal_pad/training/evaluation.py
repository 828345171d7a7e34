"""Loss and metrics over an evaluation set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
        metrics: of outputs and targets, see :mod:`multimodal_pad.training.metrics`. By default one integer target for
            several outputs is a class (accuracy, weighted F1), and everything else is regressed (mean absolute error).

    Returns:
        ``{"loss": ..., ...}``: the mean loss over the samples, and the metrics by name.

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
    total, outputs, targets = 0.0, [], []
    for batch in batches:
        found: Any = table(state, batch)
        real = np.asarray(found.sample_mask)
        total += float(found.loss) * int(real.sum())
        outputs.append(np.asarray(found.outputs)[real])
        targets.append(np.asarray(found.targets)[real])
    predicted, wanted = np.concatenate(outputs), np.concatenate(targets)
    if metrics is None:
        classes = predicted.shape[1] > 1 and wanted.ndim == 1 and wanted.dtype.kind in "iu"
        metrics = classification_metrics if classes else regression_metrics
    figures = {name: float(figure) for name, figure in metrics(predicted, wanted).items()}
    return {"loss": total / len(wanted), **figures}
