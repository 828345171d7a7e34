"""The figures of the comparison's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np

from experiments.compare.batches import batches
from experiments.compare.naming import colours, label
from experiments.compare.run_time import envelope, parts, seconds_over_epochs
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import NEUTRAL, PARTS

Row = dict[str, Any]

LABELS = 140
"""Pixels for the names of policies, the same everywhere, so that charts below each other share an axis."""

MOST_SHAPES = 64
"""Of a policy whose steps per shape are drawn."""


def figures(results: dict[str, Any]) -> Iterator[Figure]:
    """All figures, from what a run takes to what its batches look like."""
    yield _time(results)
    yield _over_epochs(results)
    if all("batch" in row for row in results["rows"]):
        yield batches(results)
    yield _lengths(results)
    yield _steps_per_shape(results)


def _scale(results: dict[str, Any]) -> alt.Color:
    """Return the colour of a policy, the same in every chart."""
    chosen = colours(results)
    return alt.Color(
        "policy:N",
        scale=alt.Scale(domain=list(chosen), range=list(chosen.values())),
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
            "at": min(row["seconds_to_train"], edge),
            "told": "~" * bool(row["estimated"]) + f"{row['seconds_to_train']:,.0f} s",
            "where": "cut" if row["seconds_to_train"] > 0.8 * edge else "whole",
        }
        for row in results["rows"]
    ]
    told = alt.Chart(alt.Data(values=totals)).encode(y=_names(results), x="at:Q", text="told:N")
    # Behind a bar, or on it where there is no room behind.
    behind = told.transform_filter("datum.where == 'whole'").mark_text(align="left", dx=5, color="currentColor")
    within = told.transform_filter("datum.where == 'cut'").mark_text(align="right", dx=-5, color="white")
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
    texts = "; ".join(f"{label(row)} {row['seconds_to_train']:,.0f} s" for row in results["rows"])
    return Figure(
        "Where the time goes",
        f"All of a run of {epochs} {'epoch' if epochs == 1 else 'epochs'}, and how fast its steps are once everything "
        "is compiled.",
        [
            Chart(
                alt.layer(bars, behind, within),
                f"Seconds of planning, compiling, stepping and waiting, by policy. {texts}.",
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
        legend=colours(results),
    )


def _lengths(results: dict[str, Any]) -> Figure:
    """Return a histogram per modality over the padded lengths of each policy."""
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
            .mark_rect(fill=NEUTRAL, fillOpacity=0.75, stroke=None)
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
