"""Charts of a page: drawn in the browser by Vega, in the page's own colours, with values on hover."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import vl_convert

Record = dict[str, Any]

_EXPORT = "window.vegaEmbed = vegaEmbed;"

_DRAW = """
for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(place.querySelector("script").textContent);
  const target = place.appendChild(document.createElement("div"));
  target.style.width = "100%";
  const options = { mode: "vega-lite", actions: false, renderer: "svg", tooltip: { theme: "custom" } };
  vegaEmbed(target, spec, options).catch((error) => {
    target.textContent = "This chart can't be drawn: " + error.message;
    throw error;
  });
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
"""

_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "domainOpacity": 0.4,
        "tickOpacity": 0.4,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 160,
    },
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "labelLimit": 260},
    "text": {"color": "currentColor", "fontSize": 12},
    "title": {"color": "currentColor", "anchor": "start", "fontSize": 13, "fontWeight": 600},
}


class Chart(NamedTuple):
    """A chart of a figure.

    Attributes:
        chart: one view, or layers of one, so that it can be as wide as its place.
        description: what it shows, in words, for readers that don't see it.
        height: in pixels.
    """

    chart: Any
    description: str
    height: int = 240


class Figure(NamedTuple):
    """Charts side by side, or below each other where there is no room, under a heading.

    Attributes:
        title: the heading.
        caption: what to see in it.
        charts: from left to right.
        columns: how many of them stand beside each other at most.
        legend: the colour of each name, which stands above the charts and wraps.
    """

    title: str
    caption: str
    charts: Sequence[Chart]
    columns: int = 1
    legend: Mapping[str, str] = {}


def scripts() -> str:
    """Return what draws the charts: Vega, Vega-Lite and Vega-Embed as one script, 0.9 MB."""
    return f"(() => {{{vl_convert.javascript_bundle(_EXPORT)}}})();{_DRAW}"


def figure_html(figure: Figure, name: str, level: int = 2) -> str:
    """Return the figure as HTML; ``name`` begins its charts' identifiers, ``level`` is that of its heading."""
    charts = "".join(
        f'<div class="chart" id="{name}-{place}" style="min-height:{chart.height + 40}px">'
        f'<script type="application/json">{_json(chart)}</script></div>'
        for place, chart in enumerate(figure.charts)
    )
    keys = "".join(
        f'<li><span style="background:{colour}"></span>{html.escape(each)}</li>'
        for each, colour in figure.legend.items()
    )
    legend = f"<ul class=legend>{keys}</ul>" if keys else ""
    return (
        f'<figure id="{name}"><h{level}>{html.escape(figure.title)}</h{level}>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption>"
        f'{legend}<div class="charts columns-{figure.columns}">{charts}</div></figure>'
    )


def _json(chart: Chart) -> str:
    """Return the chart's specification, safe inside of a script element."""
    spec = (
        chart.chart.properties(width="container", height=chart.height, description=chart.description)
        .configure(**_CONFIG)
        .to_dict()
    )
    del spec["$schema"]  # the version of Altair, which changes nothing that is drawn
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return json.dumps(spec).replace("</", "<\\/")


def to_png(figure: Figure, width: int) -> bytes:
    """Return the charts of a figure as one picture on white, each ``width`` pixels wide, at twice that resolution."""
    drawn = [each.chart.properties(width=width, height=each.height) for each in figure.charts]
    rows = [alt.hconcat(*drawn[i : i + figure.columns], spacing=30) for i in range(0, len(drawn), figure.columns)]
    spec = alt.vconcat(*rows, spacing=24, padding=12).configure(**{**_CONFIG, "background": "white"}).to_dict()
    return vl_convert.vegalite_to_png(spec, scale=2)
