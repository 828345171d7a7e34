"""Small tables, as plain text and as HTML: columns aligned on the right."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def text_table(heading: Sequence[str], body: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """The lines of a table, the first ``left`` columns aligned on the left.

    >>> text_table(["name", "bytes"], [["a", "7"], ["long", "123456"]], left=1)
    ['name   bytes', 'a          7', 'long  123456']
    """
    rows = [heading, *body]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if place < left else str.rjust for place in range(len(widths))]
    return ["  ".join(side(cell, w) for side, cell, w in zip(sides, row, widths, strict=True)).rstrip() for row in rows]


def html_table(caption: str, heading: Sequence[str], body: Sequence[Sequence[str]], below: Sequence[str] = ()) -> str:
    """A table for a notebook, with a caption and lines below it; all text is escaped.

    >>> html_table("2 < 3", ["n"], [["7"]])
    '<table><caption>2 &lt; 3</caption><thead><tr><th>n</th></tr></thead><tbody><tr><td>7</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    lines = f"<p>{'<br>'.join(map(escape, below))}</p>" if below else ""
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{lines}"
    )
