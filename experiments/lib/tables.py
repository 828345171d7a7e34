"""A table of results, made once, for Markdown, for HTML, and for the pages that are filled from results."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Table(NamedTuple):
    """A table of text, its first columns left-aligned.

    Attributes:
        title: what it is of.
        heading: a cell per column.
        rows: a cell per column, each.
        note: what a reader must know first, such as the meaning of a column; above the table in Markdown. May hold
            Markdown's `code`.
        text_columns: how many columns from the left hold words; the others hold figures.
        folded: whether a page shows the title alone until it is opened.
        findings: sentences made of figures that the rows don't show; below the table.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text_columns: int = 1
    folded: bool = False
    findings: str = ""

    def markdown(self) -> str:
        """Return the note, the table and the findings, as paragraphs."""
        figures = len(self.heading) - self.text_columns
        rule = "|" + "---|" * self.text_columns + "---:|" * figures
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.heading, *self.rows)]
        lines.insert(1, rule)
        return paragraphs(self.note, "\n".join(lines), self.findings)

    def html(self) -> str:
        """Return the table in a box that scrolls where the window is narrow, and note and findings below it."""

        def row(cells: Sequence[str], tag: str) -> str:
            kinds = ["words" if i < self.text_columns else "figures" for i in range(len(cells))]
            return "".join(
                f"<{tag} class={kind}>{to_html(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
            )

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        # An empty heading is a plain cell, since screen readers announce headings.
        head = f"<thead><tr>{row(self.heading, 'th')}</tr></thead>".replace("<th class=words></th>", "<td></td>")
        below = "".join(f"<p class=note>{to_html(text)}</p>" for text in (self.note, self.findings) if text)
        kind = "prose" if self.text_columns == len(self.heading) else "figures"
        region = f'class="scroll {kind}" tabindex=0 role=region aria-label="{html.escape(self.title)}"'
        return f"<div {region}><table>{head}<tbody>{body}</tbody></table></div>{below}"


def paragraphs(*texts: str) -> str:
    r"""Join the texts that are not empty, with an empty line between two.

    >>> paragraphs("One.", "", "Two.")
    'One.\n\nTwo.'
    """
    return "\n\n".join(filter(None, texts))


def to_html(text: str) -> str:
    """Turn Markdown's `code` and **strong** words of a line into HTML.

    >>> to_html("**8** < `x`")
    '<strong>8</strong> &lt; <code>x</code>'
    """
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def spread(values: Sequence[float] | np.ndarray, form: str = ".2f") -> str:
    """Return the median, and in brackets the middle half where rounding does not hide it.

    >>> spread([1.0, 2.0, 3.0]), spread([2.0, 2.001])
    ('2.00 (1.50 to 2.50)', '2.00')
    """
    low, middle, high = (format(value, form) for value in np.percentile(values, [25, 50, 75]))
    return middle if low == high else f"{middle} ({low} to {high})"
