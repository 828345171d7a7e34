"""The epochs of one training: its steps, evaluations and checkpoints, up to its end or to where it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from multimodal_pad.compiling import CompileGuard, StepTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.spans import EVALUATE, SAVE, STEP, span
from multimodal_pad.training.callbacks import Listeners
from multimodal_pad.training.evaluation import evaluate_batches
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.limits import Limits
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import Metrics
from multimodal_pad.training.progress import Watched
from multimodal_pad.training.run import Run, check_same, score
from multimodal_pad.training.state import Arrays, TrainState, host_copies
from multimodal_pad.training.stopping import Interrupted, Stop
from multimodal_pad.training.supply import Supply

if TYPE_CHECKING:  # Orbax takes a second to import
    from multimodal_pad.training.checkpoint import Checkpoints


@dataclass
class Epochs:
    """One training, from a state on.

    Attributes:
        state: as it is now; steps donate it.
        train: the training batches, of this process.
        evaluate_on: those of the evaluation.
        train_table: of the train step.
        eval_table: of the evaluation step.
        mesh: devices that share the rows.
        stop: ends it early.
        listeners: its callbacks.
        checkpoints: the folder to save in.
        save_every: after how many steps, beside the ends of epochs.
        settings: compared with those of a checkpoint.
        made_of: the description of the model and its batches in checkpoints.
        metrics: of the evaluation.
        train_limits: limits of the values in training batches.
        eval_limits: limits of the values in evaluation batches.
        monitor: the figure of the evaluation that decides.
        best: the model of the best epoch, on the host, where it needs no program and no device memory, since the next
            step donates the state.
        evaluated_part: takes the part of a state that is evaluated, and kept of the best; compiles nothing.
        run: the position and the history.
    """

    state: TrainState
    train: Feed
    evaluate_on: Feed | None
    train_table: StepTable
    eval_table: StepTable
    mesh: DataMesh | None
    stop: Stop
    listeners: Listeners
    checkpoints: Checkpoints | None
    save_every: int | None
    settings: dict[str, Any]
    made_of: dict[str, Any]
    metrics: Metrics | None
    monitor: str
    best: dict[str, Arrays] | None
    evaluated_part: Callable[[TrainState], dict[str, Arrays]]
    run: Run
    train_limits: Limits | None = None
    eval_limits: Limits | None = None

    def __post_init__(self) -> None:
        self._saved_at: int | None = None

    def check_saved(self) -> None:
        """Raise where the last checkpoint is of another run, as :meth:`restore` does, before anything is compiled."""
        if self.checkpoints is None:
            return

        def check(record: dict[str, Any]) -> None:
            self._check_record(record, warn=False)  # restore warns
            self.train.check_state(record["batcher"])

        self.checkpoints.check(saved_arrays(self.state, self.best), check=check)

    def restore(self) -> None:
        """Go on from the last checkpoint, where there is one."""
        if self.checkpoints is None:
            return
        saved = self.checkpoints.restore(saved_arrays(self.state, self.best), check=self._check_record)
        if saved is None:
            return
        self.run, arrays = Run.from_record(saved.record), dict(saved.state)
        self.best = arrays.pop("best", None)
        self.state = TrainState(**arrays)
        self.train.restore(saved.record["batcher"])
        self._saved_at = saved.step

    def train_for(self, epochs: int, patience: int | None, shown: Watched, guard: CompileGuard | None) -> None:
        """Train up to so many epochs.

        Raises:
            Interrupted: a signal has come; everything is saved that can be gone on from.
        """
        if self.listeners["on_step"]:
            self.run.on_settled = self.listeners.steps
        while self.run.epoch < epochs and not self.run.stale(patience):
            began = self.run.begin()
            try:
                try:
                    if not self.run.ended:
                        self._train_epoch(began, shown, guard)
                finally:
                    self.run.tell()  # also the last steps before an error
                evaluation, evaluated_in = self._evaluate()
            except Interrupted:
                self._save_where_it_stands(time.perf_counter() - began)
                raise
            self._end_epoch(time.perf_counter() - began, evaluation, evaluated_in)
            record = self.run.history[-1]
            shown.epoch(record)
            self.listeners.epoch(record)
            self._save(score(evaluation, self.monitor) if evaluation else None)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Wait at the end, or where a signal ends the block, until all that was saved is written."""
        try:
            yield
        except Interrupted:
            self._wait()
            raise
        self._wait()

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the checkpoint that the run can go on from."""
        if self.checkpoints is None or self._saved_at is None:
            return None
        return self.checkpoints.directory / str(self._saved_at)

    @property
    def lost_steps(self) -> int:
        """Steps since that checkpoint."""
        return self.run.steps - (self._saved_at or 0)

    def _train_epoch(self, began: float, shown: Watched, guard: CompileGuard | None) -> None:
        run, table, save_every = self.run, self.train_table, self.save_every
        steps = self.train.steps(run.epoch)
        supply = Supply(self.train, self.mesh, self.stop, self.train_limits)
        compiled, annotation = len(table), jax.profiler.StepTraceAnnotation
        for batch in supply.epoch(run.epoch, run.step):
            with span(STEP, annotation, step_num=run.steps, shape=supply.fed.shape):
                self.state, measured = table(self.state, batch)
            if guard is not None:
                guard.check()
            if len(table) > compiled:
                self._tell_compiled(table, compiled)
                compiled = len(table)
            run.dispatched(measured, supply.fed)
            shown.step(run, steps)
            if save_every and run.steps % save_every == 0 and run.step != steps:
                run.settle()
                run.seconds = time.perf_counter() - began
                self._save()
        run.settle()
        if not run.step:
            raise TrainingError(f"epoch {run.epoch} has no batches; give samples that a bucket holds")
        run.ended = True

    def _evaluate(self) -> tuple[dict[str, float], float]:
        """Return the evaluation, and its seconds."""
        if self.evaluate_on is None:
            return {}, 0.0
        began, compiled = time.perf_counter(), len(self.eval_table)
        batches = Supply(self.evaluate_on, self.mesh, self.stop, self.eval_limits).epoch(0)
        with span(EVALUATE):
            figures = evaluate_batches(self.eval_table, self.state, batches, metrics=self.metrics)
        self._tell_compiled(self.eval_table, compiled)
        return figures, time.perf_counter() - began

    def _end_epoch(self, seconds: float, evaluation: dict[str, float], evaluated_in: float) -> None:
        better = self.run.end_epoch(seconds, evaluation, self.monitor, evaluated_in=evaluated_in)
        if better and self.best is not None:
            self.best = host_copies(self.evaluated_part(self.state))

    def _save_where_it_stands(self, seconds: float) -> None:
        """Save so that the run goes on from here, if its batches can."""
        self.run.settle()
        self.run.seconds = seconds
        if (self.train.resumes_in_epochs or self.run.ended) and self.run.steps != (self._saved_at or 0):
            self._save()

    def _save(self, loss: float | None = None) -> None:
        if self.checkpoints is None:
            return
        run, arrays = self.run, saved_arrays(self.state, self.best)
        record = {**run.to_record(self.train.state(run.epoch, run.step), self.settings), **self.made_of}
        with span(SAVE):
            self.checkpoints.save(run.steps, arrays, record, loss=loss, replace=run.steps == self._saved_at)
        self._saved_at = run.steps

    def _check_record(self, record: dict[str, Any], *, warn: bool = True) -> None:
        where = f"the run in {self.checkpoints.directory}" if self.checkpoints is not None else ""
        check_same(record, self.settings, self.made_of, where, warn=warn)

    def _wait(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _tell_compiled(self, table: StepTable, known: int) -> None:
        for shape, step in list(table.steps.items())[known:]:
            self.listeners.compiled(table, shape, step)


def model_part(state: TrainState) -> dict[str, Arrays]:
    """Return the arrays that a model is made of again."""
    return {"params": state.params, "rest": state.rest}


def saved_arrays(state: TrainState, best: dict[str, Arrays] | None) -> dict[str, Any]:
    """Return the arrays of a checkpoint: those of the state, by its names, and ``best``."""
    return state._asdict() if best is None else {**state._asdict(), "best": best}
