"""A training loop: progress bar, evaluation, early stopping."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multimodal_pad.batcher import BucketBatcher
from multimodal_pad.compiling import CompileGuard, StepTable, forbid_compiles, use_compilation_cache, warm_up_all
from multimodal_pad.compiling.warming import Shapes
from multimodal_pad.errors import TrainingError
from multimodal_pad.policies import Planned
from multimodal_pad.training.loss import Loss, cross_entropy
from multimodal_pad.training.metrics import classification_metrics, regression_metrics, require_scikit_learn
from multimodal_pad.training.step import TrainStep

_IN_FLIGHT = 4
"""Steps dispatched ahead of the device: each holds its batch in host memory until it has run."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean over the samples, while the parameters moved.
        seconds: wall time of the epoch, evaluation included, the warm-up before the first one not.
        evaluation: loss and metrics on the evaluation set; empty where there is none.
    """

    epoch: int
    train_loss: float
    seconds: float
    evaluation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """What :func:`fit` returns.

    Attributes:
        model: with the parameters of the best epoch, or of the last where nothing was evaluated.
        history: a record per epoch.
        best_epoch: the epoch that ``model`` is of.
    """

    model: Any
    history: list[EpochRecord]
    best_epoch: int


def make_optimizer(
    learning_rate: float = 1e-3,
    *,
    warmup_steps: int = 0,
    clip: float = 0.8,
    weight_decay: float = 1e-2,
) -> optax.GradientTransformation:
    """AdamW with linear warm-up and clipping by global norm (0.8 is MulT's).

    >>> optimizer = make_optimizer(2e-3, warmup_steps=100)
    """
    if not learning_rate > 0 or warmup_steps < 0 or not clip > 0:
        raise TrainingError(
            f"got learning_rate={learning_rate}, warmup_steps={warmup_steps}, clip={clip}; learning_rate and "
            "clip must be above 0, warmup_steps at least 0"
        )
    rate = optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else learning_rate
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay))


def fit(
    model: nnx.Module,
    batcher: BucketBatcher,
    *,
    epochs: int,
    loss: Loss = cross_entropy,
    optimizer: optax.GradientTransformation | None = None,
    evaluate_on: BucketBatcher | None = None,
    patience: int | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    strict: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train, evaluate after each epoch, and stop when evaluation no longer gets better.

    Every batch shape of a policy that has finitely many is compiled before the first step, for training
    and evaluation, and no other is accepted after it. :class:`~multimodal_pad.Exact` compiles as it goes.

    Args:
        model: takes ``(features, masks, dropout_key=...)``; left as it is.
        batcher: the training batches; epoch e is ``batcher.epoch(e)``.
        epochs: the most epochs to train.
        loss: weighted by ``sample_mask``.
        optimizer: of one flat vector (see :class:`TrainStep`); by default ``make_optimizer()``.
        evaluate_on: batches whose loss decides which epoch is the best.
        patience: stop after so many epochs without a lower evaluation loss; by default never.
        seed: of dropout.
        cache_dir: folder of the persistent compilation cache, see
            :func:`~multimodal_pad.compiling.use_compilation_cache`.
        strict: forbid compilations of any kind after the warm-up, in all of the process, see
            :func:`~multimodal_pad.compiling.forbid_compiles`.
        progress: show a bar.

    Raises:
        CompileError: something compiles after the warm-up, and ``strict`` is given.
        TrainingError: fewer than 1 epoch, patience without evaluation, a loss that is not finite
            (named by epoch and step), classes to evaluate without scikit-learn, or ``strict`` for a policy
            without a finite set of shapes.

    >>> from multimodal_pad import Ladder
    >>> from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    >>> samples = [{"text": np.arange(1 + i % 3), "targets": i % 2} for i in range(8)]
    >>> config = TransformerConfig({"text": ModalityConfig(vocabulary_size=3)}, num_outputs=2, d_model=8)
    >>> model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
    >>> result = fit(model, BucketBatcher(samples, Ladder({"text": [4]}), batch_size=4), epochs=2, progress=False)
    >>> [record.epoch for record in result.history]
    [0, 1]
    """
    if epochs < 1 or (patience is not None and (patience < 1 or evaluate_on is None)):
        raise TrainingError(
            f"got epochs={epochs} and patience={patience}; epochs must be at least 1, and patience at least 1 "
            "with evaluate_on given"
        )
    endless = [b.policy for b in (batcher, evaluate_on) if b is not None and not b.policy.finite]
    if strict and endless:
        raise TrainingError(
            f"got strict for {endless[0]!r}, which compiles as it goes; choose a policy with few shapes"
        )
    if evaluate_on is not None and loss is cross_entropy:
        require_scikit_learn()  # now, and not after the first epoch
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    step = TrainStep(model, optimizer or make_optimizer(), loss, seed=seed)
    train_table = StepTable(step.train_step, donate_state=True)
    eval_table = StepTable(step.eval_step)
    leaves, history = step.leaves, []
    best_epoch, best_loss, best_leaves = 0, math.inf, leaves
    finite = [
        (table, _shapes(batches, count), batches.example())
        for table, batches, count in ((train_table, batcher, epochs), (eval_table, evaluate_on, 1))
        if batches is not None and batches.policy.finite
    ]
    if finite:
        warm_up_all(finite, leaves, progress=progress)
    with forbid_compiles() if strict else nullcontext() as guard, _bar(progress) as show:
        for epoch in range(epochs):
            started = time.perf_counter()
            leaves, train_loss = _train_epoch(train_table, leaves, batcher, epoch, show, guard)
            evaluation = {} if evaluate_on is None else evaluate(eval_table, leaves, evaluate_on)
            if not math.isfinite(evaluation.get("loss", 0.0)):
                raise _not_finite(f"epoch {epoch}, evaluation", evaluation["loss"])
            history.append(EpochRecord(epoch, train_loss, time.perf_counter() - started, evaluation))
            if evaluate_on is None or evaluation["loss"] < best_loss:
                best_epoch, best_loss = epoch, evaluation.get("loss", math.inf)
                # The next step donates the state, so the best one must be a copy; on the host, where it
                # needs no program and no device memory.
                best_leaves = leaves if evaluate_on is None else [np.array(leaf) for leaf in leaves]
            elif patience is not None and epoch - best_epoch >= patience:
                break
    return FitResult(step.model(best_leaves), history, best_epoch)


def evaluate(table: StepTable, leaves: list[jax.Array], batcher: BucketBatcher) -> dict[str, float]:
    """Loss and metrics over every sample of a batcher once.

    ``table`` holds :meth:`TrainStep.eval_step`. One integer target for several outputs is a class
    (accuracy, weighted F1); everything else is regressed (mean absolute error).
    """
    total, outputs, targets = 0.0, [], []
    for batch in batcher.epoch(0):
        predicted, loss = table(leaves, batch)
        real = batch.sample_mask
        total += float(loss) * int(real.sum())
        outputs.append(np.asarray(predicted)[real])
        targets.append(np.asarray(batch.targets)[real])
    predicted, wanted = np.concatenate(outputs), np.concatenate(targets)
    classes = predicted.shape[1] > 1 and wanted.ndim == 1 and wanted.dtype.kind in "iu"
    metrics = classification_metrics if classes else regression_metrics
    return {"loss": total / len(wanted), **metrics(predicted, wanted)}


def _shapes(batcher: BucketBatcher, epochs: int) -> Shapes:
    """What to compile for: the plan itself where its rows serve, so that errors can name it."""
    policy = batcher.policy
    batcher.schedule(0)  # says whether there is anything to batch, before anything is compiled
    if isinstance(policy, Planned) and batcher.batch_size is None:
        return policy.plan
    return batcher.batch_shapes(epochs)


def _train_epoch(
    table: StepTable,
    leaves: list[jax.Array],
    batcher: BucketBatcher,
    epoch: int,
    show: Callable[[int, int, int, float], None],
    guard: CompileGuard | None,
) -> tuple[list[jax.Array], float]:
    steps = len(batcher.schedule(epoch))
    in_flight: deque = deque()
    total, samples = 0.0, 0

    def settle(step: int, metrics: Any) -> None:
        nonlocal total, samples
        loss = float(metrics.loss)
        if not math.isfinite(loss):
            raise _not_finite(f"epoch {epoch}, step {step}", loss)
        total += loss * int(metrics.samples)
        samples += int(metrics.samples)
        show(epoch, step + 1, steps, total / max(1, samples))

    for number, batch in enumerate(batcher.epoch(epoch)):
        leaves, metrics = table(leaves, batch)
        if guard is not None:
            guard.check()
        in_flight.append((number, metrics))
        if len(in_flight) > _IN_FLIGHT:
            settle(*in_flight.popleft())
    while in_flight:
        settle(*in_flight.popleft())
    return leaves, total / max(1, samples)


def _not_finite(where: str, loss: float) -> TrainingError:
    return TrainingError(
        f"{where}: the loss is {loss}; lower the learning rate, look for NaN and inf in the features with "
        "check_finite=True, and for token ids outside 0 to vocabulary_size - 1"
    )


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int, int, float], None]]:
    """A bar for the steps of the current epoch, with the mean loss so far."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("training", total=None)

        def show(epoch: int, step: int, steps: int, loss: float) -> None:
            bar.update(task, description=f"epoch {epoch}  loss {loss:.4f}", completed=step, total=steps)

        yield show
