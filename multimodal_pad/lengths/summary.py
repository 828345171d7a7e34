"""Lengths of a corpus in a few figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from multimodal_pad.lengths.table import LengthTable

QUANTILES = (5, 25, 50, 75, 95, 99)
"""Per cent, of the samples."""


class LengthSummary(NamedTuple):
    """Lengths of one modality: mean, quantiles and maximum by name, and the samples that lack it."""

    lengths: dict[str, float]
    missing: int


def summarize_lengths(table: LengthTable) -> dict[str, LengthSummary]:
    """Summarize the lengths of each modality.

    >>> summarize_lengths(LengthTable(("text",), np.array([[0], [1], [2], [9]])))["text"].lengths
    {'mean': 3.0, 'p5': 0.1, 'p25': 0.8, 'p50': 1.5, 'p75': 3.8, 'p95': 7.9, 'p99': 8.8, 'max': 9}
    """
    found = {}
    for name, column in zip(table.modalities, table.values.T, strict=True):
        quantiles = np.percentile(column, QUANTILES).round(1).tolist()
        lengths = {
            "mean": round(float(column.mean()), 3),
            **{f"p{level}": value for level, value in zip(QUANTILES, quantiles, strict=True)},
            "max": int(column.max()),
        }
        found[name] = LengthSummary(lengths, int((column == 0).sum()))
    return found
