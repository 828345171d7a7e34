"""Processes that this one starts and ends: only this one handles Ctrl-C, also while they start."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C from all that is started in the block; for this process it waits for the end of the block.

    A terminal sends it to all processes. A process that has just started would end with a traceback of its imports,
    and one whose start was interrupted would be unknown to this process, which then could not end it.
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
