"""The marks that figures of the evidence share: rows with names, bars with their spread, and points."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np

LABELS = 150
"""Pixels for the names of rows."""

LINE = 20
"""Characters of a line of a row's name."""


class Bar(NamedTuple):
    """A row of a chart of bars.

    Attributes:
        name: of the row.
        values: one per repeat; the bar ends at their median, and a line spans their middle half.
        colour: of the bar.
        reach: how far something else in the row reaches, behind which the figure stands.
    """

    name: str
    values: Sequence[float] | np.ndarray
    colour: str
    reach: float = 0.0


def wrapped(name: str) -> str:
    """Return a name in lines that fit beside a chart."""
    return "\n".join(textwrap.wrap(name, LINE, break_long_words=False))


def row_names(names: Sequence[str], **axis: Any) -> alt.Y:
    """Rows below each other, in the order given, as field ``row``, which is :func:`wrapped`."""
    return alt.Y(
        "row:N",
        title=None,
        sort=[wrapped(name) for name in names],
        axis=alt.Axis(
            labelExpr="split(datum.label, '\\n')",
            minExtent=LABELS,
            maxExtent=LABELS,
            labelLimit=LABELS,
            ticks=False,
            domain=False,
            **axis,
        ),
    )


def height_of(names: Sequence[str]) -> int:
    """Pixels for so many rows, whose names may take several lines."""
    lines = max(len(wrapped(name).split("\n")) for name in names)
    return max(28, 15 * lines + 6) * len(names) + 30


def bars(rows: Sequence[Bar], title: str, form: str = ",.2f") -> Any:
    """Bars to the medians, with the middle half as a line and the figure behind it.

    Args:
        rows: from top to bottom.
        title: of the axis.
        form: of a figure, as D3 and Python know it.
    """
    data = []
    for row in rows:
        low, middle, high = np.percentile(row.values, [25, 50, 75]).tolist()
        data.append(
            {
                "row": wrapped(row.name),
                "name": row.name,
                "low": low,
                "median": middle,
                "high": high,
                "end": max(high, row.reach),
                "told": format(middle, form),
                "colour": row.colour,
            }
        )
    most = max(each["end"] for each in data)
    base = alt.Chart(alt.Data(values=data)).encode(y=row_names([row.name for row in rows]))
    x = alt.X("median:Q", title=title, scale=alt.Scale(domain=[0, 1.3 * most], nice=False), axis=alt.Axis(tickCount=5))
    tooltip = [alt.Tooltip("name:N", title="row")] + [
        alt.Tooltip(f"{key}:Q", title=name, format=form)
        for key, name in (("median", "median"), ("low", "lower quartile"), ("high", "upper quartile"))
    ]
    return alt.layer(
        base.mark_bar(height={"band": 0.66}).encode(x=x, color=alt.Color("colour:N", scale=None), tooltip=tooltip),
        base.mark_rule(color="currentColor", strokeWidth=1.5).encode(x="low:Q", x2="high:Q"),
        base.mark_text(align="left", dx=6, color="currentColor").encode(x="end:Q", text="told:N"),
    )


def logarithmic(low: float, high: float) -> alt.Scale:
    """Return a logarithmic scale with some room around the values."""
    room = (high / low) ** 0.06 if high > low else 1.5
    return alt.Scale(type="log", domain=[low / room, high * room], nice=False)
