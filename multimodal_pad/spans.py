"""Names for what the host does, in a profile. Without a profiler to give them to they are nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

READ, LAY_OUT, WAIT = "read samples", "lay out a batch", "wait for a batch"
TELL, EVALUATE, SAVE = "tell other processes", "evaluate", "save a checkpoint"

_NOTHING: AbstractContextManager[None] = nullcontext()

_make: Callable[..., AbstractContextManager[object]] | None = None


def name_spans_by(make: Callable[..., AbstractContextManager[object]]) -> None:
    """From now on :func:`span` is what ``make`` gives, such as ``jax.profiler.TraceAnnotation``."""
    global _make
    _make = make


def span(name: str) -> AbstractContextManager[object]:
    """A block of work that has a name in the profile.

    >>> with span(READ):
    ...     pass
    """
    return _NOTHING if _make is None else _make(name)
