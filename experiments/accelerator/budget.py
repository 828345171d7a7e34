"""The time of a run, divided over its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SHORTEST = 5.0
"""Least seconds for which a part is begun."""

STARTING = 60.0
"""Least seconds of the first part, which loads JAX and the device's libraries from a cold disk."""


class Allotment(NamedTuple):
    """The time of one part.

    Attributes:
        seconds: what the part plans with.
        limit: seconds after which its process is ended.
    """

    seconds: float
    limit: float


@dataclass
class Budget:
    """The remaining time, divided over the remaining parts.

    A part that ends early leaves its time to the later ones. A part may run half as long again as planned, since
    compiling cannot be interrupted, but takes at most half of the time of the later ones.

    Attributes:
        seconds: for all parts.
        shares: weight of each part, in the order in which they run.
        now: the clock.

    >>> budget = Budget(100, {"one": 1, "two": 3}, now=iter([0.0, 0.0, 40.0]).__next__)
    >>> budget.allot("one"), budget.allot("two")
    (Allotment(seconds=25.0, limit=60.0), Allotment(seconds=60.0, limit=60.0))
    """

    seconds: float
    shares: Mapping[str, float]
    now: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.now()

    def allot(self, name: str) -> Allotment | None:
        """Return the time of a part, or None where too little is left to begin it."""
        left = self._begun + self.seconds - self.now()
        if left < SHORTEST:
            return None
        names = list(self.shares)
        coming = names[names.index(name) :]
        seconds = min(left, left * self.shares[name] / sum(self.shares[other] for other in coming))
        longest = max(1.5 * seconds, STARTING if name == names[0] else SHORTEST)
        return Allotment(seconds, min(longest, (left + seconds) / 2))


@dataclass(frozen=True)
class Clock:
    """The remaining time of a part, in the part's own process.

    Attributes:
        begun: ``time.time()`` when the process was started.
        seconds: what the part plans with.

    >>> Clock(0, 10).over()
    True
    """

    begun: float
    seconds: float

    def elapsed(self) -> float:
        """Return the seconds since the process was started, its imports included."""
        return time.time() - self.begun

    def left(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self.seconds - self.elapsed())

    def over(self) -> bool:
        """Return whether the time is over, so that nothing more should begin."""
        return self.left() == 0
