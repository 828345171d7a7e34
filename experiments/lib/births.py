"""Processes that this one starts and ends: Ctrl-C is for this one alone, at their birth, too."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """What is started in the block never sees Ctrl-C; for this process it waits for the end of the block.

    A terminal sends it to everyone. A process that was just born would end with a traceback of its imports, and one
    whose birth was interrupted would be unknown, so that nobody would end it.
    """
    held = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited, unlike a handler
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        for number in held:
            signal.raise_signal(number)
