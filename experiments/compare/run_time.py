"""What a run takes over its epochs, from what ``compare`` measured of each policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Seconds = Callable[[float], float]


def parts(row: dict[str, Any]) -> dict[str, float]:
    """Seconds of planning, compiling, stepping and waiting for data, of the whole run."""
    compiling = row["compile_seconds_before"] + row["compile_seconds_during"]
    waiting = float(np.mean(row["measured"]["wait_seconds"])) * row["steps"]
    rest = row["seconds_to_train"] - row["preparing_seconds"] - compiling - waiting
    return {
        "planning": row["preparing_seconds"],
        "compiling": compiling,
        "stepping": rest,
        "waiting for data": waiting,
    }


def seconds_over_epochs(row: dict[str, Any], results: dict[str, Any]) -> Seconds:
    """Seconds to train for so many epochs: planning and compiling once, the rest every epoch.

    What compiles while it goes, as exact padding does, has met its shapes in the run that was measured; how many there
    would be in fewer or more epochs follows from its schedule, and beyond it from how many came in its last half.
    """
    epochs = results["config"]["epochs"]
    taken = parts(row)
    each = (taken["stepping"] + taken["waiting for data"]) / epochs
    so_far = np.asarray(row["shapes_so_far"], float)
    if row["compile_seconds_during"] == 0:
        return lambda count: taken["planning"] + taken["compiling"] + each * count
    places = np.arange(1, len(so_far) + 1) * epochs / len(so_far)
    half = len(so_far) // 2
    slope = (so_far[-1] - so_far[half]) / (places[-1] - places[half]) if len(so_far) > 1 else 0.0
    one = taken["compiling"] / so_far[-1]

    def seconds(count: float) -> float:
        shapes = np.interp(count, places, so_far) if count <= epochs else so_far[-1] + slope * (count - epochs)
        return float(taken["planning"] + one * shapes + each * count)

    return seconds


def envelope(costs: Sequence[Seconds], most: int) -> list[tuple[int, int]]:
    """From which number of epochs on which of them is the fastest, up to ``most``.

    >>> envelope([lambda n: 10 + n, lambda n: 2 * n], 100)
    [(1, 1), (10, 0)]
    """
    found: list[tuple[int, int]] = []
    for count in range(1, most + 1):
        best = int(np.argmin([cost(count) for cost in costs]))
        if not found or found[-1][1] != best:
            found.append((count, best))
    return found
