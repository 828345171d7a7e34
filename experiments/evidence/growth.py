"""Figures of what grows how: time, memory and compilations along each axis, with the fitted power laws."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from experiments.evidence.marks import logarithmic
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import COLOURS, policy_colour
from experiments.scaling.report import AXES, PANELS, Axis, Series

Results = dict[str, Any]

HEIGHT = 190


def scaling_figures(results: Results) -> list[Figure]:
    """Draw a figure per axis: time, memory, and compilations or the time that they take."""
    found = []
    for axis in AXES:
        if axis.key not in results["points"]:
            continue
        charts = [chart for panel in PANELS if (chart := _panel(results, axis, panel)) is not None]
        if charts:
            caption = f"Over {axis.size}; points are medians, lines the power laws, both axes logarithmic."
            found.append(Figure(axis.title, caption, charts, columns=3))
    return found


def _values(point: Results, key: str) -> list[float]:
    value = point.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


def _panel(results: Results, axis: Axis, panel: str) -> Chart | None:
    """Draw the series of one panel; None where none was measured."""
    rows, told = [], []
    for series in (series for series in axis.series if series.panel == panel):
        known = [
            (point["size"], np.array(_values(point, series.key)))
            for point in results["points"][axis.key]
            if _values(point, series.key)
        ]
        if not known:
            continue
        fit = results["exponents"][axis.key].get(series.key)
        name = series.name + (f" ~ {axis.letter}^{round(fit['exponent'], 2) + 0.0:.2f}" if fit else "")
        told.append((name, series))
        for size, values in known:
            low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
            law = fit["factor"] * size ** fit["exponent"] if fit else None
            rows.append({"series": name, "size": size, "median": middle, "low": low, "high": high, "law": law})
    if not rows:
        return None
    sizes = sorted({row["size"] for row in rows})
    heights = [row[key] for row in rows for key in ("median", "law") if row[key]]
    x = alt.X(
        "size:Q",
        scale=logarithmic(sizes[0], sizes[-1]),
        title=f"{axis.size} {axis.letter}",
        axis=alt.Axis(values=sizes, format="~s", labelOverlap=True),
    )
    y = {
        "scale": logarithmic(min(heights), max(heights)),
        "title": _unit(panel, [series for _, series in told]),
        "axis": alt.Axis(tickCount=4, format="~s"),
    }
    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=[name for name, _ in told], range=_colours([series for _, series in told])),
        legend=alt.Legend(orient="bottom", title=None, columns=1),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=colour)
    form = ".3~s"
    tooltip = ["series:N", "size:Q"] + [
        alt.Tooltip(f"{key}:Q", format=form, title=title)
        for key, title in (("median", "median"), ("low", "lower quartile"), ("high", "upper quartile"))
    ]
    chart = alt.layer(
        base.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(y=alt.Y("law:Q", **y)),
        base.mark_point(filled=True, size=60, opacity=1).encode(y=alt.Y("median:Q", **y), tooltip=tooltip),
    )
    names = ", ".join(name for name, _ in told)
    return Chart(chart, f"{panel.capitalize()} over {axis.size}: {names}.", HEIGHT)


def _unit(panel: str, drawn: list[Series]) -> str:
    """Return the title of the upright axis; of the compilations' panel, which has a time where they are not counted."""
    if panel == "compilations" and any(series.unit for series in drawn):
        return "compile time, s"
    return f"{panel}, {PANELS[panel]}" if PANELS[panel] else panel


def _colours(drawn: list[Series]) -> list[str]:
    """Colours for the series of a panel: of packed batches that of the policy, or one near it."""
    packed = iter([policy_colour("packed"), COLOURS[6]])
    others = iter([policy_colour("planned"), COLOURS[3], COLOURS[1], COLOURS[5]])
    return [next(packed if "pack" in series.key else others) for series in drawn]
