"""The figures of the comparison's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np

from experiments.compare.run_time import envelope, parts, seconds_over_epochs
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import PARTS, policy_colours

Row = dict[str, Any]

LABELS = 140
"""Pixels for the names of policies, the same everywhere, so that charts below each other share an axis."""

MOST_SHAPES = 64
"""Of a policy whose steps per shape are drawn."""


def label(row: Row) -> str:
    """A policy and its grouping, as tables and figures call it."""
    return f"{row['policy'].replace('_', ' ')}, {row['grouping']}"


def figures(results: dict[str, Any]) -> Iterator[Figure]:
    """All figures, from what a run takes to what its batches look like."""
    yield _time(results)
    yield _over_epochs(results)
    if all("batch" in row for row in results["rows"]):
        yield _batches(results)
    yield _lengths(results)
    yield _steps_per_shape(results)


def _colours(results: dict[str, Any]) -> dict[str, str]:
    rows = results["rows"]
    colours = policy_colours([(row["policy"], row["grouping"]) for row in rows])
    return dict(zip(map(label, rows), colours.values(), strict=True))


def _scale(results: dict[str, Any]) -> alt.Color:
    """The colour of a policy, the same in every chart."""
    colours = _colours(results)
    return alt.Color(
        "policy:N",
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=None,
    )


def _names(results: dict[str, Any], **axis: Any) -> alt.Y:
    """Policies below each other, in the order of the table."""
    return alt.Y(
        "policy:N",
        title=None,
        sort=[label(row) for row in results["rows"]],
        axis=alt.Axis(minExtent=LABELS, maxExtent=LABELS, labelLimit=LABELS, ticks=False, domain=False, **axis),
    )


def _time(results: dict[str, Any]) -> Figure:
    rows = [
        {"policy": label(row), "part": part, "seconds": seconds, "order": order}
        for row in results["rows"]
        for order, (part, seconds) in enumerate(parts(row).items())
    ]
    longest, *others = sorted((row["seconds_to_train"] for row in results["rows"]), reverse=True)
    # One bar that dwarfs the others is cut, and its figure says how long it is.
    edge = 1.5 * (others[0] if others and longest > 3 * others[0] else longest)
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height={"band": 0.7}, clip=True)
        .encode(
            y=_names(results),
            x=alt.X("seconds:Q", title="seconds", stack="zero", scale=alt.Scale(domain=[0, edge], nice=False)),
            color=alt.Color("part:N", scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())), legend=None),
            order="order:O",
            tooltip=["policy:N", "part:N", alt.Tooltip("seconds:Q", format=",.1f")],
        )
    )
    totals = [
        {
            "policy": label(row),
            "at": min(row["seconds_to_train"], 0.8 * edge),
            "told": "~" * bool(row["estimated"]) + f"{row['seconds_to_train']:,.0f} s",
            "where": "cut" if row["seconds_to_train"] > 0.8 * edge else "whole",
        }
        for row in results["rows"]
    ]
    ends = (
        alt.Chart(alt.Data(values=totals))
        .mark_text(align="left", dx=5)
        .encode(
            y=_names(results),
            x="at:Q",
            text="told:N",
            color=alt.condition("datum.where == 'cut'", alt.value("white"), alt.value("currentColor")),
        )
    )
    rates = [{"policy": label(row), "rate": row["samples_per_second"]} for row in results["rows"]]
    speed = (
        alt.Chart(alt.Data(values=rates))
        .mark_bar(height={"band": 0.7})
        .encode(
            y=_names(results),
            x=alt.X("rate:Q", title="samples per second, once compiled"),
            color=_scale(results),
            tooltip=["policy:N", alt.Tooltip("rate:Q", format=",.1f", title="samples/s")],
        )
    )
    epochs, height = results["config"]["epochs"], 34 * len(results["rows"]) + 30
    told = "; ".join(f"{label(row)} {row['seconds_to_train']:,.0f} s" for row in results["rows"])
    return Figure(
        "Where the time goes",
        f"All of a run of {epochs} {'epoch' if epochs == 1 else 'epochs'}, and how fast its steps are once everything "
        "is compiled.",
        [
            Chart(
                alt.layer(bars, ends),
                f"Seconds of planning, compiling, stepping and waiting, by policy. {told}.",
                height,
            ),
            Chart(speed, "Samples per second by policy, once compiled.", height),
        ],
        columns=2,
        legend=PARTS,
    )


def _over_epochs(results: dict[str, Any]) -> Figure:
    rows = results["rows"]
    most = max(100, 2 * results["config"]["epochs"])
    epochs = np.unique(np.geomspace(1, most, 40).round().astype(int))
    lines = [
        {"policy": label(row), "epochs": int(count), "seconds": seconds_over_epochs(row, results)(count)}
        for row in rows
        for count in epochs
    ]
    crossings = [
        {
            "policy": label(rows[place]),
            "epochs": first,
            "seconds": seconds_over_epochs(rows[place], results)(first),
            "from": f"fastest from {first:,.0f} epoch{'' if first == 1 else 's'} on",
        }
        for first, place in envelope([seconds_over_epochs(row, results) for row in rows], most)
    ]
    x = alt.X("epochs:Q", scale=alt.Scale(type="log", domain=[1, most], nice=False), title="epochs")
    y = alt.Y("seconds:Q", scale=alt.Scale(type="log"), title="seconds to train", axis=alt.Axis(format="~s"))
    colour = _scale(results)
    base = alt.Chart(alt.Data(values=lines)).encode(x=x, y=y, color=colour)
    tooltip = ["policy:N", "epochs:Q", alt.Tooltip("seconds:Q", format=",.0f")]
    chart = alt.layer(
        base.mark_line(strokeWidth=2.2),
        base.mark_circle(size=120, opacity=0).encode(tooltip=tooltip),
        alt.Chart(alt.Data(values=crossings))
        .mark_point(size=110, filled=True, stroke="currentColor", strokeWidth=1.5, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=["policy:N", "from:N", alt.Tooltip("seconds:Q", format=",.0f")]),
    )
    told = "; ".join(f"{each['policy']}: {each['from']}" for each in crossings)
    return Figure(
        "Time to train, over epochs",
        "Planning and compiling are paid once, steps each epoch. A point marks where a policy becomes the fastest. "
        f"{told}.",
        [Chart(chart, f"Seconds to train over the number of epochs, by policy, both logarithmic. {told}.", 340)],
        legend=_colours(results),
    )


def _batches(results: dict[str, Any]) -> Figure:
    """A batch of each policy, its modalities beside each other, all at one scale."""
    names = results["modalities"]
    width = np.max(
        [
            row["batch"]["padded"] if not row["batch"]["packed"] else np.max(row["batch"]["lengths"], axis=0)
            for row in results["rows"]
        ],
        axis=0,
    )
    gap = 0.015 * width.sum()
    offsets = np.concatenate([[0], np.cumsum(width + gap)[:-1]])
    edge = float(offsets[-1] + width[-1])
    most = max(_lines(row, width) for row in results["rows"])
    charts = []
    colours = _colours(results)
    for row in results["rows"]:
        marks = list(_marks(row, names, width, offsets))
        colour = colours[label(row)]
        share = _share(row)
        chart = (
            alt.Chart(alt.Data(values=marks))
            .mark_rect(stroke=colour, strokeWidth=0.4, fill=colour)
            .encode(
                x=alt.X("from:Q", scale=alt.Scale(domain=[0, edge], nice=False), axis=None),
                x2="to:Q",
                y=alt.Y("top:Q", scale=alt.Scale(domain=[most, 0], nice=False), axis=None),
                y2="bottom:Q",
                fillOpacity=alt.FillOpacity("shade:Q", scale=None),
                tooltip=["modality:N", "what:N", "positions:Q"],
            )
            .properties(title=f"{label(row)}: {100 * share:.0f} % real")
        )
        described = f"One batch of {len(row['batch']['lengths'])} samples under {label(row)}: {100 * share:.0f} % real."
        charts.append(Chart(chart, described, 170))
    return Figure(
        "One batch of each policy, row by row",
        f"A line per sample, {', '.join(names)} from left to right, at one scale: dark is real, pale is padding. "
        "Packed samples lie end to end, in lines as long as the widest. The batch is the one of middle cost.",
        charts,
        columns=2,
    )


def _share(row: Row) -> float:
    """The real share of the batch's positions."""
    batch = row["batch"]
    lines = 1 if batch["packed"] else len(batch["lengths"])
    return float(np.sum(batch["lengths"]) / (lines * np.sum(batch["padded"])))


