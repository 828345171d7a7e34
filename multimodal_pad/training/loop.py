"""A training loop: progress bar, evaluation, early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from flax import nnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.compiling import CompilerOptions, StepTable, forbid_compiles, use_compilation_cache, warm_up_all
from multimodal_pad.compiling.table import batch_struct
from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.training.described import MADE_OF, describe_run
from multimodal_pad.training.evaluation import evaluate
from multimodal_pad.training.loss import Loss, cross_entropy
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import NEED_SCIKIT_LEARN, Metrics, require_scikit_learn
from multimodal_pad.training.run import EpochRecord, Run, check_settings, score
from multimodal_pad.training.state import Arrays, TrainState, host_copies
from multimodal_pad.training.step import TrainStep

if TYPE_CHECKING:  # Orbax takes a second to import
    from multimodal_pad.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class FitResult:
    """What :func:`fit` returns.

    Attributes:
        model: with parameters and statistics of the best epoch, or of the last where nothing was evaluated; in
            evaluation mode.
        history: a record per epoch.
        best_epoch: the epoch that ``model`` is of.

    >>> history = [EpochRecord(0, 1.2, 30.0, {"loss": 1.1}), EpochRecord(1, 0.7, 9.0, {"loss": 1.3})]
    >>> result = FitResult(model=None, history=history, best_epoch=0)
    >>> result.history[result.best_epoch].evaluation
    {'loss': 1.1}
    """

    model: Any
    history: list[EpochRecord]
    best_epoch: int


def make_optimizer(
    learning_rate: float = 1e-3,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    clip: float = 0.8,
    weight_decay: float = 1e-2,
) -> optax.GradientTransformation:
    """AdamW with linear warm-up, cosine decay and clipping by global norm (0.8 is MulT's).

    Args:
        learning_rate: at its highest.
        warmup_steps: steps in which it rises from 0.
        decay_steps: the step, warm-up included, at which it has fallen to 0; by default it stays where it is.
        clip: the largest global norm of a gradient.
        weight_decay: of AdamW; 0 is Adam.

    Raises:
        TrainingError: a rate or norm that is not above 0, or a decay that ends before the warm-up does.

    >>> optimizer = make_optimizer(2e-3, warmup_steps=100, decay_steps=2000)
    """
    if not learning_rate > 0 or warmup_steps < 0 or not clip > 0:
        raise TrainingError(
            f"got learning_rate={learning_rate}, warmup_steps={warmup_steps}, clip={clip}; learning_rate and "
            "clip must be above 0, warmup_steps at least 0"
        )
    if decay_steps is not None and decay_steps <= warmup_steps:
        raise TrainingError(
            f"got decay_steps={decay_steps} and warmup_steps={warmup_steps}; decay ends after the warm-up"
        )
    rate: optax.ScalarOrSchedule = learning_rate
    if decay_steps is not None and warmup_steps:
        rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, decay_steps)
    elif decay_steps is not None:
        rate = optax.cosine_decay_schedule(learning_rate, decay_steps)
    elif warmup_steps:
        rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay))


def fit(
    model: nnx.Module,
    batcher: BucketBatcher,
    *,
    epochs: int,
    loss: Loss = cross_entropy,
    optimizer: optax.GradientTransformation | None = None,
    evaluate_on: BucketBatcher | None = None,
    metrics: Metrics | None = None,
    monitor: str = "loss",
    patience: int | None = None,
    cache_dir: str | Path | None = None,
    compiler_options: CompilerOptions | None = None,
    strict: bool = False,
    checkpoints: Checkpoints | None = None,
    save_every: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train, evaluate after each epoch, and stop when evaluation no longer gets better.

    Every batch shape of a policy that has finitely many is compiled before the first step, for training
    and evaluation, and no other is accepted after it. :class:`~multimodal_pad.Exact` compiles as it goes.

    Args:
        model: takes a batch and gives outputs ``(B, K)``; left as it is. Steps run it in training mode, with its own
            dropout streams and batch statistics, and evaluations in evaluation mode.
        batcher: the training batches; epoch e is ``batcher.epoch(e)``.
        epochs: the most epochs to train.
        loss: weighted by ``sample_mask``.
        optimizer: any of optax, of the parameters by name (see :class:`TrainStep`); by default ``make_optimizer()``.
        evaluate_on: batches whose evaluation decides which epoch is the best.
        metrics: of the evaluation, see :func:`~multimodal_pad.training.evaluate`.
        monitor: the figure of the evaluation that decides: ``"loss"`` or ``"mae"``, of which the lowest is best, or
            another of the metrics, of which the highest is.
        patience: stop after so many epochs without a better evaluation; by default never.
        cache_dir: folder of the persistent compilation cache, see
            :func:`~multimodal_pad.compiling.use_compilation_cache`.
        compiler_options: of XLA, see :class:`~multimodal_pad.compiling.StepTable`.
        strict: forbid compilations of any kind after the warm-up, in all of the process, see
            :func:`~multimodal_pad.compiling.forbid_compiles`.
        checkpoints: where the run is saved after each epoch; where it holds a run already, that is what goes on.
        save_every: save after so many steps too.
        devices: share the rows of each batch, in all processes; by default all of them. In several processes
            give each the same batcher: it takes its own shard. With several devices the batchers that are given stay
            where they stand. Packed batches need a plan whose ``shares`` the devices divide.
        progress: show a bar.

    Raises:
        CompileError: something compiles after the warm-up, and ``strict`` is given.
        TrainingError: a model without parameters, a step that changes shapes or dtypes of the state, fewer than 1
            epoch, patience or a figure to monitor without evaluation, a figure that the evaluation does not have, a
            loss that is not finite (named by epoch and step), metrics without scikit-learn, ``strict`` for a policy
            without a finite set of shapes, ``save_every`` without checkpoints, a batcher that was restored, checkpoints
            that are damaged, of another model, evaluation set or figure to monitor, or that can't be written, rows that
            the devices don't divide, or processes that differ, in what they are given or in a batch. (That the learning
            rate is another one is not noticed.)
        PaddingError: checkpoints of a run on another dataset, plan or order (what differs is named).
        OSError: the folder of the checkpoints can't be made.

    Warns:
        CheckpointWarning: a checkpoint is damaged, and skipped.

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
    if monitor != "loss" and evaluate_on is None:
        raise TrainingError(f"got monitor={monitor!r}, a figure of the evaluation, without evaluate_on")
    if save_every is not None and (save_every < 1 or checkpoints is None):
        raise TrainingError(f"got save_every={save_every}; it is a number of steps, at least 1, with checkpoints given")
    endless = [b.policy for b in (batcher, evaluate_on) if b is not None and not b.policy.finite]
    if strict and endless:
        raise TrainingError(
            f"got strict for {endless[0]!r}, which compiles as it goes; choose a policy with few shapes"
        )
    if evaluate_on is not None and (metrics in NEED_SCIKIT_LEARN or (metrics is None and loss is cross_entropy)):
        require_scikit_learn()  # now, and not after the first epoch
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    if batcher.resumes:
        raise TrainingError(
            f"got a batcher that was restored to {batcher.position}; fit goes on by checkpoints: give it a new "
            "batcher, and checkpoints of the run"
        )
    progress = progress and jax.process_index() == 0
    mesh = DataMesh(devices) if devices is not None or jax.device_count() > 1 else None
    step = TrainStep(model, optimizer or make_optimizer(), loss, mesh=mesh and mesh.mesh)
    settings = {
        "evaluate_on": None if evaluate_on is None else _identity(evaluate_on),
        "monitor": monitor,
    }
    made_of = None if checkpoints is None else {MADE_OF: describe_run(model, batcher)}
    spread: dict[str, Any] = {}
    state = step.state
    del step.state  # the steps donate it: whoever held on to the first one would hold its memory
    # The model of the best epoch: a copy on the host, where it needs no program and no device memory, since the next
    # step donates the state.
    best = None if evaluate_on is None else host_copies(_model_part(state))
    if mesh is not None:
        batcher = mesh.share(batcher, "batcher")
        evaluate_on = None if evaluate_on is None else mesh.share(evaluate_on, "evaluate_on")
        if jax.process_count() > 1:
            arrays = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
            mesh.check_agreed(
                {
                    "the initial parameters or the optimizer": arrays,
                    "the batcher": _identity(batcher),
                    "the samples": [str((x.shape, x.dtype)) for x in jax.tree.leaves(_kind_of_batches(batcher))],
                    "the settings": {**settings, "epochs": epochs, "patience": patience, "save_every": save_every},
                    "the checkpoints": checkpoints is not None,
                }
            )
        mesh.prepare(batcher.policy.modalities)
        state = mesh.place_state(state)
        spread = {"in_shardings": (mesh.state_sharding, mesh.batch_sharding), "out_shardings": mesh.state_sharding}
    train_table = StepTable(step.train_step, donate_state=True, compiler_options=compiler_options, **spread)
    eval_table = StepTable(step.eval_step, compiler_options=compiler_options, **spread)
    finite = [
        (table, batches.spec(count))
        for table, batches, count in ((train_table, batcher, epochs), (eval_table, evaluate_on, 1))
        if batches is not None and batches.policy.finite
    ]
    if finite:
        warm_up_all(finite, state, progress=progress)
    run = Run()
    saved = None
    if checkpoints is not None:
        saved = checkpoints.restore(_saved(state, best), check=lambda record: check_settings(record, settings))
    if saved is not None:
        run, arrays = Run.from_record(saved.record), dict(saved.state)
        best = arrays.pop("best", None)
        state = TrainState(**arrays)
        batcher.restore(saved.record["batcher"])
        del saved, arrays

    def save(loss: float | None = None) -> None:
        if checkpoints is not None:
            record = {**run.to_record(batcher, settings), **(made_of or {})}
            checkpoints.save(run.steps, _saved(state, best), record, loss=loss)

    watch = nullcontext() if mesh is None else mesh.watch()
    with forbid_compiles() if strict else nullcontext() as guard, watch, _bar(progress) as show:
        while run.epoch < epochs and not run.stale(patience):
            started = time.perf_counter() - run.seconds
            batches = batcher.epoch(run.epoch) if mesh is None else mesh.epoch(batcher, run.epoch)
            steps = len(batcher.schedule(run.epoch))
            for batch in batches:
                state, measured = train_table(state, batch)
                if guard is not None:
                    guard.check()
                run.dispatched(measured)
                show(run, steps)
                if save_every and run.steps % save_every == 0 and run.step < steps:
                    run.settle()
                    run.seconds = time.perf_counter() - started
                    save()
            run.settle()
            evaluation = {} if evaluate_on is None else evaluate(eval_table, state, evaluate_on, mesh, metrics=metrics)
            if run.end_epoch(time.perf_counter() - started, evaluation, monitor) and evaluate_on is not None:
                best = host_copies(_model_part(state))
            save(score(evaluation, monitor) if evaluation else None)
    if checkpoints is not None:
        checkpoints.wait()
    return FitResult(step.model(state if best is None else state._replace(**best)), run.history, run.best_epoch)


def _model_part(state: TrainState) -> dict[str, Arrays]:
    """What a model is made of again."""
    return {"params": state.params, "rest": state.rest}


def _saved(state: TrainState, best: dict[str, Arrays] | None) -> dict[str, Any]:
    """What a checkpoint holds: names to find in it are those of the state, and ``best``."""
    return state._asdict() if best is None else {**state._asdict(), "best": best}


def _identity(batcher: BucketBatcher) -> dict[str, Any]:
    """What a batcher is of, wherever it stands."""
    return {name: value for name, value in batcher.state().items() if name not in ("epoch", "step")}


def _kind_of_batches(batcher: BucketBatcher) -> Batch:
    """Feature shapes, dtypes and targets of a batcher's batches, at the smallest batch shape of their layout."""
    modalities = batcher.policy.modalities
    return batch_struct(batcher.example(), BatchShape.of(1, dict.fromkeys(modalities, 1), batcher.policy.layout))


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[Run, int], None]]:
    """A bar for the steps of the current epoch, with the mean loss so far."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("training", total=None)

        def show(run: Run, steps: int) -> None:
            bar.update(task, description=f"epoch {run.epoch}  loss {run.loss:.4f}", completed=run.step, total=steps)

        yield show
