"""The progress of a training: a bar on a terminal, and where the output is piped, a line per epoch."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.training.history import EpochRecord, in_short
from multimodal_pad.training.run import Run


class Watched:
    """The display of a run, within a block.

    Args:
        shown: whether it shows anything.
    """

    def __init__(self, shown: bool) -> None:
        console = Console()
        on_a_terminal = console.is_terminal or console.is_jupyter
        columns = MofNCompleteColumn, TimeRemainingColumn
        self._bar = progress_bars(*columns, console=console) if shown and on_a_terminal else None
        self._task = self._bar.add_task("training", total=None) if self._bar is not None else None
        self._lines = shown and not on_a_terminal

    def __enter__(self) -> Watched:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, run: Run, steps: int | None) -> None:
        """Show the steps of the current epoch, with the mean loss so far."""
        if self._bar is not None and self._task is not None:
            now = f"epoch {run.epoch}  loss {run.loss:.4f}"
            self._bar.update(self._task, description=now, completed=run.step, total=steps)

    def epoch(self, record: EpochRecord) -> None:
        """Print a line for the epoch that is over."""
        if self._lines:
            print(epoch_line(record), flush=True)


def epoch_line(record: EpochRecord) -> str:
    """Sum up an epoch in a line.

    >>> epoch_line(EpochRecord(3, 0.69312, 12.34, {"loss": 0.5512, "accuracy": 0.75}, best=True))
    'epoch 3  train_loss 0.6931  eval_loss 0.5512  eval_accuracy 0.75  12.3 s  best so far'
    """
    figures = {"train_loss": record.train_loss}
    figures |= {f"train_{name}": figure for name, figure in record.metrics.items()}
    figures |= {f"eval_{name}": figure for name, figure in record.evaluation.items()}
    parts = [f"epoch {record.epoch}", *(f"{name} {in_short(figure)}" for name, figure in figures.items())]
    best = ["best so far"] if record.best and record.evaluation else []
    return "  ".join([*parts, f"{record.seconds:.1f} s", *best])
