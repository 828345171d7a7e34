"""The user's callbacks of a training: functions that get its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from multimodal_pad.compiling.table import CompiledStep, StepTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.training.history import EpochRecord
from multimodal_pad.training.run import Settled

Record = dict[str, Any]
"""The record of an event, for a callback: numbers and words by name, on one level; ``"event"`` names the event."""

Callback = Callable[[Record], Any]
"""A function that gets each record of an event; what it returns is ignored."""

Callbacks = Callback | Sequence[Callback]
"""A callback, or several that are called in order."""


@runtime_checkable
class TakesMany(Protocol):
    """A callback that takes several records at once, in less time than one by one, and changes none of them."""

    def __call__(self, record: Mapping[str, Any]) -> Any:
        """Take one record."""
        ...

    def all_of(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take several records."""
        ...


class Listeners:
    """The callbacks of one training, called in the main thread of the first process.

    Args:
        on_step: of each step, once it has run.
        on_epoch: of each epoch, once it is evaluated.
        on_compile: of each program, once it is compiled.

    Raises:
        TrainingError: something that can't be called.
    """

    def __init__(
        self, on_step: Callbacks | None = None, on_epoch: Callbacks | None = None, on_compile: Callbacks | None = None
    ) -> None:
        first = jax.process_index() == 0
        given = {"on_step": on_step, "on_epoch": on_epoch, "on_compile": on_compile}
        checked = {name: _checked(name, callbacks) for name, callbacks in given.items()}
        self._callbacks = {name: callbacks if first else () for name, callbacks in checked.items()}

    def __getitem__(self, name: str) -> tuple[Callback, ...]:
        return self._callbacks[name]

    def steps(self, settled: Sequence[Settled]) -> None:
        """Pass on steps that have run, all of them to one callback after the other."""
        self._tell("on_step", [_of_step(step) for step in settled])

    def epoch(self, record: EpochRecord) -> None:
        """Pass on an epoch that is over."""
        if self._callbacks["on_epoch"]:
            self._tell("on_epoch", [{"event": "epoch", **record.figures()}])

    def compiled(self, table: StepTable, shape: BatchShape, step: CompiledStep) -> None:
        """Pass on a program that is compiled."""
        if self._callbacks["on_compile"]:
            record = {"event": "compile", "name": table.name, "shape": str(shape), "seconds": step.seconds}
            if step.device_bytes is not None:
                record["device_bytes"] = step.device_bytes
            self._tell("on_compile", [record])

    def _tell(self, name: str, records: Sequence[Record]) -> None:
        callbacks = self._callbacks[name]
        for callback in callbacks:
            record = records[0]
            try:
                if isinstance(callback, TakesMany):
                    callback.all_of(records)
                    continue
                for record in records:
                    callback(dict(record) if len(callbacks) > 1 else record)  # one may change it
            except Exception as error:
                called = getattr(callback, "__qualname__", None) or type(callback).__qualname__
                where = ", ".join(f"{key} {record[key]}" for key in ("epoch", "step", "shape") if key in record)
                error.add_note(f"in the callback {name}={called}, of {where}")
                raise


def _of_step(settled: Settled) -> Record:
    fed = settled.fed
    record = {
        "event": "step",
        "epoch": settled.epoch,
        "step": settled.step,
        "steps": settled.steps,
        "loss": settled.loss,
        **settled.figures,
        "samples": settled.samples,
        "shape": fed.shape,
        "padding_efficiency": fed.real / fed.padded if fed.padded else 1.0,
        "wait_seconds": fed.waited,
        "samples_per_second": settled.samples / settled.seconds,
    }
    for name, figure in settled.metrics.items():
        record[name if name not in record else f"metric_{name}"] = figure
    return record


def _checked(name: str, given: Callbacks | None) -> tuple[Callback, ...]:
    if given is None:
        return ()
    callbacks = (given,) if callable(given) else tuple(given) if isinstance(given, Sequence) else ()
    if not callbacks or not all(map(callable, callbacks)):
        raise TrainingError(
            f"got {name}={given!r}; give a function of a dict, or a list of them, which are called in order"
        )
    return callbacks
