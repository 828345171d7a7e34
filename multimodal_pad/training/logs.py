"""Callbacks of :func:`~multimodal_pad.training.fit` that write what they are given: CSV, JSON lines, TensorBoard.

Each takes the records of ``on_step``, ``on_epoch`` or ``on_compile``. Where a training goes on from a checkpoint, give
it the same file: what was logged after the checkpoint, and now comes again, is cut off first.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multimodal_pad.errors import TrainingError
from multimodal_pad.output import write_file


class JsonLinesLog:
    """A log with a JSON object in a line of its own for each record, written at once: a killed run leaves whole lines.

    One file takes the records of all events. What is NaN or infinite is null.

    Args:
        path: of the file; its folder is made where there is none. Where it exists, it is taken to be of the same run:
            lines of the step that comes first now, and of later ones, are cut off, and the others stay.

    Raises:
        OSError: the file can't be written (when the first record comes).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = JsonLinesLog(Path(folder, "run.jsonl"))
    ...     log({"event": "step", "steps": 1, "loss": 0.5})
    ...     print(Path(folder, "run.jsonl").read_text(), end="")
    {"event": "step", "steps": 1, "loss": 0.5}
    """

    def __init__(self, path: str | Path) -> None:
        self._file = _Lines(Path(path))
        self._cut: bool | None = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write a line."""
        self.all_of([record])

    def all_of(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a line for each record, all at once."""
        for record in records:
            self._begin(record)
        self._file.write("\n".join(map(_object, records)))

    def _begin(self, record: Mapping[str, Any]) -> None:
        """Cut off what comes again, at the first record that has a step; compilations before it have none."""
        if self._cut:
            return
        if "steps" in record:
            self._file.keep(lambda lines: [line for line in lines if not _comes_again(_parsed(line), record)])
        elif self._cut is None:
            self._file.keep(list)
        self._cut = "steps" in record


class CsvLog:
    """A log with a row for each record of one event, written at once, under the names of the first record.

    Give each event a file of its own, since its records have names of their own.

    Args:
        path: of the file; its folder is made where there is none. Where it exists, it is taken to be of the same run:
            rows of the step that comes first now, and of later ones, are cut off, and the others stay.

    Raises:
        TrainingError: a record has a name that the first one did not have, or is of another event, or the file that is
            there has other columns (when it comes).
        OSError: the file can't be written (when the first record comes).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CsvLog(Path(folder, "epochs.csv"))
    ...     log({"event": "epoch", "epoch": 0, "steps": 7, "train_loss": 0.5})
    ...     log({"event": "epoch", "epoch": 1, "steps": 14, "train_loss": 0.25})
    ...     print(Path(folder, "epochs.csv").read_text(), end="")
    event,epoch,steps,train_loss
    epoch,0,7,0.5
    epoch,1,14,0.25
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file = _Lines(self._path)
        self._columns: list[str] = []
        self._event: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write a row."""
        if not self._columns:
            self._begin(record)
        if record.get("event") != self._event or not record.keys() <= set(self._columns):
            new = [name for name in record if name not in self._columns]
            raise TrainingError(
                f"{self._path}: got a record of {record.get('event')!r} with {new or 'no new names'}, and the columns "
                f"are those of {self._event!r}: {self._columns}; give each event its own file, or take JsonLinesLog"
            )
        self._file.write(_row(record.get(name, "") for name in self._columns))

    def _begin(self, record: Mapping[str, Any]) -> None:
        columns = list(record)

        def kept(lines: list[str]) -> list[str]:
            there = next(csv.reader(lines[:1]), [])
            rows = zip(lines[1:], csv.DictReader(lines[1:], there), strict=True)
            left = [line for line, row in rows if not _comes_again(_as_numbers(row), record)]
            if left and there != columns:
                raise TrainingError(
                    f"{self._path} has the columns {there} and the record {columns}; name another file, or put it away"
                )
            return [_row(columns), *left]

        self._file.keep(kept)
        self._columns, self._event = columns, record.get("event")


class TensorBoardLog:
    """A log of numbers for TensorBoard, under the event's name: ``step/loss``, ``epoch/eval_accuracy``.

    A thread writes them, within five seconds, and the rest when the process ends. One number takes some tens of
    microseconds, so log only the epochs where steps are short. Where a run goes on in the same folder,
    TensorBoard hides what was logged after the step that comes first now.

    Args:
        folder: of the run; TensorBoard shows the folders side by side.

    Raises:
        TrainingError: tensorboardX is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = TensorBoardLog(folder)
    ...     log({"event": "epoch", "epoch": 0, "steps": 7, "train_loss": 0.5})
    ...     log.close()
    ...     [path.name.split(".")[0] for path in Path(folder).iterdir()]
    ['events']
    """

    def __init__(self, folder: str | Path) -> None:
        if find_spec("tensorboardX") is None:
            raise TrainingError(
                'TensorBoardLog needs tensorboardX; install it with pip install "multimodal-pad[tensorboard]"'
            )
        self._folder = Path(folder)
        self._writer: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record."""
        event, steps = record["event"], record.get("steps")
        if steps is None:  # a program that is compiled, before any step
            return
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=steps, flush_secs=5)
            weakref.finalize(self, self._writer.close)
        for name, value in record.items():
            if name != "steps" and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{event}/{name}", value, steps)

    def close(self) -> None:
        """Write what is left, and end the thread."""
        if self._writer is not None:
            self._writer.close()


class _Lines:
    """A file of lines, opened when the first one comes; each is one write to the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1

    def keep(self, kept: Callable[[list[str]], list[str]]) -> None:
        """Replace what is there by what is to be kept of it, but for a half-written line at its end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        there = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        lines = kept(there[: there.rfind("\n") + 1].splitlines())
        text = "".join(f"{line}\n" for line in lines)
        if text != there:
            self._close()
            write_file(self._path, text.encode())

    def write(self, line: str) -> None:
        """Add a line, or several."""
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._closing = weakref.finalize(self, os.close, self._descriptor)
        os.write(self._descriptor, f"{line}\n".encode())

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._closing()
            self._descriptor = -1


def _comes_again(line: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether a logged line will come again, where a run goes on with this record."""
    steps = line.get("steps")
    if not isinstance(steps, (int, float)):
        return False
    before = line.get("event") == "step" and record.get("event") == "epoch"  # a step is there before its epoch is over
    return steps > record["steps"] or (steps == record["steps"] and not before)


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _as_numbers(row: Mapping[str, Any]) -> Mapping[str, Any]:
    steps = str(row.get("steps"))
    return {**row, "steps": int(steps) if steps.isdecimal() else None}


def _row(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _object(record: Mapping[str, Any]) -> str:
    """Write a record as JSON on one line. A template for its names takes half the time of the json module."""
    values = []
    for value in record.values():
        kind = type(value)
        if kind is str:
            values.append(_quoted(value))
        elif kind is int or (kind is float and value - value == 0.0):
            values.append(value)
        else:
            values.append(json.dumps(value if not isinstance(value, float) or math.isfinite(value) else None))
    return _template(tuple(record)) % tuple(values)


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(text)


@lru_cache(maxsize=64)
def _template(names: tuple[str, ...]) -> str:
    return "{" + ", ".join(_quoted(name).replace("%", "%%") + ": %s" for name in names) + "}"
