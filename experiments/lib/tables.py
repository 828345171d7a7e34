"""Tables of results, told once and shown in Markdown, in HTML, and in the pages that are filled from results."""

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
        rows: likewise.
        note: what one must know to read it; may hold Markdown's `code`.
        text_columns: how many columns from the left are words, and not figures.
        folded: a page shows its title alone, until it is opened.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text_columns: int = 1
    folded: bool = False

    def markdown(self) -> str:
        """The table, and its note below it."""
        figures = len(self.heading) - self.text_columns
        rule = "|" + "---|" * self.text_columns + "---:|" * figures
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.heading, *self.rows)]
        lines.insert(1, rule)
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def html(self) -> str:
        """The same, in a box that scrolls where the window is narrow."""

        def row(cells: Sequence[str], tag: str) -> str:
            kinds = ["words" if i < self.text_columns else "figures" for i in range(len(cells))]
            return "".join(
                f"<{tag} class={kind}>{to_html(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
            )

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        # A column of names without a name of its own has a cell above it, and no heading.
        head = f"<thead><tr>{row(self.heading, 'th')}</tr></thead>".replace("<th class=words></th>", "<td></td>")
        note = f"<p class=note>{to_html(self.note)}</p>" if self.note else ""
        kind = "prose" if self.text_columns == len(self.heading) else "figures"
        region = f'class="scroll {kind}" tabindex=0 role=region aria-label="{html.escape(self.title)}"'
        return f"<div {region}><table>{head}<tbody>{body}</tbody></table></div>{note}"


def to_html(text: str) -> str:
    """A line with Markdown's `code` and **strong** words, as HTML.

    >>> to_html("**8** < `x`")
    '<strong>8</strong> &lt; <code>x</code>'
    """
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def spread(values: Sequence[float] | np.ndarray, form: str = ".2f") -> str:
    """The median, and the middle half in brackets where it is wider than what is printed.

    >>> spread([1.0, 2.0, 3.0]), spread([2.0, 2.001])
    ('2.00 (1.50 to 2.50)', '2.00')
    """
    low, middle, high = (format(value, form) for value in np.percentile(values, [25, 50, 75]))
    return middle if low == high else f"{middle} ({low} to {high})"
