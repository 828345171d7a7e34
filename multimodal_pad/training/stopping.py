"""Ctrl-C, SIGTERM and SIGHUP while a training runs: it ends where it can go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from multimodal_pad.compiling.interrupts import end_at_once, is_interactive

T = TypeVar("T")

_DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):  # a connection that is lost; not on Windows
    _DEFAULTS[signal.SIGHUP] = signal.SIG_DFL
"""Signals that stop a training, and what handles them by default."""


class Stopped(SystemExit):
    """The end of :func:`fit` by a signal; the exit status of the process is then 128 + the signal's number.

    That is 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP; by it shells and schedulers tell a stop from a
    failure.

    Args:
        signal_number: which signal.
        epoch: the current epoch.
        step: the step of the epoch that comes next.
        checkpoint: the folder of the checkpoint to go on from; None where there is none.

    >>> from signal import SIGTERM
    >>> Stopped(SIGTERM, epoch=2, step=7, checkpoint=None).code
    143
    """

    def __init__(self, signal_number: int, epoch: int, step: int, checkpoint: Path | None) -> None:
        super().__init__(128 + int(signal_number))
        self.signal_number, self.epoch, self.step, self.checkpoint = int(signal_number), epoch, step, checkpoint


class Interrupted(KeyboardInterrupt):
    """The act on a signal, which never leaves :func:`fit`."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Stop:
    """A block in which Ctrl-C, SIGTERM and SIGHUP request a stop, where the block checks for one.

    A second Ctrl-C acts as ever. Another SIGTERM or SIGHUP changes nothing: launchers and schedulers send them to each
    process of a group, and again to those that they have started. Signals can be handled in the main thread only:
    elsewhere this does nothing. A handler that was set for a signal before stays, and a signal that is ignored
    stays ignored.

    Attributes:
        signal_number: number of the signal that has come; 0 as long as none has.

    >>> with Stop() as stop:
    ...     stop.check()
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, Any] = {}
        self._at_once = self._compiling = False

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                if signal.getsignal(number) is default:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(*self._before)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signal_number:
            raise Interrupted(self.signal_number)

    def at_once(self) -> AtOnce:
        """Return a block that a signal breaks off anywhere."""
        return AtOnce(self)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Guard tracing and compiling: a second Ctrl-C ends the process there, see :func:`end_at_once`."""
        self._compiling = True
        try:
            self.check()
            yield
        finally:
            self._compiling = False
        self.check()

    def watch(self, items: Iterator[T], *, at_once: bool) -> Iterator[T]:
        """Yield the items; a signal raises Interrupted between two, or with ``at_once`` while one is waited for."""
        try:
            while True:
                # In this order, so that no signal falls between the look and the wait.
                self._at_once = at_once
                try:
                    self.check()
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._at_once = False
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _handle(self, number: int, frame: Any) -> None:
        del frame
        again, self.signal_number = self.signal_number, self.signal_number or number
        if number == signal.SIGINT and self._compiling:
            if again:
                end_at_once(number)
            return
        if number == signal.SIGINT:
            self._restore(number)  # so that another one acts at once
        if self._at_once and not again:
            raise Interrupted(number)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._before:
                signal.signal(number, self._before.pop(number))


class AtOnce:
    """The block of :meth:`Stop.at_once`."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._stop._at_once = True
        self._stop.check()

    def __exit__(self, *_: object) -> None:
        self._stop._at_once = False


def asks_a_person(signal_number: int) -> bool:
    """Return whether it is Ctrl-C in a session that goes on after it, such as a notebook."""
    return signal_number == signal.SIGINT and is_interactive()


def name_of(signal_number: int) -> str:
    """Return the usual name of a signal.

    >>> name_of(2), name_of(15)
    ('Ctrl-C', 'SIGTERM')
    """
    return "Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name
