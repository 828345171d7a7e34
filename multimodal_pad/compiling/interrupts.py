"""Ctrl-C while programs are traced and compiled: noted, and acted on between two of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

Check = Callable[[], None]
"""Raises a KeyboardInterrupt if a signal has come that ends the work under way."""


class NotedInterrupt:
    """A block in which Ctrl-C is noted, and raised where the block checks; a second one ends the process.

    JAX calls Python back from C++, and at some places no exception can pass through that: raised there by a signal,
    it aborts the process. So does the end of the interpreter while XLA compiles in another thread. A second Ctrl-C
    therefore ends the process without that; in an interactive session, which would end too, it changes nothing.

    Where Ctrl-C is handled already, or in another thread than the main one, this does nothing.

    >>> with NotedInterrupt() as noted:
    ...     noted.check()
    """

    def __init__(self) -> None:
        self._came = self._installed = False

    def __enter__(self) -> NotedInterrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise a KeyboardInterrupt if Ctrl-C has come."""
        if self._came:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        del frame
        if self._came:
            end_at_once(number)
        self._came = True


def end_at_once(signal_number: int) -> None:
    """End the process and its threads with a line that says why; do nothing in a session that goes on after Ctrl-C."""
    if is_interactive() and signal_number == signal.SIGINT:
        return
    line = "\nended at once, while XLA was compiling, which can't be stopped; nothing was being saved\n"
    os.write(2, line.encode())  # the interrupted code may be using a file object
    os._exit(128 + signal_number)


def is_interactive() -> bool:
    """Return whether this is a session that goes on after Ctrl-C, such as a notebook."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)
