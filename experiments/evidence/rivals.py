"""Figures of other libraries beside this project: training, rules for shapes, and padding on the host."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from experiments.evidence.marks import Bar, bars, height_of, logarithmic, row_names, wrapped
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import LIBRARIES, POLICIES, policy_colour

Results = dict[str, Any]

RULES = {"fixed padding": "fixed", "own maxima": "exact", "powers of two": "powers_of_two", "planned": "planned"}
"""Rules of this project by how they begin, and the policy whose colour they have."""


def contender_name(row: Results) -> str:
    """Return a contender in training, and how its batches are grouped."""
    return f"{row['name']}, {row['batches'].split('/')[1]}"


def _contender_colour(row: Results) -> str:
    return LIBRARIES["torch"] if row["library"].startswith("torch") else policy_colour(row["batches"])


def training_figures(results: Results) -> list[Figure]:
    """Draw samples per second, and seconds over epochs."""
    rows = results["training"]["rows"]
    names = [contender_name(row) for row in rows]
    colours = [_contender_colour(row) for row in rows]
    rates = [Bar(name, row["samples_per_second"], c) for name, row, c in zip(names, rows, colours, strict=True)]
    points = [
        {"row": wrapped(name), "name": name, "colour": colour, "epochs": int(epochs), "seconds": seconds}
        for name, row, colour in zip(names, rows, colours, strict=True)
        for epochs, seconds in row["seconds"].items()
    ]
    every = [point["seconds"] for point in points]
    scale = logarithmic(min(every), max(every))
    base = alt.Chart(alt.Data(values=points)).encode(y=row_names(names), color=alt.Color("colour:N", scale=None))
    tooltip = ["name:N", "epochs:Q", alt.Tooltip("seconds:Q", format=",.0f")]
    spans = alt.layer(
        base.mark_line(strokeWidth=2, opacity=0.6).encode(
            x=alt.X(
                "seconds:Q", scale=scale, title="seconds, compiling included", axis=alt.Axis(tickCount=5, format="~s")
            ),
            detail="name:N",
        ),
        base.mark_point(filled=True, size=90, opacity=1).encode(x="seconds:Q", tooltip=tooltip),
        base.mark_text(dy=-11, fontSize=10, color="currentColor").encode(
            x="seconds:Q", text="epochs:Q", color=alt.value("currentColor")
        ),
    )
    told = "; ".join(f"{row['name']} {np.median(row['samples_per_second']):,.0f}" for row in rows)
    shown = {"fixed padding": "fixed", "exact padding": "exact", "planned shapes": "planned", "packed": "packed"}
    legend = {name: policy_colour(policy) for name, policy in shown.items() if policy_colour(policy) in colours}
    if LIBRARIES["torch"] in colours:
        legend["PyTorch"] = LIBRARIES["torch"]
    epochs = list(dict.fromkeys(point["epochs"] for point in points))
    return [
        Figure(
            "Training the same model on the same samples",
            f"On the left, once compiled: median and middle half of the turns. On the right, seconds of "
            f"{', '.join(map(str, epochs[:-1]))} and {epochs[-1]} epochs from left to right, logarithmic.",
            [
                Chart(
                    bars(rates, "samples per second, once compiled", ",.0f"),
                    f"Samples per second: {told}.",
                    height_of(names),
                ),
                Chart(spans, "Seconds to train over the number of epochs, by contender.", height_of(names)),
            ],
            columns=2,
            legend=legend,
        )
    ]


def _rule(row: Results) -> tuple[str, str]:
    """Return the kind of a rule, which is a package or a policy of this project, and its colour."""
    if row["package"]:
        return row["package"], LIBRARIES.get(row["package"], POLICIES["fixed"])
    kinds = ((name, policy_colour(key)) for name, key in RULES.items() if row["policy"].startswith(name))
    return next(kinds, (row["policy"], POLICIES["fixed"]))


def shapes_figures(results: Results) -> list[Figure]:
    """Draw the real cost against the number of shapes, for each rule."""
    rows = [row for row in results["shapes"] if row["distribution"] == "meld"]
    if not rows:
        return []
    points = []
    for row in rows:
        kind, colour = _rule(row)
        ours = kind == "planned" and row["grouping"] == "shape"
        points.append(
            {
                "rule": row["policy"],
                "of": row["package"] or "multimodal_pad",
                "alike": row["grouping"],
                "shapes": row["shapes"],
                "real": 100 * row["cost_efficiency"],
                "colour": colour,
                "shape": "square" if kind == "planned" else "circle",
                "told": f"planned, {row['shapes']}" if ours else "",
            }
        )
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X(
            "shapes:Q",
            scale=logarithmic(1, max(point["shapes"] for point in points)),
            title="batch shapes in an epoch",
            axis=alt.Axis(format="~s", tickCount=4),
        ),
        y=alt.Y("real:Q", scale=alt.Scale(domain=[0, 100]), title="real cost, %"),
    )
    chart = alt.layer(
        base.mark_point(filled=True, size=80, opacity=0.85).encode(
            color=alt.Color("colour:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            tooltip=["rule:N", "of:N", "alike:N", "shapes:Q", alt.Tooltip("real:Q", format=".1f", title="real, %")],
        ),
        base.mark_text(align="right", dx=-8, dy=-6, color="currentColor").encode(text="told:N"),
    )
    return [
        Figure(
            "How much is real, and in how many shapes, on MELD's lengths",
            "A point is a rule; high is little padding, left are few programs. Marked are plans with batches grouped "
            "by length.",
            [Chart(chart, "The real cost against the number of batch shapes, by rule.", 380)],
            legend=dict(_rule(row) for row in rows),
        )
    ]


def kernel_figures(results: Results) -> list[Figure]:
    """Speed of padding on the host, as a share of a plain copy."""
    rows = results["kernel"]["rows"]
    copying = rows[0]["bytes"] / np.array(rows[0]["seconds"])
    shares = [
        Bar(row["name"], row["bytes"] / np.array(row["seconds"]) / copying, _kernel_colour(row["name"])) for row in rows
    ]
    names = [row["name"] for row in rows]
    return [
        Figure(
            "Padding on the host, as a share of a plain copy",
            "Bytes of output per second against np.copyto of ready batches, turn by turn: median and middle half.",
            [Chart(bars(shares, "share of np.copyto's speed"), "Speed of padding, by what pads.", height_of(names))],
        )
    ]


def _kernel_colour(name: str) -> str:
    if "Batcher" in name or name.startswith("pad_samples"):
        return policy_colour("planned")
    libraries = {"torch": "torch", "tf.data": "tensorflow", "Grain": "grain"}
    return next((LIBRARIES[key] for start, key in libraries.items() if name.startswith(start)), POLICIES["fixed"])
