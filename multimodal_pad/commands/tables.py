"""Tables of commands, none wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multimodal_pad.text_table import fit_columns

_BETWEEN = 3
"""Width of rich's line and spaces between two columns."""

_AROUND = 4
"""Width of rich's lines and spaces left and right of the table."""


def print_table(console: Console, title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, whose first column names each row; all text may have rich's markup.

    Columns that have no room beside the others stand in another table below, with the first one repeated.

    >>> console = Console(width=27, color_system=None)
    >>> print_table(console, "lengths", ["modality", "mean", "max"], [["audio", "811.645", "1,596"]])
    lengths
    ┏━━━━━━━━━━┳━━━━━━━━━┓
    ┃ modality ┃    mean ┃
    ┡━━━━━━━━━━╇━━━━━━━━━┩
    │ audio    │ 811.645 │
    └──────────┴─────────┘
    ┏━━━━━━━━━━┳━━━━━━━┓
    ┃ modality ┃   max ┃
    ┡━━━━━━━━━━╇━━━━━━━┩
    │ audio    │ 1,596 │
    └──────────┴───────┘
    """
    columns = list(zip(heading, *rows, strict=True))
    widths = [max(Text.from_markup(cell).cell_len for cell in column) for column in columns]
    fitted = fit_columns(widths, 1, console.width - _AROUND, _BETWEEN)
    console.print(title, style="italic", highlight=False)
    for block in fitted.blocks:
        table = Table()
        for place in block:
            justify, width = "right" if place else "left", fitted.widths[place]
            table.add_column(heading[place], justify=justify, overflow="fold", min_width=width, max_width=width)
        for row in rows:
            table.add_row(*(row[place] for place in block))
        console.print(table)
