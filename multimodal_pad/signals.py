"""Signals that end a command: its work is cleaned up, and its status shows which signal it was.

Imported before anything else, so that a command that is stopped during its start ends in a line, and not in the
traceback of some import.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import NoReturn

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, what schedulers send, and the end of the terminal."""


class Ended(KeyboardInterrupt):
    """The end of a command by a signal.

    Args:
        signal_number: which signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def raise_ended(signal_number: int, _: FrameType | None) -> NoReturn:
    """Raise :class:`Ended`; a handler of signals."""
    raise Ended(signal_number)


def status_of(stop: KeyboardInterrupt) -> int:
    """Return the exit status of a signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.

    >>> status_of(Ended(signal.SIGTERM)), status_of(KeyboardInterrupt())
    (143, 130)
    """
    return 128 + int(getattr(stop, "signal_number", signal.SIGINT))


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise a KeyboardInterrupt for each signal that would end the process, while the block runs, for cleaning up.

    Ignored signals stay ignored, as under ``nohup``, and a handler of the caller's stays. Signals are handled in the
    main thread only: elsewhere this does nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, _leave):
                raising = signal.default_int_handler if number == signal.SIGINT else raise_ended
                before[number] = signal.signal(number, raising)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(signal_number: int, _: FrameType | None) -> NoReturn:
    """End at once: nothing has been begun yet, or all is done."""
    os.write(2, b"stopped\n")
    os._exit(128 + signal_number)


def _is_command(words: list[str]) -> bool:
    """Return whether a process is the console command, by the words that it was started with.

    >>> _is_command(["/usr/bin/python", "/usr/bin/multimodal-pad", "plan"])
    True
    >>> _is_command(["python", "-m", "multimodal_pad.cli", "plan"]), _is_command(["python", "-c", "x", "train.py"])
    (True, False)
    """
    names = [word.replace("\\", "/").rpartition("/")[2].removesuffix(".exe") for word in words[:2]]
    return "multimodal-pad" in names or ("-m", "multimodal_pad.cli") in pairwise(words)


if _is_command(sys.orig_argv) and threading.current_thread() is threading.main_thread():
    for _number in ENDING:
        if signal.getsignal(_number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(_number, _leave)
