"""Names for the host's work in a profile. Without a profiler they do next to nothing."""

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
    """Make :func:`span` return what ``make`` does, such as ``jax.profiler.TraceAnnotation``, while one records."""
    global _make, _recorded
    _make, _recorded = make, recorded


def span(name: str, make: Make | None = None, **more: object) -> AbstractContextManager[object]:
    """Return a context whose block has a name in the profile.

    Args:
        name: of the work.
        make: in place of the one given to :func:`name_spans_by`.
        more: further values to record.

    >>> with span(READ):
    ...     pass
    """
    if not _recorded():  # the usual case, at a tenth of the time of making one
        return _NOTHING
    make = make or _make
    return _NOTHING if make is None else make(name, **more)
