"""Length distributions for experiments: MELD's, and others of other fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from multimodal_pad import LengthTable, PaddingError
from multimodal_pad.sources import Synthetic
from multimodal_pad.sources.synthetic import AUDIO_RATE, VISUAL_RATE

MODALITIES = ("text", "audio", "visual")
WORDS_PER_SECOND = 2.6
LONGEST_SECONDS = 30.0

Seconds = Callable[[np.random.Generator, int], np.ndarray]

_SECONDS: dict[str, Seconds] = {
    "uniform": lambda rng, n: rng.uniform(0.5, 20, n),
    "bimodal": lambda rng, n: np.where(rng.random(n) < 0.8, rng.normal(2, 0.5, n), rng.normal(15, 2, n)),
    "pareto": lambda rng, n: 1 + rng.pareto(1.5, n),
    "constant": lambda _, n: np.full(n, 5.0),
    "opposite": lambda rng, n: rng.uniform(0.5, 20, n),
}

DISTRIBUTIONS = {
    "meld": "quantiles of MELD's words and seconds, correlation 0.71",
    "uniform": "0.5 to 20 s, all alike",
    "bimodal": "four in five around 2 s, one around 15 s",
    "pareto": "1 s and a Pareto tail of index 1.5, cut at 30 s",
    "constant": "5 s, every sample",
    "opposite": "0.5 to 20 s, and the longer the audio the shorter the text",
}
"""The distributions by name, with a description."""


def draw_lengths(name: str, samples: int, seed: int = 0) -> LengthTable:
    """Draw text, audio (20 Hz) and visual (15 Hz) lengths of so many samples.

    Words follow the seconds at 2.6 a second, times a log-normal factor of sigma 0.4; none for ``constant``, and
    against the seconds for ``opposite``.

    Raises:
        PaddingError: a name that is not in DISTRIBUTIONS.

    >>> draw_lengths("constant", 2).values.tolist()
    [[13, 100, 75], [13, 100, 75]]
    """
    if name not in DISTRIBUTIONS:
        raise PaddingError(f"got the distribution {name!r}; choose one of {list(DISTRIBUTIONS)}")
    if name == "meld":
        return Synthetic(samples, seed=seed).lengths
    rng = np.random.default_rng(seed)
    seconds = np.clip(_SECONDS[name](rng, samples), 0.2, LONGEST_SECONDS)
    told = 20.5 - seconds if name == "opposite" else seconds
    factor = 1.0 if name == "constant" else rng.lognormal(0, 0.4, samples)
    columns = [WORDS_PER_SECOND * told * factor, seconds * AUDIO_RATE, seconds * VISUAL_RATE]
    return LengthTable(MODALITIES, np.maximum(1, np.rint(np.stack(columns, axis=1))).astype(np.int64))


def log_normal_lengths(samples: int) -> np.ndarray:
    """Draw log-normal lengths of three modalities, correlated at 0.7, in multiples of 8; int64 ``(samples, 3)``."""
    rng = np.random.default_rng(0)
    lengths = np.empty((samples, 3), np.int64)
    common = rng.standard_normal(samples, np.float32)
    for m, (middle, longest) in enumerate([(8, 400), (60, 2000), (45, 1500)]):
        logs = np.sqrt(0.7) * common + np.sqrt(0.3) * rng.standard_normal(samples, np.float32)
        lengths[:, m] = np.minimum(middle * np.exp(0.75 * logs), longest) // 8 * 8 + 8
    return lengths