def _lines(row: Row, width: np.ndarray) -> int:
    batch = row["batch"]
    return int(np.max(np.ceil(batch["padded"] / width))) if batch["packed"] else len(batch["lengths"])


def _marks(row: Row, names: list[str], width: np.ndarray, offsets: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rectangles of real positions and of padding; positions end to end go on in the next line."""
    batch = row["batch"]
    lengths = np.asarray(batch["lengths"])
    for column, name in enumerate(names):
        pieces: list[tuple[int, int, int, bool]] = []  # start, positions, number, real
        if batch["packed"]:
            ends = np.cumsum(lengths[:, column])
            starts = ends - lengths[:, column]
            pieces += [(int(starts[i]), int(n), i, True) for i, n in enumerate(lengths[:, column])]
            pieces.append((int(ends[-1]), int(batch["padded"][column] - ends[-1]), -1, False))
        else:
            for i, n in enumerate(lengths[:, column].tolist()):
                start = i * int(width[column])
                pieces += [(start, n, i, True), (start + n, int(batch["padded"][column]) - n, i, False)]
        for start, positions, number, real in pieces:
            for line, first, last in _wrapped(start, positions, int(width[column])):
                yield {
                    "from": round(float(offsets[column] + first), 1),
                    "to": round(float(offsets[column] + last), 1),
                    "top": line,
                    "bottom": line + 0.86,
                    "shade": (0.72 if number % 2 and batch["packed"] else 0.95) if real else 0.13,
                    "modality": name,
                    "what": f"sample {number + 1}" if real else "padding",
                    "positions": positions,
                }


def _wrapped(start: int, positions: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Line, first and last column of each part of a run of positions in lines of ``width``.

    >>> list(_wrapped(3, 4, 5))
    [(0, 3, 5), (1, 0, 2)]
    """
    end = start + positions
    while start < end:
        line, column = divmod(start, width)
        stop = min(end, (line + 1) * width)
        yield line, column, column + stop - start
        start = stop


def _lengths(results: dict[str, Any]) -> Figure:
    """A histogram per modality over the padded lengths of each policy."""
    drawn = [row for row in results["rows"] if row["shapes"] <= MOST_SHAPES]
    rows_of = results["config"]["batch_size"]
    charts = []
    for column, name in enumerate(results["modalities"]):
        values = np.asarray(results["lengths"])[:, column]
        edges = [
            {
                "policy": label(row),
                "length": shape["lengths"][column] / (rows_of if row["grouping"] == "balanced" else 1),
                "steps": shape["steps"],
            }
            for row in drawn
            for shape in row["shapes_used"]
        ]
        most = float(max([values.max(), *(edge["length"] for edge in edges)]))
        counts, bounds = np.histogram(values, bins=30, range=(0, most))
        bars = [
            {"from": float(low), "to": float(high), "samples": int(count)}
            for low, high, count in zip(bounds, bounds[1:], counts, strict=False)
        ]
        scale = alt.Scale(domain=[0, most], nice=False)
        histogram = (
            alt.Chart(alt.Data(values=bars))
            .mark_rect(fill="#7a8594", fillOpacity=0.75, stroke=None)
            .encode(
                x=alt.X("from:Q", scale=scale, title=None, axis=alt.Axis(labels=False, ticks=False)),
                x2="to:Q",
                y=alt.Y("samples:Q", title="samples", axis=alt.Axis(minExtent=LABELS, maxExtent=LABELS, tickCount=3)),
                tooltip=[
                    alt.Tooltip("from:Q", format=".0f"),
                    alt.Tooltip("to:Q", format=".0f"),
                    alt.Tooltip("samples:Q"),
                ],
            )
            .properties(title=name)
        )
        ticks = (
            alt.Chart(alt.Data(values=edges))
            .mark_tick(thickness=2.4, size=16)
            .encode(
                y=_names({**results, "rows": drawn}),
                x=alt.X("length:Q", scale=scale, title="positions"),
                color=_scale(results),
                tooltip=["policy:N", alt.Tooltip("length:Q", format=",.0f", title="positions"), "steps:Q"],
            )
        )
        charts += [
            Chart(histogram, f"How many samples have which {name} length.", 90),
            Chart(ticks, f"The padded {name} lengths of each policy.", 24 * len(drawn) + 20),
        ]
    ordered = [*charts[0::2], *charts[1::2]]
    left_out = [row for row in results["rows"] if row not in drawn]
    told = "".join(f" {label(row)} has {row['shapes']:,} shapes, which are not drawn." for row in left_out)
    packed = " A packed batch has one capacity for all its samples; what is drawn is its share of one." * any(
        row["grouping"] == "balanced" for row in drawn
    )
    return Figure(
        "Lengths, and what they are padded to",
        f"Bars count samples; below them a mark per padded length.{packed}{told}",
        ordered,
        columns=3,
    )


def _steps_per_shape(results: dict[str, Any]) -> Figure:
    drawn = [row for row in results["rows"] if 1 < row["shapes"] <= MOST_SHAPES]
    charts = []
    for row in drawn:
        shapes = sorted(row["shapes_used"], key=lambda shape: sum(shape["lengths"]))
        values = [
            {
                "policy": label(row),
                "number": number,
                "shape": ", ".join(map("{} {}".format, results["modalities"], shape["lengths"])),
                "steps": shape["steps"],
            }
            for number, shape in enumerate(shapes, start=1)
        ]
        chart = (
            alt.Chart(alt.Data(values=values))
            .mark_bar()
            .encode(
                x=alt.X("number:O", title="shape, from the smallest", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
                y=alt.Y("steps:Q", title="steps"),
                color=_scale(results),
                tooltip=["policy:N", "shape:N", "steps:Q"],
            )
            .properties(title=f"{label(row)}: {row['shapes']} shapes")
        )
        charts.append(Chart(chart, f"Steps of each of the {row['shapes']} shapes of {label(row)}.", 150))
    one = [label(row) for row in results["rows"] if row["shapes"] == 1]
    many = [f"{label(row)} has {row['shapes']:,}" for row in results["rows"] if row["shapes"] > MOST_SHAPES]
    told = f"{' and '.join(one)} run all steps at one shape. " * bool(one) + f"{'; '.join(many)}." * bool(many)
    return Figure("Steps per shape", f"Each shape is a program to compile. {told}", charts, columns=3)
