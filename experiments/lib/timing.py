"""Time asynchronous calls: rounds of calls, with a wait at the end of each round."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

ROUND_SECONDS = 0.05
"""About how long a round lasts, so that the wait at its end weighs little."""

MOST_CALLS = 100


def time_calls(call: Callable[[], Any], wait: Callable[[Any], Any], *, seconds: float, rounds: int = 9) -> list[float]:
    """Measure seconds per call in each round: at least one round, and no more than fit into ``seconds``.

    The caller warms up. A round is 1 to 100 calls one after the other, and one wait for the last result.

    Args:
        call: starts the work and returns its result, which may not be there yet.
        wait: returns when a result is there.
        seconds: for all rounds together.
        rounds: the most rounds.

    >>> len(time_calls(lambda: 1, lambda result: result, seconds=1, rounds=3))
    3
    """
    begun = time.perf_counter()
    wait(call())
    once = max(time.perf_counter() - begun, 1e-9)
    calls = int(min(max(ROUND_SECONDS / once, 1), MOST_CALLS))
    taken: list[float] = []
    while len(taken) < rounds and (not taken or time.perf_counter() - begun + calls * taken[-1] < seconds):
        started = time.perf_counter()
        for _ in range(calls - 1):
            call()
        wait(call())
        taken.append((time.perf_counter() - started) / calls)
    return taken
