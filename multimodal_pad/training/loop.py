"""A training loop: compiled ahead, evaluated after each epoch, stopped early, gone on with from checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from flax import nnx

from multimodal_pad.compiling import CompilerOptions, StepTable, forbid_compiles, use_compilation_cache
from multimodal_pad.compiling.table import batch_struct
from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.training.any_batches import AnyBatches, as_feed
from multimodal_pad.training.callbacks import Callbacks, Listeners
from multimodal_pad.training.described import MADE_OF, describe_training
from multimodal_pad.training.epochs import Epochs, model_part
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.history import History
from multimodal_pad.training.identity import IDENTITY, describe_identity
from multimodal_pad.training.loss import Loss, cross_entropy
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import (
    NEED_SCIKIT_LEARN,
    Metrics,
    check_metrics,
    require_scikit_learn,
    usual_metrics_of,
)
from multimodal_pad.training.objective import LossFn, WeightFn
from multimodal_pad.training.optimizer import make_optimizer
from multimodal_pad.training.preparing import prepare
from multimodal_pad.training.progress import Watched
from multimodal_pad.training.run import Run
from multimodal_pad.training.state import compiled_for_state, host_copies
from multimodal_pad.training.step import EvalParams, TrainStep
from multimodal_pad.training.stopping import Interrupted, Stop, Stopped, asks_a_person, name_of

if TYPE_CHECKING:  # Orbax takes a second to import
    from multimodal_pad.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class FitResult:
    """The result of :func:`fit`.

    Attributes:
        model: with parameters and statistics of the best epoch, or of the last where nothing was evaluated; in
            evaluation mode.
        history: a record per epoch; ``print(result.history)`` shows a table.
        best_epoch: the epoch that ``model`` is of.

    >>> from multimodal_pad.training import EpochRecord
    >>> history = History([EpochRecord(0, 1.2, 30.0, {"loss": 1.1}), EpochRecord(1, 0.7, 9.0, {"loss": 1.3})])
    >>> result = FitResult(model=None, history=history, best_epoch=0)
    >>> result.history[result.best_epoch].evaluation
    {'loss': 1.1}
    """

    model: Any
    history: History
    best_epoch: int


def fit(
    model: nnx.Module,
    batcher: AnyBatches,
    *,
    epochs: int,
    loss: Loss | None = None,
    loss_fn: LossFn | None = None,
    weight_fn: WeightFn | None = None,
    optimizer: optax.GradientTransformation | optax.MultiSteps | None = None,
    eval_params: EvalParams | None = None,
    seed: int = 0,
    evaluate_on: AnyBatches | None = None,
    metrics: Metrics | None = None,
    monitor: str = "loss",
    patience: int | None = None,
    cache_dir: str | Path | None = None,
    compiler_options: CompilerOptions | None = None,
    strict: bool = False,
    checkpoints: Checkpoints | None = None,
    save_every: int | None = None,
    devices: Sequence[Any] | None = None,
    on_step: Callbacks | None = None,
    on_epoch: Callbacks | None = None,
    on_compile: Callbacks | None = None,
    progress: bool = True,
) -> FitResult:
    """Train, evaluate after each epoch, and stop when evaluation no longer gets better.

    Every batch shape of a policy that has finitely many is compiled before the first step, for training
    and evaluation, and no other is accepted after it. :class:`~multimodal_pad.Exact` compiles as it goes.

    Ctrl-C, SIGTERM (a scheduler's preemption) and SIGHUP (a lost connection) end it after the step under way: with
    ``checkpoints`` the run is saved there, a line on stderr says where it stopped, and :class:`Stopped` ends the
    process with status 130, 143 or 129. The same call then goes on, and comes to what it would have come to. A program
    that is being compiled is waited for, an evaluation is broken off and done again; a second Ctrl-C acts at once. A
    handler of your own stays in its place, and in an interactive session Ctrl-C is a KeyboardInterrupt as ever, once
    all is saved.

    Args:
        model: an ``nnx.Module`` that takes a batch and gives what the loss takes; left as it is. Steps run it in
            training mode, with its own dropout streams and batch statistics, and evaluations in evaluation mode.
        batcher: the training batches: a :class:`~multimodal_pad.BucketBatcher`, whose epoch e is ``batcher.epoch(e)``;
            a :class:`~multimodal_pad.StreamBatcher`, of which an epoch is a pass; or a dataset of
            :mod:`multimodal_pad.grain`. A stream is for one process, and a packed one for one device.
        epochs: the most epochs to train.
        loss: ``(outputs, targets, mask) -> mean`` over samples, or where these have no targets over the positions of
            the one modality that has; by default :func:`~multimodal_pad.training.cross_entropy`.
        loss_fn: in place of it, ``(model, batch) -> loss`` or ``-> (loss, {name: scalar})``, and ``(model, batch,
            rngs)`` for random numbers; see :class:`TrainStep`, as for the next three.
        weight_fn: ``batch -> scalar``, the divisor of a batch's mean; by default the number of real samples,
            or with ``loss`` that of what the mask is of.
        optimizer: any of optax, of the parameters by name (see :class:`TrainStep`); by default ``make_optimizer()``.
        eval_params: ``(opt_state, params) -> params``: the parameters to evaluate and to return, such as an
            average that the optimizer keeps.
        seed: of the random numbers of ``loss_fn``.
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
        checkpoints: the folder to save the run in, after each epoch; a run that is there already goes on.
        save_every: save after so many steps too. Not of a StreamBatcher, which can't go on within a pass.
        devices: share the rows of each batch, in all processes; by default all of them. In several processes
            give each the same batcher: it takes its own shard. With several devices the batchers that are given stay
            where they stand. Packed batches need a plan whose ``shares`` the devices divide.
        on_step: called with a flat dict for each step that has run, for all steps of 0.05 s together; or several
            functions. See :mod:`multimodal_pad.training.logs` for ready ones.
        on_epoch: the same for each epoch, once it is evaluated.
        on_compile: the same for each program, once it is compiled.
        progress: show a bar, or where the output is no terminal, a line per epoch.

    Raises:
        CompileError: something compiles after the warm-up, and ``strict`` is given.
        TrainingError: a model that is none of NNX or has no parameters, ``loss`` and ``loss_fn`` together, a loss that
            is no scalar or finds no targets, a step that changes shapes or dtypes of the state, fewer than 1 epoch,
            patience or a figure to monitor without evaluation, a figure that the evaluation does not have, a loss that
            is not finite (named by epoch and step), metrics that are no function or lack scikit-learn, ``strict`` for a
            policy without a finite set of shapes, ``save_every`` without checkpoints, or with a stream that can't go on
            within a pass, batches of another kind, an iterator that is to be read twice, a batcher that was restored,
            checkpoints that are damaged, of another model, evaluation set or figure to monitor, or that can't be
            written, rows that the devices don't divide, or processes that differ, in what they are given or in a batch.
            (Of the optimizer the kinds of its transformations are compared, and not rates, decays or schedules.)
        SampleError: a sample whose class number, token id or target is out of the range that model and loss take.
        PaddingError: checkpoints of a run on another dataset, plan or order (what differs is named).
        OSError: the folder of the checkpoints can't be made.
        Stopped: Ctrl-C, SIGTERM or SIGHUP.
        Exception: what a callback raises, with a note that names it.

    Warns:
        CheckpointWarning: a checkpoint is damaged, and skipped; or it is of an older version of this package, and
            doesn't say what model it is of.

    >>> from multimodal_pad import BucketBatcher, Ladder
    >>> from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    >>> samples = [{"text": np.arange(1 + i % 3), "targets": i % 2} for i in range(8)]
    >>> config = TransformerConfig({"text": ModalityConfig(vocabulary_size=3)}, num_outputs=2, d_model=8)
    >>> model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
    >>> result = fit(model, BucketBatcher(samples, Ladder({"text": [4]}), batch_size=4), epochs=2, progress=False)
    >>> [record.epoch for record in result.history]
    [0, 1]
    """
    train = as_feed(batcher)
    evaluated = None if evaluate_on is None else as_feed(evaluate_on, "evaluate_on")
    check_metrics(metrics)
    _check_options(train, evaluated, epochs=epochs, patience=patience, monitor=monitor, strict=strict)
    if save_every is not None:
        _check_save_every(save_every, train, checkpoints)
    if loss_fn is None and loss is None:
        loss = cross_entropy
    if evaluate_on is not None and (metrics or usual_metrics_of(loss)) in NEED_SCIKIT_LEARN:
        require_scikit_learn()  # now, and not after the first epoch
    listeners = Listeners(on_step, on_epoch, on_compile)
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    progress = progress and jax.process_index() == 0
    mesh = DataMesh(devices) if devices is not None or jax.device_count() > 1 else None
    optimizer = optimizer or make_optimizer()
    options: dict[str, Any] = {
        "loss": loss,
        "loss_fn": loss_fn,
        "weight_fn": weight_fn,
        "eval_params": eval_params,
        "seed": seed,
    }
    step = TrainStep(model, optimizer, with_outputs=metrics is not None, mesh=mesh and mesh.mesh, **options)
    identity = {"optimizer": optimizer, **options}
    settings = {"evaluate_on": None if evaluated is None else evaluated.identity(), "monitor": monitor}
    made_of: dict[str, Any] = {}
    if checkpoints is not None:
        made_of = {MADE_OF: describe_training(model, train), IDENTITY: describe_identity(identity)}
    spread: dict[str, Any] = {}
    state = step.state
    del step.state  # the steps donate it: a reference to the first state would hold its memory
    keeps_best = evaluated is not None or eval_params is not None
    best = host_copies(model_part(state)) if keeps_best else None
    if mesh is not None:
        train = train.shared(mesh, "batcher")
        evaluated = None if evaluated is None else evaluated.shared(mesh, "evaluate_on")
        if jax.process_count() > 1:
            arrays = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
            mesh.check_agreed(
                {
                    "the initial parameters or the optimizer": arrays,
                    "the batcher": train.identity(),
                    "the samples": _kind_of_batches(train),
                    "the settings": {**settings, "epochs": epochs, "patience": patience, "save_every": save_every},
                    "the checkpoints": checkpoints is not None,
                }
            )
        mesh.prepare(train.policy.modalities)
        state = mesh.place_state(state)
        spread = {"in_shardings": (mesh.state_sharding, mesh.batch_sharding), "out_shardings": mesh.state_sharding}
    evaluated_part = (
        model_part
        if eval_params is None
        else compiled_for_state(lambda state: model_part(step.evaluated(state)), state)
    )
    training = Epochs(
        state,
        train,
        evaluated,
        StepTable(step.train_step, donate_state=True, compiler_options=compiler_options, **spread),
        StepTable(step.eval_step, compiler_options=compiler_options, **spread),
        mesh,
        Stop(),
        listeners,
        checkpoints,
        save_every,
        settings,
        made_of,
        metrics,
        monitor,
        best,
        evaluated_part,
        Run(),
    )
    del state, best
    try:
        with training.stop, nullcontext() if mesh is None else mesh.watch():
            with training.written():
                with training.stop.at_once():
                    training.check_saved()
                with training.stop.compiling():
                    prepare(training, model, None if loss_fn is not None else loss, epochs, progress)
                with training.stop.at_once():
                    training.restore()
                with forbid_compiles() if strict else nullcontext() as guard, Watched(progress) as shown:
                    training.train_for(epochs, patience, shown, guard)
            training.stop.check()
    except Interrupted as interrupted:
        raise _stopped(training, interrupted.signal_number) from None
    state, best, run = training.state, training.best, training.run
    return FitResult(step.model(state if best is None else state._replace(**best)), run.history, run.best_epoch)


def _check_options(
    train: Feed,
    evaluated: Feed | None,
    *,
    epochs: int,
    patience: int | None,
    monitor: str,
    strict: bool,
) -> None:
    """Raise a TrainingError where options make no sense together."""
    if epochs < 1 or (patience is not None and (patience < 1 or evaluated is None)):
        raise TrainingError(
            f"got epochs={epochs} and patience={patience}; epochs must be at least 1, and patience at least 1 "
            "with evaluate_on given"
        )
    if monitor != "loss" and evaluated is None:
        raise TrainingError(
            f"got monitor={monitor!r}, a figure of the evaluation, without evaluate_on; give both or neither"
        )
    endless = [feed.policy for feed in (train, evaluated) if feed is not None and not feed.policy.finite]
    if strict and endless:
        raise TrainingError(
            f"got strict for {endless[0]!r}, which compiles as it goes; choose a policy with few shapes"
        )
    train.check("batcher", epochs=epochs, passes=epochs)
    if evaluated is not None:
        evaluated.check("evaluate_on", epochs=1, passes=epochs)


def _check_save_every(save_every: int, train: Feed, checkpoints: Checkpoints | None) -> None:
    if save_every < 1 or checkpoints is None:
        raise TrainingError(f"got save_every={save_every}; it is a number of steps, at least 1, with checkpoints given")
    if not train.resumes_in_epochs:
        raise TrainingError(
            f"got save_every={save_every} and a StreamBatcher, which can't go on within a pass, so that it is saved at "
            "the end of each; leave save_every out, or give multimodal_pad.grain.StreamIterDataset, which can"
        )


def _stopped(training: Epochs, signal_number: int) -> BaseException:
    """Print where a stopped run stands, and return the exception that ends it."""
    run = training.run
    if jax.process_index() == 0:
        print(_where_it_stopped(training, signal_number), file=sys.stderr, flush=True)
    if asks_a_person(signal_number):
        return KeyboardInterrupt()
    return Stopped(signal_number, run.epoch, run.step, training.checkpoint)


def _where_it_stopped(training: Epochs, signal_number: int) -> str:
    run, lost, folder = training.run, training.lost_steps, training.checkpoint
    where = f"stopped by {name_of(signal_number)} "
    where += "before the first step" if not run.steps else f"at epoch {run.epoch}, step {run.step}"
    if folder is not None and lost:
        return (
            f"{where}; saved in {folder}, {lost} steps before, since a stream can't go on within a pass: the same call "
            "goes on from there"
        )
    if folder is not None:
        return f"{where}; saved in {folder}: the same call goes on from there"
    if training.checkpoints is not None and not run.steps:
        return f"{where} of this call; there was nothing to save"
    if training.checkpoints is not None:
        return f"{where}; nothing is saved, since a stream can't go on within a pass: the same call begins anew"
    return f"{where}; nothing is saved: give fit(checkpoints=...) to go on from where it stops"


def _kind_of_batches(feed: Feed) -> list[str]:
    """Return feature shapes, dtypes and targets of batches by name, at the smallest batch shape of their layout."""
    modalities = feed.policy.modalities
    struct = batch_struct(feed.example(), BatchShape.of(1, dict.fromkeys(modalities, 1), feed.policy.layout))
    leaves = jax.tree_util.tree_leaves_with_path(struct)
    return [f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}" for path, x in leaves]
