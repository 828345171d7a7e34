"""The figures of the comparison's report, as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from experiments.lib.colours import COLOURS

INK, FAINT = "#1d2733", "#b9c2cc"
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def figures(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each figure."""
    drawings = (
        (
            _efficiency,
            "Share of the padded positions, per modality and in total, and of the cost (FLOPs of the model) "
            "that belongs to real data. The rest is padding.",
        ),
        (
            _shapes,
            "Batch shapes over the samples: grey dots are samples, squares are the padded lengths that batches ran "
            "at, larger where more steps used them. Two modalities are drawn; the others have lengths of their own.",
        ),
        (
            _time,
            "Time to train, split into planning, compiling before and during training, stepping and waiting for data. "
            "Paler bars are estimates from the steps measured; a bar that runs off the edge is longer than drawn.",
        ),
        (
            _compiles,
            "XLA compilations over the steps: a line where they were observed, dots where the schedule alone tells how "
            "many shapes there are to compile.",
        ),
    )
    with mpl.rc_context(_STYLE):
        for place, (draw, caption) in enumerate(drawings):
            figure = draw(results)
            text = io.StringIO()
            figure.savefig(text, format="svg", dpi=200, bbox_inches="tight", metadata={"Date": None, "Creator": None})
            svg = text.getvalue()[text.getvalue().index("<svg") :]
            # One page holds all figures, so each gets identifiers of its own.
            yield caption, re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>figure{place}-", svg)


def label(row: dict[str, Any]) -> str:
    """A policy and its grouping, as tables and figures call it."""
    return f"{row['policy'].replace('_', ' ')}, {row['grouping']}"


def _efficiency(results: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    groups = [*results["modalities"], "total", "cost"]
    width = 0.8 / len(results["rows"])
    for place, row in enumerate(results["rows"]):
        shares = {**row["position_efficiency"], "cost": row["cost_efficiency"]}
        at = np.arange(len(groups)) + (place - (len(results["rows"]) - 1) / 2) * width
        bars = axes.bar(at, [100 * shares[g] for g in groups], 0.92 * width, color=_colour(place), label=label(row))
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    axes.set_xticks(range(len(groups)), [g if g == "cost" else f"{g}\npositions" for g in groups])
    axes.set_ylabel("real, %")
    axes.set_ylim(0, 108)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _shapes(results: dict[str, Any]) -> Figure:
    names, rows = results["modalities"], results["rows"]
    lengths = np.array(results["lengths"])
    across, up = (1, 0) if len(names) > 1 else (0, 0)
    count = min(4, len(rows))
    lines = -(-len(rows) // count)
    figure = Figure(figsize=(9, 2.6 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, count, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(rows):
            axes.set_visible(False)
            continue
        row = rows[place]
        axes.scatter(lengths[:, across], lengths[:, up], s=2, color=FAINT, rasterized=True, linewidths=0)
        shapes = np.array([shape["lengths"] for shape in row["shapes_used"]])
        steps = np.array([shape["steps"] for shape in row["shapes_used"]])
        areas = 12 + 160 * steps / steps.max() if len(steps) < 200 else 6
        axes.scatter(
            shapes[:, across],
            shapes[:, up],
            s=areas,
            marker="s",
            facecolor="none",
            edgecolor=_colour(place),
            linewidth=1.1,
        )
        axes.set_title(f"{label(row)}\n{row['shapes']:,} {'shape' if row['shapes'] == 1 else 'shapes'}", fontsize=9)
        axes.set_xlabel(f"{names[across]}, positions")
        axes.tick_params(labelbottom=True, labelleft=True)
    panels[0, 0].set_ylabel(f"{names[up]}, positions")
    return figure


def _time(results: dict[str, Any]) -> Figure:
    rows = results["rows"]
    figure = Figure(figsize=(9, 0.5 + 0.62 * len(rows)))
    axes = figure.subplots()
    longest, *others = sorted((row["seconds_to_train"] for row in rows), reverse=True)
    # One bar that dwarfs the others is cut, and its figure says how long it is.
    edge = 1.25 * others[0] if others and longest > 3 * others[0] else longest
    for place, row in enumerate(rows):
        waiting = float(np.mean(row["measured"]["wait_seconds"])) * row["steps"]
        before, during = row["compile_seconds_before"], row["compile_seconds_during"]
        stepping = row["seconds_to_train"] - row["preparing_seconds"] - before - during - waiting
        left, alpha = 0.0, 0.55 if row["estimated"] else 1.0
        parts = (
            ("planning", row["preparing_seconds"], COLOURS[2]),
            ("compiling before", before, COLOURS[3]),
            ("compiling during", during, COLOURS[5]),
            ("stepping", stepping, COLOURS[0]),
            ("waiting for data", waiting, COLOURS[1]),
        )
        for name, seconds, colour in parts:
            shown = max(0.0, min(seconds, edge - left))
            axes.barh(
                place, shown, left=left, height=0.62, color=colour, alpha=alpha, label=name if not place else None
            )
            left += seconds
        total = ("~" if row["estimated"] else "") + f"{left:,.0f} s"
        axes.text(min(left, edge), place, f" {total}" if left <= edge else f" ▸ {total}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds for {results['config']['epochs']} epochs")
    axes.set_xlim(0, 1.14 * edge)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def _compiles(results: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    for place, row in enumerate(results["rows"]):
        expected = row["shapes_so_far"]
        _steps_line(axes, range(len(expected)), expected, color=_colour(place), linestyle=":", linewidth=1.2)
        observed = row["measured"]
        _steps_line(
            axes, observed["places"], observed["backend_compiles"], color=_colour(place), linewidth=2, label=label(row)
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_ylabel("compilations so far")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _steps_line(axes: Axes, places: Sequence[int], counts: list[int], **style: Any) -> None:
    axes.step(np.asarray(places) + 1, counts, where="post", **style)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
