"""The record of a training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from multimodal_pad.text_table import text_table


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training. A figure that is not known is None, as in epochs that an older version saved.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean over the samples, while the parameters moved.
        seconds: wall time of the epoch, evaluation included, the warm-up before the first one not.
        evaluation: loss and metrics on the evaluation set; empty where there is none.
        metrics: of the training, by name: means like ``train_loss``; empty where the loss has no metrics.
        best: whether its evaluation was the best so far.
        steps: steps of the run at its end.
        samples_per_second: over the seconds without the evaluation.
        wait_seconds: for which the loop waited for batches.
        shapes: how many batch shapes it used.
        padding_efficiency: real positions / positions computed on, all modalities together.

    >>> record = EpochRecord(epoch=0, train_loss=1.61, seconds=12.5, evaluation={"loss": 1.42, "accuracy": 0.48})
    >>> record.evaluation["accuracy"]
    0.48
    """

    epoch: int
    train_loss: float
    seconds: float
    evaluation: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best: bool = False
    steps: int = 0
    samples_per_second: float | None = None
    wait_seconds: float | None = None
    shapes: int = 0
    padding_efficiency: float | None = None

    def figures(self) -> dict[str, float]:
        """Return the known figures on one level: ``train_<name>`` of the training, ``eval_<name>`` of the other."""
        figures = {
            "epoch": self.epoch,
            "steps": self.steps,
            "train_loss": self.train_loss,
            **{f"train_{name}": figure for name, figure in self.metrics.items()},
            **{f"eval_{name}": figure for name, figure in self.evaluation.items()},
            "best": self.best,
            "seconds": self.seconds,
            "wait_seconds": self.wait_seconds,
            "samples_per_second": self.samples_per_second,
            "shapes": self.shapes,
            "padding_efficiency": self.padding_efficiency,
        }
        return {name: figure for name, figure in figures.items() if figure is not None}


class History(list[EpochRecord]):
    """The records of all epochs; printed, it is a table in which a star marks the best epoch.

    Args:
        records: of the epochs, in order.

    >>> first = EpochRecord(0, 1.21, 30.0, {"loss": 1.1}, best=True, samples_per_second=812.3, padding_efficiency=0.91)
    >>> second = EpochRecord(1, 0.74, 9.0, {"loss": 1.3}, samples_per_second=2707.7, padding_efficiency=0.91)
    >>> print(History([first, second]))
    epoch     train_loss  eval_loss  seconds  samples/s  real
        0  *        1.21        1.1     30.0        812   91%
        1           0.74        1.3      9.0      2,708   91%
    """

    def __init__(self, records: Iterable[EpochRecord] = ()) -> None:
        super().__init__(records)

    def __str__(self) -> str:
        if not self:
            return "no epochs"
        trained = dict.fromkeys(name for record in self for name in record.metrics)
        evaluated = dict.fromkeys(name for record in self for name in record.evaluation)
        starred = [place for place, record in enumerate(self) if record.best and record.evaluation]
        heading = ["epoch", " ", "train_loss", *(f"train_{name}" for name in trained)]
        heading += [*(f"eval_{name}" for name in evaluated), "seconds", "samples/s", "real"]
        body = [
            [
                str(record.epoch),
                "*" if place in starred[-1:] else " ",
                in_short(record.train_loss),
                *(in_short(record.metrics.get(name)) for name in trained),
                *(in_short(record.evaluation.get(name)) for name in evaluated),
                f"{record.seconds:.1f}",
                _unless_unknown(record.samples_per_second, "{:,.0f}"),
                _unless_unknown(record.padding_efficiency, "{:.0%}"),
            ]
            for place, record in enumerate(self)
        ]
        return "\n".join(text_table(heading, body, keys=2))


def in_short(figure: float | None) -> str:
    """Format a figure with four digits.

    >>> in_short(0.000123456), in_short(12.0), in_short(None)
    ('0.0001235', '12', '-')
    """
    return "-" if figure is None else f"{figure:.4g}"


def _unless_unknown(figure: float | None, form: str) -> str:
    return "-" if figure is None else form.format(figure)
