"""The figures of the evidence's page: of claims, quality and packing, and where those of the other parts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np

from experiments.claims.claim import KINDS
from experiments.evidence.growth import scaling_figures
from experiments.evidence.marks import Bar, bars, height_of, row_names, wrapped
from experiments.evidence.rivals import kernel_figures, shapes_figures, training_figures
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import LIBRARIES, NEUTRAL, policy_colour

Results = dict[str, Any]

SAVINGS = (
    ("bytes of a batch", "3.1", "saved of a batch's bytes", "memory"),
    ("bytes of the step", "3.1", "saved of the step's bytes", "memory"),
    ("bytes at the peak", "3.1", "saved of the peak", "memory"),
    ("time of a forward pass", "3.2.2", "time saved, forward", "time"),
    ("time of a train step", "3.2.2", "time saved, train step", "time"),
    ("time to train, with compiling", "5.1", "time saved, with compiling", "time"),
)
"""What is saved: its name, the claim's section, the figure's name, and which of the :data:`CLAIMED` it is."""

CLAIMED = {"memory": (60, 80), "time": (15, 25)}
"""Per cent, as the description of Algorithm 1 has them."""


def claims_figures(results: Results) -> list[Figure]:
    """Draw what each kind of batches saves, batch by batch, and on other distributions of lengths."""
    of_claim = {claim["section"]: claim["figures"] for claim in results["claims"]}
    return [*_savings(of_claim), *_distributions(of_claim.get("6.4", {}))]


def _savings(of_claim: dict[str, dict[str, list[float]]]) -> list[Figure]:
    dots = [
        {
            "row": wrapped(row),
            "name": row,
            "kind": kind,
            "drawn": max(-100.0, 100 * value),
            "saved": 100 * value,
            "colour": policy_colour(kind),
        }
        for row, section, name, _ in SAVINGS
        for kind in KINDS
        for value in of_claim.get(section, {}).get(f"{name}, {kind}", [])
    ]
    if not dots:
        return []
    kinds = [kind for kind in KINDS if any(dot["kind"] == kind for dot in dots)]
    drawn = [each for each in SAVINGS if any(dot["name"] == each[0] for dot in dots)]
    names = [each[0] for each in drawn]
    bands = [
        {"row": wrapped(row), "kind": kind, "from": low, "to": high, "claimed": f"{low} to {high} %"}
        for row, _, _, which in drawn
        for low, high in [CLAIMED[which]]
        for kind in kinds
    ]
    offset = alt.YOffset("kind:N", sort=kinds)
    y = row_names(names)
    scale = alt.Scale(domain=[-104, 104], nice=False)
    x = alt.X("from:Q", scale=scale, title="saved, % (cut at -100 %)")
    chart = alt.layer(
        alt.Chart(alt.Data(values=bands))
        .mark_bar(height={"band": 1}, color=NEUTRAL, opacity=0.35)
        .encode(y=y, yOffset=offset, x=x, x2="to:Q", tooltip=["claimed:N"]),
        alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(color="currentColor", opacity=0.5).encode(x="at:Q"),
        alt.Chart(alt.Data(values=dots))
        .mark_point(filled=True, size=45, opacity=0.7)
        .encode(
            y=y,
            yOffset=offset,
            x=alt.X("drawn:Q", scale=scale),
            color=alt.Color("colour:N", scale=None),
            tooltip=["name:N", "kind:N", alt.Tooltip("saved:Q", format=",.1f", title="saved, %")],
        ),
    )
    return [
        Figure(
            "What each kind of batches saves against fixed padding",
            "A point is a batch, or the whole run where compiling counts. Left of the line it costs more than fixed "
            "padding; grey is what is claimed of exact padding.",
            [
                Chart(
                    chart,
                    f"Per cent saved against fixed padding by {' and '.join(kinds)} batches: {', '.join(names)}.",
                    (22 + 16 * len(kinds)) * len(names) + 40,
                )
            ],
            legend={**{kind: policy_colour(kind) for kind in kinds}, "as claimed": NEUTRAL},
        )
    ]


def _distributions(figures: dict[str, list[float]]) -> list[Figure]:
    """Bytes saved and the real cost, by distribution of lengths."""
    charts, kinds = [], []
    for what, title in (("saved", "bytes of batches saved, %"), ("real cost", "real cost, %")):
        rows = []
        for key, values in figures.items():
            distribution, _, rest = key.partition(": ")
            kind = rest.removeprefix(f"{what}, ")
            if rest.startswith(f"{what}, ") and kind in KINDS:
                low, middle, high = (100 * np.percentile(values, [0, 50, 100])).tolist()
                rows.append({"row": distribution, "kind": kind, "median": middle, "lowest": low, "highest": high})
        if not rows:
            continue
        kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
        names = list(dict.fromkeys(row["row"] for row in rows))
        chart = (
            alt.Chart(alt.Data(values=rows))
            .mark_bar()
            .encode(
                y=row_names(names),
                yOffset=alt.YOffset("kind:N", sort=kinds),
                x=alt.X("median:Q", title=title, scale=alt.Scale(domain=[0, 100])),
                color=alt.Color(
                    "kind:N",
                    scale=alt.Scale(domain=kinds, range=[policy_colour(kind) for kind in kinds]),
                    legend=None,
                ),
                tooltip=[
                    alt.Tooltip("row:N", title="lengths"),
                    "kind:N",
                    *(alt.Tooltip(f"{key}:Q", format=",.1f") for key in ("median", "lowest", "highest")),
                ],
            )
        )
        charts.append(Chart(chart, f"By distribution of lengths: {title}.", (12 + 14 * len(kinds)) * len(names) + 30))
    if not charts:
        return []
    return [
        Figure(
            "On other distributions of lengths",
            "Batches of as many samples each, against fixed padding to the longest of all; medians of the seeds.",
            charts,
            columns=2,
            legend={kind: policy_colour(kind) for kind in kinds},
        )
    ]


def quality_figures(results: Results) -> list[Figure]:
    """Weighted F1 and loss of each seed, under each padding."""
    rows = results["rows"]
    paddings = list(dict.fromkeys(row["padding"] for row in rows))
    charts = []
    for key, title in (("weighted_f1", "weighted F1 on test"), ("loss", "loss on test")):
        dots = [
            {
                "row": wrapped(_padding_name(row["padding"])),
                "seed": row["seed"],
                "value": row["test"][key],
                "colour": policy_colour(row["padding"]),
            }
            for row in rows
        ]
        values = [dot["value"] for dot in dots]
        room = 0.1 * (max(values) - min(values)) or 0.01
        base = alt.Chart(alt.Data(values=dots)).encode(y=row_names([_padding_name(each) for each in paddings]))
        scale = alt.Scale(domain=[min(values) - room, max(values) + room], nice=False, zero=False)
        x = alt.X("value:Q", title=title, scale=scale)
        colour = alt.Color("colour:N", scale=None)
        chart = alt.layer(
            base.mark_tick(thickness=3, size=20).encode(
                x=alt.X("mean(value):Q", title=title, scale=scale),
                color=colour,
                tooltip=[alt.Tooltip("mean(value):Q", format=".3f", title="mean")],
            ),
            base.mark_point(filled=True, size=60, opacity=0.75).encode(
                x=x, color=colour, tooltip=["seed:N", alt.Tooltip("value:Q", format=".3f", title=title)]
            ),
        )
        charts.append(Chart(chart, f"{title.capitalize()} of each seed, by padding.", 34 * len(paddings) + 40))
    floor = results.get("floors", {})
    told = "; ".join(f"{name} {value:.3f}" for name, value in floor.items())
    return [
        Figure(
            "The same model under each padding",
            "A point is a seed, a line their mean. The axes begin where the points do."
            + f" What needs no network has a weighted F1 of: {told}." * bool(told),
            charts,
            columns=2,
        )
    ]


def _padding_name(padding: str) -> str:
    policy, _, grouping = padding.partition("/")
    return f"{policy}, {grouping} batches" if grouping else policy


def packing_figures(results: Results) -> list[Figure]:
    """How full packed batches are, and those of other packers."""
    rows = [row for row in results["rows"] if row["alignment"] == 8 and len(row["capacities"]) == row["max_shapes"]]
    found = []
    if rows:
        names = [_packing_name(row) for row in rows]
        fills = [
            Bar(name, [row["fill"]["total"]], policy_colour("packed"), row["bound"]["total"])
            for name, row in zip(names, rows, strict=True)
        ]
        bounds = [{"row": wrapped(name), "bound": row["bound"]["total"]} for name, row in zip(names, rows, strict=True)]
        chart = alt.layer(
            bars(fills, "fill; the line is the bound", ".3f"),
            alt.Chart(alt.Data(values=bounds))
            .mark_tick(color="currentColor", thickness=2.5, size=24)
            .encode(y=row_names(names), x="bound:Q", tooltip=[alt.Tooltip("bound:Q", format=".3f")]),
        )
        found.append(
            Figure(
                "Fill of capacities in multiples of 8",
                "Real positions of all that the batches hold, by lengths, batch size and number of shapes.",
                [Chart(chart, "Fill of packed batches, and the bound of any packing.", height_of(names))],
            )
        )
    return found + _packers(results.get("peers", {}).get("rows", []))


def _packing_name(row: Results) -> str:
    shapes = "1 shape" if row["max_shapes"] == 1 else f"{row['max_shapes']} shapes"
    return f"{row['lengths']}, batches of {row['batch_size']}, {shapes}"


def _packers(rows: list[Results]) -> list[Figure]:
    """Other packers in the same capacities of several modalities: fill, and how many samples a batch has."""
    rows = [row for row in rows if len(row["modalities"]) > 1]
    if not rows:
        return []
    names = [row["packer"] for row in rows]
    colours = [
        policy_colour("packed")
        if "multimodal_pad" in name
        else LIBRARIES.get(name.split()[0].lower(), LIBRARIES["numpy"])
        for name in names
    ]
    fills = [Bar(name, [row["fill"]["total"]], colour) for name, row, colour in zip(names, rows, colours, strict=True)]
    counts = [
        {
            "row": wrapped(name),
            "colour": colour,
            **dict(zip(("fewest", "median", "most"), row["samples_per_batch"], strict=True)),
        }
        for name, row, colour in zip(names, rows, colours, strict=True)
    ]
    base = alt.Chart(alt.Data(values=counts)).encode(y=row_names(names), color=alt.Color("colour:N", scale=None))
    tooltip = ["fewest:Q", "median:Q", "most:Q"]
    samples = alt.layer(
        base.mark_bar(height=5).encode(x=alt.X("fewest:Q", title="samples in a batch"), x2="most:Q", tooltip=tooltip),
        base.mark_point(filled=True, size=90, opacity=1).encode(x="median:Q", tooltip=tooltip),
    )
    return [
        Figure(
            "Other packers in the same capacities",
            f"{', '.join(rows[0]['modalities'])} in one capacity each. A compiled program must have room for the most "
            "samples that a batch may have.",
            [
                Chart(bars(fills, "fill", ".3f"), "Fill of each packer.", height_of(names)),
                Chart(samples, "Fewest, median and most samples in a batch of each packer.", height_of(names)),
            ],
            columns=2,
        )
    ]


FIGURES: dict[str, Callable[[Results], list[Figure]]] = {
    "claims": claims_figures,
    "training": training_figures,
    "shapes": shapes_figures,
    "packing": packing_figures,
    "kernel": kernel_figures,
    "scaling": scaling_figures,
    "quality": quality_figures,
}
"""The figures of each part, from its results."""
