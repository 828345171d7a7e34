"""Plain text tables: columns aligned on the right."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(heading: Sequence[str], body: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """The lines of a table, the first ``left`` columns aligned on the left.

    >>> text_table(["name", "bytes"], [["a", "7"], ["long", "123456"]], left=1)
    ['name   bytes', 'a          7', 'long  123456']
    """
    rows = [heading, *body]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if place < left else str.rjust for place in range(len(widths))]
    return ["  ".join(side(cell, w) for side, cell, w in zip(sides, row, widths, strict=True)).rstrip() for row in rows]
