"""Names for what the host does, in a profile. Without a profiler to give them to they are nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

READ, LAY_OUT, WAIT = "read samples", "lay out a batch", "wait for a batch"
TELL, EVALUATE, SAVE = "tell other processes", "evaluate", "save a checkpoint"
STEP = "train_step"

_NOTHING: AbstractContextManager[None] = nullcontext()

Make = Callable[..., AbstractContextManager[object]]

_make: Make | None = None
_recorded: Callable[[], bool] = bool


def name_spans_by(make: Make, recorded: Callable[[], bool]) -> None:
    """From now on :func:`span` is what ``make`` gives, such as ``jax.profiler.TraceAnnotation``, while one records."""
    global _make, _recorded
    _make, _recorded = make, recorded


def span(name: str, make: Make | None = None, **more: object) -> AbstractContextManager[object]:
    """Return a block of work that has a name in the profile.

    Args:
        name: of the work.
        make: in place of what :func:`name_spans_by` was given.
        more: what else is recorded of it.

    >>> with span(READ):
    ...     pass
    """
    if not _recorded():  # by far the most of the time, and a tenth of what it takes to make one
        return _NOTHING
    make = make or _make
    return _NOTHING if make is None else make(name, **more)
