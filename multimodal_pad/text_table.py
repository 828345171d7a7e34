"""Small tables, as plain text that fits its terminal and as HTML: columns aligned on the right."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_GAP = 2  # spaces between two columns
_NARROWEST = 20


class Fitted(NamedTuple):
    """The places of a table's columns within a width.

    Attributes:
        widths: of each column; cells that are longer go on in a second line.
        blocks: which columns stand beside one another; the blocks stand below one another.
    """

    widths: list[int]
    blocks: list[list[int]]


def text_table(
    heading: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    left: int = 0,
    keys: int | None = None,
    width: int | None = None,
) -> list[str]:
    """Return the lines of a table, none of them longer than ``width``.

    Where the columns don't fit beside one another, they stand in blocks below one another, each of which begins with
    the columns that name a row; where there are none, rows are numbered.

    Args:
        heading: a name for each column.
        body: the rows.
        left: how many of the first columns are aligned on the left.
        keys: how many of the first columns name a row; by default those aligned on the left.
        width: by default :func:`terminal_width`.

    >>> text_table(["name", "bytes"], [["a", "7"], ["long", "123456"]], left=1)
    ['name   bytes', 'a          7', 'long  123456']
    >>> print("\\n".join(text_table(["name", "kilobytes", "seconds"], [["a", "7", "1"]], left=1, width=20)))
    name  kilobytes
    a             7
    <BLANKLINE>
    name  seconds
    a           1
    """
    width = terminal_width() if width is None else width
    rows = [heading, *body]
    widths = _widths(rows)
    keys = left if keys is None else keys
    if width is not None and not keys and sum(widths) + _GAP * (len(widths) - 1) > width:
        rows = [["#", *heading], *([str(number), *row] for number, row in enumerate(body, start=1))]
        widths, keys = _widths(rows), 1
    fitted = fit_columns(widths, keys, width, _GAP)
    lines: list[str] = []
    for block in fitted.blocks:
        lines += [""] if lines else []
        for row in rows:
            lines += _row_lines([(row[place], fitted.widths[place], place < left) for place in block])
    return lines


def fit_columns(widths: Sequence[int], keys: int, width: int | None, gap: int) -> Fitted:
    """Choose the columns that stand beside one another within a width, the first ``keys`` of them in every block.

    >>> fit_columns([4, 9, 7], 1, 20, 2), fit_columns([4, 9, 7], 1, 24, 2)
    (Fitted(widths=[4, 9, 7], blocks=[[0, 1], [0, 2]]), Fitted(widths=[4, 9, 7], blocks=[[0, 1, 2]]))
    """
    places = list(range(len(widths)))
    if width is None or sum(widths) + gap * (len(widths) - 1) <= width:
        return Fitted(list(widths), [places])
    width = max(width, _NARROWEST)
    named, others = list(widths[:keys]), list(widths[keys:])
    # A long name goes on in a second line, to leave room for the rest.
    beside_all, beside_one = (
        width - total for total in (sum(others) + gap * len(others), max(others, default=0) + gap)
    )
    for_names = max(width // 3, beside_all, min(width // 2, beside_one)) - gap * (keys - 1)
    while sum(named) > max(for_names, keys):
        named[named.index(max(named))] -= 1
    room = width - sum(named) - gap * (keys - 1)
    others = [min(other, room - gap) for other in others]
    least = len(_blocks(others, room, gap))
    # Of the ways with as few blocks, take the one whose widest block is narrowest: 5 and 4 columns, not 8 and 1.
    tried = range(max(others, default=0) + gap, room)
    narrow = next((n for n in tried if len(_blocks(others, n, gap)) == least), room)
    blocks = [[*places[:keys], *(keys + place for place in block)] for block in _blocks(others, narrow, gap)]
    return Fitted([*named, *others], blocks)


def wrapped(lines: Sequence[str], width: int | None = None) -> list[str]:
    """Break lines of prose between words where they are longer than ``width``, by default :func:`terminal_width`.

    >>> wrapped(["it fits", "this line is too long for it"], width=20)
    ['it fits', 'this line is too', '  long for it']
    """
    width = terminal_width() if width is None else width
    if width is None:
        return list(lines)
    broken: list[str] = []
    for line in lines:
        broken += [line] if len(line) <= width else _broken(line, max(width, _NARROWEST), "  ")
    return broken


def terminal_width() -> int | None:
    """Return the columns of the output: COLUMNS, or those of the terminal; None in a file or a pipe."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    if sys.stdout is None or sys.stdout.closed or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _blocks(widths: Sequence[int], room: int, gap: int) -> list[list[int]]:
    """Return places of columns in their order, as many in each block as there is room for, with a gap before each."""
    blocks: list[list[int]] = [[]]
    left = room
    for place, width in enumerate(widths):
        if width + gap > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(place)
        left -= width + gap
    return blocks


def _row_lines(cells: Sequence[tuple[str, int, bool]]) -> list[str]:
    """Return the lines of a row of cells, each given with its width and whether it is aligned on the left."""
    if all(len(cell) <= width for cell, width, _ in cells):
        folded = [[cell] for cell, _, _ in cells]
    else:
        folded = [[cell] if len(cell) <= width else _broken(cell, width) for cell, width, _ in cells]
    lines = []
    for number in range(max(map(len, folded))):
        parts = [lines_of[number] if number < len(lines_of) else "" for lines_of in folded]
        shown = [
            part.ljust(width) if on_left else part.rjust(width)
            for part, (_, width, on_left) in zip(parts, cells, strict=True)
        ]
        lines.append((" " * _GAP).join(shown).rstrip())
    return lines


def _broken(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def html_table(caption: str, heading: Sequence[str], body: Sequence[Sequence[str]], below: Sequence[str] = ()) -> str:
    """Return a table for a notebook, with a caption and lines below it; all text is escaped.

    >>> html_table("2 < 3", ["n"], [["7"]])
    '<table><caption>2 &lt; 3</caption><thead><tr><th>n</th></tr></thead><tbody><tr><td>7</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    lines = f"<p>{'<br>'.join(map(escape, below))}</p>" if below else ""
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{lines}"
    )
