"""The search for the most samples of a batch whose step fits the memory: a line that every compilation makes better."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax

from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.lengths.table import LONGEST

FIRST_ROWS = 4
"""Rows of a shape's first compilation, in multiples. Not one row, for which XLA drops an axis."""

NEAR = 0.02
"""Stop when the predicted gain is at most this share of the rows that fit."""

BENT = 4
"""Programs after which bytes evidently don't follow a line, and every other time the middle is tried instead."""


class Line(NamedTuple):
    """Device bytes as a function of rows.

    >>> Line(100.0, 10.0).bytes(5), Line(100.0, 10.0).rows(170.0)
    (150.0, 7.0)
    """

    constant: float
    per_row: float

    def bytes(self, rows: int) -> float:
        """Return the bytes of so many rows."""
        return self.constant + self.per_row * rows

    def rows(self, limit: float) -> float:
        """Return as many rows as the limit allows; inf where rows take no bytes."""
        return (limit - self.constant) / self.per_row if self.per_row > 0 else float(LONGEST)


class MemorySearch:
    """The search for one program's most rows: the bytes known so far, and which number of rows to compile next.

    Args:
        limit: bytes that a step may hold.
        multiple: the rows are a multiple of it.
        most: the most rows, such a multiple.
        state_bytes: bytes of a step without rows, as far as one program shows.
        first: the rows to begin with; by default a few.

    Attributes:
        known: device bytes by rows, from XLA.
        predicted: bytes that a line predicted for rows that were then compiled.

    >>> search = MemorySearch(limit=1000, multiple=2, most=500, state_bytes=100)
    >>> while (rows := search.next_rows()) is not None:
    ...     search.known[rows] = 100 + 7 * rows
    >>> search.best, len(search.known)
    (128, 2)
    """

    def __init__(self, limit: float, multiple: int, most: int, state_bytes: int, first: int | None = None) -> None:
        self.limit, self.multiple, self.most = limit, multiple, most
        self.first = multiple * FIRST_ROWS if first is None else first
        self._state_bytes = state_bytes
        self.known: dict[int, int] = {}
        self.predicted: dict[int, float] = {}

    @property
    def best(self) -> int:
        """The most rows that are known to fit."""
        return max(self._fitting())

    @property
    def refused(self) -> int | None:
        """The fewest bytes that are known, where not even ``multiple`` rows fit."""
        return min(self.known.values()) if self.known and self._ceiling() < self.multiple else None

    def next_rows(self) -> int | None:
        """Return the rows to compile next, or None where those that fit best are known, or none fit."""
        if not self.known:
            return self.first
        ceiling, fits = self._ceiling(), self._fitting()
        if ceiling < self.multiple:
            return None
        line = self._line()
        rows = min(self.rounded(line.rows(self.limit)), ceiling)
        if len(self.known) == 1 and fits:  # a line through the state alone may be too steep
            rows = max(rows, min(2 * self.first, ceiling))
        if fits and (rows <= max(fits) * (1 + NEAR) or max(fits) == ceiling):
            return None
        middle = self.rounded((max(fits, default=0) + ceiling) / 2)
        if len(self.known) >= BENT and len(self.known) % 2 == 0 and middle > max(fits, default=0):
            return middle
        if len(self.known) > 1:
            self.predicted[rows] = line.bytes(rows)
        return rows

    def rounded(self, rows: float) -> int:
        """Round down to a multiple, at most the most."""
        whole = int(min(max(rows, 0.0), float(self.most)))
        return max(self.multiple, whole // self.multiple * self.multiple)

    def _fitting(self) -> list[int]:
        return [rows for rows, held in self.known.items() if held <= self.limit and rows <= self.most]

    def _over(self) -> list[int]:
        return [rows for rows, held in self.known.items() if held > self.limit]

    def _ceiling(self) -> int:
        return min([self.most, *(rows - self.multiple for rows in self._over())])

    def _line(self) -> Line:
        """Fit a line to the known points around the limit, or the nearest two; with one point, to it and the state."""
        known, fits, over = self.known, self._fitting(), self._over()
        if len(known) == 1:
            ((rows, held),) = known.items()
            constant = min(held, self._state_bytes)
            return Line(constant, (held - constant) / rows)
        ends = [max(fits), min(over)] if fits and over else sorted(known)[-2:] if fits else sorted(known)[:2]
        fewer, more = sorted(ends)
        per_row = max(0.0, (known[more] - known[fewer]) / (more - fewer))
        return Line(known[fewer] - per_row * fewer, per_row)


def refusal(shape: BatchShape, needed: float, limit: float) -> str:
    """Say that a shape does not fit, and what to do."""
    return (
        f"{shape} needs {needed:,.0f} bytes and {limit:,.0f} are left for it; cut or drop the longest samples, lower "
        "the headroom, or use a smaller model"
    )


def nbytes(tree: Any) -> int:
    """Return the bytes of all arrays, or of structures with their shapes and dtypes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
