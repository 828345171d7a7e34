"""How far a training run has come: what its progress bar shows, and what a checkpoint keeps beside the arrays."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.errors import TrainingError
from multimodal_pad.training.step import StepMetrics

_IN_FLIGHT = 4
"""Steps dispatched ahead of the device: each holds its batch in host memory until it has run."""

LOWER_IS_BETTER = ("loss", "mae")
"""Figures of an evaluation that are errors; of all others a higher one is better."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean over the samples, while the parameters moved.
        seconds: wall time of the epoch, evaluation included, the warm-up before the first one not.
        evaluation: loss and metrics on the evaluation set; empty where there is none.

    >>> record = EpochRecord(epoch=0, train_loss=1.61, seconds=12.5, evaluation={"loss": 1.42, "accuracy": 0.48})
    >>> record.evaluation["accuracy"]
    0.48
    """

    epoch: int
    train_loss: float
    seconds: float
    evaluation: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """Where a run stands.

    Attributes:
        epoch: the current epoch.
        step: the next step of it.
        steps: steps of all epochs so far.
        loss_sum: losses of the current epoch, each times its number of samples.
        samples: samples of the current epoch.
        seconds: of the current epoch, up to the last checkpoint.
        best_epoch: the epoch with the best evaluation, or the last one as long as none could be scored.
        best_score: its :func:`score`.
        history: a record per epoch that is over.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_score: float | None = None
    history: list[EpochRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._in_flight: deque[tuple[int, StepMetrics]] = deque()

    @property
    def loss(self) -> float:
        """Mean over the samples of the current epoch whose steps have run."""
        return self.loss_sum / max(1, self.samples)

    def dispatched(self, metrics: StepMetrics) -> None:
        """One more step is on its way; those of a few steps ago are waited for."""
        self._in_flight.append((self.step, metrics))
        self.step += 1
        self.steps += 1
        if len(self._in_flight) > _IN_FLIGHT:
            self._settle_one()

    def settle(self) -> None:
        """Wait for every step on its way.

        Raises:
            TrainingError: a loss is not finite, named by its step.
        """
        while self._in_flight:
            self._settle_one()

    def end_epoch(self, seconds: float, evaluation: dict[str, float], monitor: str = "loss") -> bool:
        """Close the epoch; whether it is the best so far (without evaluation the last always is).

        Raises:
            TrainingError: the evaluation's loss is not finite, or it has no such figure to monitor.
        """
        if not math.isfinite(evaluation.get("loss", 0.0)):
            raise _not_finite(f"epoch {self.epoch}, evaluation", evaluation["loss"])
        self.history.append(EpochRecord(self.epoch, self.loss, seconds, evaluation))
        found = score(evaluation, monitor) if evaluation else None
        better = self.best_score is None or (found is not None and found < self.best_score)
        if better:
            self.best_epoch, self.best_score = self.epoch, found
        self.epoch, self.step, self.loss_sum, self.samples, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        return better

    def stale(self, patience: int | None) -> bool:
        """Whether the last ``patience`` epochs were all worse than the best."""
        return patience is not None and bool(self.history) and self.history[-1].epoch - self.best_epoch >= patience

    def to_record(self, batcher: BucketBatcher, settings: dict[str, Any]) -> dict[str, Any]:
        """All of it as JSON values, with the batcher's state at this step, and what else the run depends on."""
        state = {**batcher.state(), "epoch": self.epoch, "step": self.step}
        record = {**asdict(self), "batcher": state, "settings": settings}
        for epoch in record["history"]:  # JSON has no NaN, which a metric can be
            epoch["evaluation"] = {name: _spell(figure) for name, figure in epoch["evaluation"].items()}
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Run:
        """The run that :meth:`to_record` wrote."""
        names = {each.name for each in fields(cls)}
        values = {name: value for name, value in record.items() if name in names}
        history = [
            EpochRecord(
                **{**epoch, "evaluation": {name: float(figure) for name, figure in epoch["evaluation"].items()}}
            )
            for epoch in record["history"]
        ]
        return cls(**{**values, "history": history})

    def _settle_one(self) -> None:
        step, metrics = self._in_flight.popleft()
        loss, samples = float(metrics.loss), int(metrics.samples)
        if not math.isfinite(loss):
            raise _not_finite(f"epoch {self.epoch}, step {step}", loss)
        self.loss_sum += loss * samples
        self.samples += samples


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


def _spell(figure: float) -> float | str:
    return figure if math.isfinite(figure) else str(figure)


def score(evaluation: dict[str, float], monitor: str) -> float | None:
    """The figure that is monitored, so that lower is better; None where it is NaN or inf, as a correlation can be.

    >>> score({"loss": 2.0}, "loss"), score({"loss": 2.0, "weighted_f1": 0.5}, "weighted_f1")
    (2.0, -0.5)
    """
    if monitor not in evaluation:
        raise TrainingError(f"got monitor={monitor!r}; the evaluation has {list(evaluation)}")
    figure = evaluation[monitor] if monitor in LOWER_IS_BETTER else -evaluation[monitor]
    return figure if math.isfinite(figure) else None


def _not_finite(where: str, loss: float) -> TrainingError:
    return TrainingError(
        f"{where}: the loss is {loss}; lower the learning rate, look for NaN and inf in the features with "
        "check_finite=True, and for token ids outside 0 to vocabulary_size - 1"
    )
