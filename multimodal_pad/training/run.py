"""The state of a training run: what its progress bar shows, and what a checkpoint keeps beside the arrays."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.training.described import MADE_OF
from multimodal_pad.training.history import EpochRecord, History
from multimodal_pad.training.identity import IDENTITY, STRUCTURE, check_identity, check_structure
from multimodal_pad.training.measured import StepMetrics

_IN_FLIGHT = 4
"""Steps dispatched ahead of the device: each holds its batch in host memory until it has run."""

TOLD_SECONDS = 0.05
"""Seconds for which steps are gathered before callbacks get them. One by one takes far longer, since the step in
between takes the caches."""

LOWER_IS_BETTER = ("loss", "mae")
"""Figures of an evaluation that are errors; of all others a higher one is better."""


class Fed(NamedTuple):
    """The batch that a step was given.

    Attributes:
        shape: batch shape, in words.
        real: real positions.
        padded: positions.
        waited: seconds that the loop waited for the batch.
    """

    shape: str
    real: int
    padded: int
    waited: float


class Settled(NamedTuple):
    """A step that has run.

    Attributes:
        epoch: its epoch.
        step: its number in the epoch, from 0.
        steps: steps of the run up to it, itself included.
        fed: its batch.
        samples: real samples.
        loss: mean over the samples.
        figures: its other figures, by name.
        metrics: metrics of the loss, by name.
        seconds: since the step before.
    """

    epoch: int
    step: int
    steps: int
    fed: Fed
    samples: int
    loss: float
    figures: dict[str, float]
    metrics: dict[str, float]
    seconds: float


@dataclass
class Run:
    """The position of a run, and its figures so far.

    Attributes:
        epoch: the current epoch.
        step: the next step of it.
        steps: steps of all epochs so far.
        ended: whether all steps of the epoch have run, and its evaluation comes next.
        loss_sum: losses of the current epoch, each times its weight.
        weight: of the losses of the current epoch: real samples, positions, or whatever else they are means over.
        metric_sums: the same of the metrics, by name.
        samples: samples of the current epoch.
        seconds: of the current epoch, up to the last checkpoint.
        waited: seconds of these in which the loop waited for batches.
        real: real positions of the current epoch.
        padded: positions of the current epoch.
        shapes: batch shapes of the current epoch.
        best_epoch: the epoch with the best evaluation, or the last one as long as none could be scored.
        best_score: its :func:`score`.
        history: a record per epoch that is over.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    ended: bool = False
    loss_sum: float = 0.0
    weight: float = 0.0
    metric_sums: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    real: int = 0
    padded: int = 0
    shapes: list[str] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float | None = None
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self._in_flight: deque[tuple[int, int, StepMetrics, Fed]] = deque()
        # The CPU's arrays can be read at once; from other devices, an early request saves waiting later.
        self._ask_early = jax.default_backend() != "cpu"
        self._seen = set(self.shapes)
        self._since = self._told_at = time.perf_counter()
        self._untold: list[Settled] = []
        self.on_settled: Callable[[list[Settled]], None] | None = None

    @property
    def loss(self) -> float:
        """Mean of the current epoch, over the steps that have run."""
        return _mean(self.loss_sum, self.weight)

    def begin(self) -> float:
        """Return the moment at which the current epoch would have begun, had it not been interrupted."""
        self._since = time.perf_counter()
        return self._since - self.seconds

    def dispatched(self, metrics: StepMetrics, fed: Fed) -> None:
        """Record that one more step is on its way, and wait for those of a few steps ago."""
        if self._ask_early:
            for x in jax.tree.leaves(metrics):
                x.copy_to_host_async()
        self.steps += 1
        self._in_flight.append((self.step, self.steps, metrics, fed))
        self.step += 1
        if len(self._in_flight) > _IN_FLIGHT:
            self._settle_one()

    def settle(self) -> None:
        """Wait for every step on its way.

        Raises:
            TrainingError: a loss is not finite, named by its step.
        """
        while self._in_flight:
            self._settle_one()
        self.tell()

    def tell(self) -> None:
        """Pass the steps that have run since the last time on to the callbacks."""
        untold, self._untold = self._untold, []
        if self.on_settled is not None and untold:
            self.on_settled(untold)
        self._told_at = time.perf_counter()

    def end_epoch(
        self, seconds: float, evaluation: dict[str, float], monitor: str = "loss", *, evaluated_in: float = 0.0
    ) -> bool:
        """Close the epoch, and decide whether it is the best so far (without evaluation the last always is).

        Args:
            seconds: of the epoch.
            evaluation: its figures; empty where there is none.
            monitor: the one that decides.
            evaluated_in: how many of the seconds the evaluation took.

        Raises:
            TrainingError: the evaluation's loss is not finite, or it has no such figure to monitor.
        """
        if not math.isfinite(evaluation.get("loss", 0.0)):
            raise _not_finite(f"epoch {self.epoch}, evaluation", evaluation["loss"])
        found = score(evaluation, monitor) if evaluation else None
        better = self.best_score is None or (found is not None and found < self.best_score)
        self.history.append(
            EpochRecord(
                self.epoch,
                self.loss,
                seconds,
                evaluation,
                metrics={name: _mean(total, self.weight) for name, total in self.metric_sums.items()},
                best=better,
                steps=self.steps,
                samples_per_second=self.samples / max(seconds - evaluated_in, 1e-9),
                wait_seconds=self.waited,
                shapes=len(self.shapes),
                padding_efficiency=self.real / max(1, self.padded),
            )
        )
        if better:
            self.best_epoch, self.best_score = self.epoch, found
        fresh = Run()
        kept = ("steps", "best_epoch", "best_score", "history")
        vars(self).update({name: getattr(fresh, name) for name in _FIELDS if name not in kept})
        self._seen = set()
        self.epoch = self.history[-1].epoch + 1
        return better

    def stale(self, patience: int | None) -> bool:
        """Return whether the last ``patience`` epochs were all worse than the best."""
        return patience is not None and bool(self.history) and self.history[-1].epoch - self.best_epoch >= patience

    def to_record(self, batches: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Return the run as JSON values, with the batches' state at this step, and the settings that it depends on."""
        record = {**asdict(self), "batcher": batches, "settings": settings}
        record["history"] = [asdict(epoch) for epoch in self.history]
        for epoch in record["history"]:  # JSON has no NaN, which a metric can be
            for figures in _FIGURES:
                epoch[figures] = {name: _spell(figure) for name, figure in epoch[figures].items()}
        return {**record, "metric_sums": {name: _spell(total) for name, total in self.metric_sums.items()}}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Run:
        """Make the run that :meth:`to_record` wrote, or that of an older version."""
        values = {name: value for name, value in record.items() if name in _FIELDS}
        values.setdefault("weight", float(record["samples"]))
        history = [
            EpochRecord(**{**epoch, **{name: _read(epoch.get(name, {})) for name in _FIGURES}})
            for epoch in record["history"]
        ]
        sums = _read(record.get("metric_sums", {}))
        return cls(**{**values, "history": History(history), "metric_sums": sums})

    def _settle_one(self) -> None:
        step, steps, metrics, fed = self._in_flight.popleft()
        # One read each, without a copy: float(x) takes five times as long.
        found: dict[str, Any] = {name: _number(x) for name, x in metrics._asdict().items() if isinstance(x, jax.Array)}
        named = {name: _number(x) for name, x in metrics.metrics.items()}
        loss, samples = found.pop("loss"), found.pop("samples")
        if not math.isfinite(loss):
            raise _not_finite(f"epoch {self.epoch}, step {step}", loss)
        weight = found["weight"]
        self.loss_sum += loss * weight
        self.weight += weight
        for name, value in named.items():
            self.metric_sums[name] = self.metric_sums.get(name, 0.0) + value * weight
        self.samples += samples
        self.real += fed.real
        self.padded += fed.padded
        self.waited += fed.waited
        if fed.shape not in self._seen:
            self._seen.add(fed.shape)
            self.shapes.append(fed.shape)
        if self.on_settled is not None:
            before, self._since = self._since, time.perf_counter()
            seconds = max(self._since - before, 1e-9)
            self._untold.append(Settled(self.epoch, step, steps, fed, samples, loss, found, named, seconds))
            if self._since - self._told_at > TOLD_SECONDS:
                self.tell()


_FIELDS = tuple(Run.__dataclass_fields__)
_FIGURES = ("evaluation", "metrics")
"""Fields of an epoch's record that hold figures by name."""


def check_same(
    record: dict[str, Any], settings: dict[str, Any], here: dict[str, Any], where: str, *, warn: bool = True
) -> None:
    """Check that a record is of this run: its settings, its model, its loss and its optimizer.

    Args:
        record: of the checkpoint.
        settings: of the run, as for :meth:`Run.to_record`.
        here: the other parts of its own record.
        where: names the run and its folder, for errors.
        warn: whether to warn where not all can be compared.

    Raises:
        TrainingError: names what differs.

    Warns:
        CheckpointWarning: the record is of an older version of this package, which lacks parts of it.
    """
    check_settings(record, settings)
    if IDENTITY not in record:
        if warn:
            warnings.warn(
                f"{where} is of an older version of multimodal_pad, which doesn't say what model, loss and optimizer "
                "it is of: names, shapes and dtypes of arrays are compared, and nothing else is",
                CheckpointWarning,
                stacklevel=2,
            )
        return
    saved, libraries = record[IDENTITY], record[IDENTITY].get("libraries", {})
    there, ours = (each.get(MADE_OF, {}).get("model", {}).get(STRUCTURE, {}) for each in (record, here))
    check_structure(there, ours, where, libraries, training=True)
    check_identity(saved, here[IDENTITY], where)


def check_settings(record: dict[str, Any], settings: dict[str, Any]) -> None:
    """Check that :meth:`Run.to_record` was given the same settings.

    Raises:
        TrainingError: names those that differ.
    """
    different = [name for name, value in settings.items() if record["settings"].get(name) != value]
    if different:
        raise TrainingError(
            f"the checkpoints are of a run with another {' and another '.join(different)}; go on with the same, or "
            "name another folder"
        )


def _number(x: jax.Array) -> Any:
    return np.asarray(x).item()


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else 0.0


def _spell(figure: float) -> float | str:
    return figure if math.isfinite(figure) else str(figure)


def _read(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(figure) for name, figure in figures.items()}


def score(evaluation: dict[str, float], monitor: str) -> float | None:
    """Return the monitored figure, so that lower is better; None where it is NaN or inf, as a correlation can be.

    >>> score({"loss": 2.0}, "loss"), score({"loss": 2.0, "weighted_f1": 0.5}, "weighted_f1")
    (2.0, -0.5)
    """
    if monitor not in evaluation:
        raise TrainingError(f"got monitor={monitor!r}; the evaluation has {list(evaluation)}")
    figure = evaluation[monitor] if monitor in LOWER_IS_BETTER else -evaluation[monitor]
    return figure if math.isfinite(figure) else None


def _not_finite(where: str, loss: float) -> TrainingError:
    return TrainingError(
        f"{where}: the loss is {loss}; look for targets that the loss doesn't take (class numbers outside 0 to the "
        "number of outputs - 1, such as -1 or -100, NaN), for token ids outside 0 to vocabulary_size - 1, and for NaN "
        "and inf in the features with check_finite=True, or lower the learning rate"
    )
