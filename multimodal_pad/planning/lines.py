"""The lines along which the search moves a shape: one modality, two, or all of them."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from multimodal_pad.lengths.cost import Cost

POSITIONS = 128  # of a shape along a line: more are hardly better, and take longer


class Line(NamedTuple):
    """A way along which a shape may move: the rows in the order in which it comes to hold them."""

    free: tuple[int, ...]  # the modalities that change
    order: np.ndarray  # (n,)
    weights: np.ndarray  # (n,), ordered
    starts: np.ndarray  # first row of each position
    position: np.ndarray  # (n,), of each row
    lengths: np.ndarray | None  # at each position, where one modality is free


def make_lines(rows: np.ndarray, weights: np.ndarray, cost: Cost) -> list[Line]:
    """Return lines along each modality, along as many pairs as there are modalities, and along all together.

    Args:
        rows: ``(M, n)`` lengths, at least 1.
        weights: ``(n,)``, samples at each.
        cost: per sample, of lengths ``(n, M)``.
    """
    count = len(rows)
    free: list[tuple[int, ...]] = [(m,) for m in range(count)]
    if count > 1:
        free += _pairs(rows)
    if count > 2:
        free.append(tuple(range(count)))
    return [_line(rows, weights, cost, modalities) for modalities in free]


def _pairs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return as many pairs as there are modalities, those whose lengths vary together most; of 3, all.

    A sweep over all lines then takes time in proportion to the modalities, and not to their square.
    """
    pairs = list(combinations(range(len(rows)), 2))
    if len(pairs) <= len(rows):
        return pairs
    logs = np.log(rows)
    logs -= logs.mean(axis=1, keepdims=True)
    spread = np.sqrt((logs**2).sum(axis=1))
    likeness = np.abs(logs @ logs.T) / np.maximum(np.outer(spread, spread), np.finfo(float).tiny)
    order = np.argsort([-round(float(likeness[pair]), 6) for pair in pairs], kind="stable")
    return [pairs[number] for number in np.sort(order[: len(rows)])]


def _line(rows: np.ndarray, weights: np.ndarray, cost: Cost, free: tuple[int, ...]) -> Line:
    """Order the rows along the free modalities: by length, or by cost where there are several."""
    if len(free) == 1:
        key = rows[free[0]]
    else:
        shadow = np.repeat(rows.min(axis=1, keepdims=True), rows.shape[1], axis=1)
        shadow[list(free)] = rows[list(free)]
        key = cost(shadow.T)
    order = np.argsort(key, kind="stable")
    n = len(order)
    ends = np.flatnonzero(np.diff(key[order])) if len(free) == 1 else np.arange(n - 1)
    if len(ends) >= POSITIONS:
        ends = ends[np.arange(1, POSITIONS) * len(ends) // POSITIONS]
    starts = np.concatenate([[0], ends + 1])
    position = np.repeat(np.arange(len(starts)), np.diff(starts, append=n))
    lengths = rows[free[0], order[np.append(starts[1:], n) - 1]] if len(free) == 1 else None
    return Line(free, order, weights[order], starts, position, lengths)
