"""Exponents of power laws through medians of repeated measurements, with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
"""Number of bootstrap resamples of the repeats."""

PERCENTILES = (5, 95)
"""Percentiles of the exponents over the resamples, which are their spread."""


def power_law(sizes: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Fit exponent and factor of ``values ~ factor * sizes ** exponent``, by least squares in log-log.

    >>> exponent, factor = power_law([1, 2, 4], [3.0, 12.0, 48.0])
    >>> round(exponent, 6), round(factor, 6)
    (2.0, 3.0)
    """
    exponent, offset = np.polyfit(np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(values, np.float64)), 1)
    return float(exponent), float(np.exp(offset))


def fit_series(sizes: Sequence[float], repeats: Sequence[Sequence[float]], seed: int = 0) -> dict[str, Any] | None:
    """Fit a power law through the medians of each size's repeats, and one between the two largest sizes alone.

    The spread of an exponent is the 5th to 95th percentile over bootstrap resamples of the repeats; None where a point
    that it rests on has one value alone, as what is counted and not timed has.

    Args:
        sizes: above 0, in any order.
        repeats: at least one value above 0 for each size.
        seed: of the resamples.

    Returns:
        ``exponent``, ``spread`` and ``factor`` over all sizes, ``off`` (the largest relative distance of a median from
        the line), ``last`` and ``last_spread`` between the two sizes in ``between``; None where there are fewer than
        two sizes or a value is 0.

    >>> fit = fit_series([1, 2, 4], [[1.0], [2.0], [8.0]])
    >>> round(fit["exponent"], 6), round(fit["last"], 6), fit["between"], fit["spread"]
    (1.5, 2.0, [2, 4], None)
    """
    if len(set(sizes)) < len(sizes) or len(sizes) < 2 or min(map(min, repeats)) <= 0:
        return None
    order = np.argsort(sizes).tolist()
    sizes, repeats = [sizes[i] for i in order], [repeats[i] for i in order]
    medians = np.array([np.median(values) for values in repeats])
    exponent, factor = power_law(sizes, medians)
    drawn = _resampled_medians(repeats, seed)
    return {
        "exponent": exponent,
        "spread": _spread(sizes, drawn, repeats),
        "factor": factor,
        "off": float(np.abs(medians / (factor * np.asarray(sizes, np.float64) ** exponent) - 1).max()),
        "last": power_law(sizes[-2:], medians[-2:])[0],
        "last_spread": _spread(sizes[-2:], drawn[:, -2:], repeats[-2:]),
        "between": list(sizes[-2:]),
    }


def _resampled_medians(repeats: Sequence[Sequence[float]], seed: int) -> np.ndarray:
    """Draw each size's repeats with replacement; return their medians ``(resamples, sizes)``."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.asarray(values, np.float64), (RESAMPLES, len(values))) for values in repeats]
    return np.stack([np.median(values, axis=1) for values in drawn], axis=1)


def _spread(sizes: Sequence[float], drawn: np.ndarray, repeats: Sequence[Sequence[float]]) -> list[float] | None:
    if min(map(len, repeats)) < 2:
        return None
    exponents = np.polyfit(np.log(np.asarray(sizes, np.float64)), np.log(drawn).T, 1)[0]
    return np.percentile(exponents, PERCENTILES).tolist()
