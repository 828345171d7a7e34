"""Options of experiments.scaling, and its timing in turn, in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    ``lengths``, ``batch_sizes``, ``modalities``, ``shapes`` and ``samples`` are the axes; ``length``, ``batch_size``
    and ``modality_count`` are constant along the other axes.
    """

    data_dir: str | None = None
    lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32, 64)
    modalities: tuple[int, ...] = (1, 2, 3, 4, 5)
    shapes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    samples: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    length: int = 64
    batch_size: int = 16
    modality_count: int = 3
    d_model: int = 40
    num_heads: int = 8
    layers: int = 1
    dropout_rate: float = 0.1
    planned_samples: int = 9_988
    planned_shapes: int = 8
    planned_rows: int = 32
    pooled_width: int = 8
    effort: float = 1.0
    step_rounds: int = 20
    rounds: int = 3
    least_rounds: int = 2
    seconds: float = 5.0
    seed: int = 0


QUICK = {
    "lengths": (8, 16),
    "batch_sizes": (2, 4),
    "modalities": (1, 2),
    "shapes": (1, 2),
    "samples": (200, 500, 1000),
    "length": 8,
    "batch_size": 2,
    "modality_count": 1,
    "d_model": 8,
    "num_heads": 1,
    "dropout_rate": 0.0,
    "planned_samples": 200,
    "planned_shapes": 2,
    "planned_rows": 8,
    "effort": 0.1,
    "step_rounds": 3,
    "rounds": 1,
    "seconds": 1.0,
}
"""Options under --quick, to check that everything works."""

Measure = Callable[[], float]
"""A function that does one thing once, and returns the seconds it took."""


def in_turn(measures: Sequence[Measure], rounds: int, config: Config, done: Callable[[int], None]) -> list[list[float]]:
    """Time each measure in turn, in another order each round; return the seconds of every time.

    A measure ends before ``rounds`` once it has taken ``config.seconds`` in all, ``config.least_rounds`` times or more.
    """
    rng = np.random.default_rng(config.seed)
    seconds: list[list[float]] = [[] for _ in measures]
    for turn in range(rounds):
        for place in rng.permutation(len(measures)).tolist():
            if len(seconds[place]) < turn:  # it has ended
                continue
            if turn < config.least_rounds or sum(seconds[place]) < config.seconds:
                seconds[place].append(measures[place]())
                done(1)
            else:
                done(rounds - turn)
    return seconds
