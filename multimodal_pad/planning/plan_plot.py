"""A shape plan as a picture: its shapes over the lengths, what each of them costs, and what more would gain."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.picture import (
    FAINT,
    INK,
    OTHER,
    POLICIES,
    SOFT,
    check_plots,
    picture,
    shortened,
    write_picture,
)

SHOWN_SAMPLES = 20_000

MOST_ROWS = 24
"""Shapes that have a row of their own; what the cheaper ones of a larger plan have together is one row more."""

MOST_COLUMNS = 6
"""Modalities that have a column of their own."""

PLAN = POLICIES["planned"]


class DrawnPlan(Protocol):
    """What of a shape plan is drawn."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def lengths(self) -> np.ndarray: ...  # noqa: D102
    @property
    def batch_sizes(self) -> np.ndarray: ...  # noqa: D102
    @property
    def costs(self) -> np.ndarray: ...  # noqa: D102
    @property
    def samples(self) -> np.ndarray: ...  # noqa: D102
    @property
    def shape_efficiency(self) -> np.ndarray: ...  # noqa: D102
    @property
    def efficiency(self) -> float: ...  # noqa: D102
    @property
    def efficiencies(self) -> np.ndarray: ...  # noqa: D102
    @property
    def bounds(self) -> np.ndarray: ...  # noqa: D102

    def __len__(self) -> int: ...


class Compared(Protocol):
    """What of another policy is drawn beside it."""

    @property
    def shapes(self) -> int: ...  # noqa: D102

    @property
    def cost(self) -> float: ...  # noqa: D102


def plot_plan(
    plan: DrawnPlan, lengths: LengthTable, path: str | Path, others: Mapping[str, Compared] | None = None
) -> None:
    """Draw a plan over the lengths it was made for; the file is there whole or not at all.

    Above, the shapes over the samples, and the share of the padded cost that is real against the number of shapes.
    Below, a row for each shape: its padded lengths, its samples, the share of its cost that is padding, and a bar as
    long as its share of the padded cost.

    Args:
        plan: the plan.
        lengths: the length table.
        path: the picture; its ending (``.png``, ``.svg``, ``.pdf``) decides the format.
        others: other policies by name, drawn beside the curve of efficiency against the number of shapes.

    Raises:
        PaddingError: matplotlib is not installed, or doesn't draw this kind of file.
    """
    check_plots(path)
    write_picture(draw_plan(plan, lengths, others), path)


def draw_plan(plan: DrawnPlan, lengths: LengthTable | None, others: Mapping[str, Compared] | None = None) -> Any:
    """Draw the picture as matplotlib's Figure; without lengths, of the shapes alone.

    Raises:
        PaddingError: matplotlib is not installed.
        LengthError: lengths of other modalities.
    """
    values = np.zeros((0, len(plan.modalities)), np.int64)
    if lengths is not None:
        values = lengths.select(plan.modalities).values
    chosen = np.random.default_rng(0).permutation(len(values))[:SHOWN_SAMPLES]
    pairs = _pairs(len(plan.modalities))
    panels, rows = max(1, len(pairs)) + 1, _rows(plan)
    above, below = 3.5, 0.9 + 0.21 * len(rows)
    with picture(3.6 * panels, above + below) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=[above, below])
        axes = upper.subplots(1, panels, squeeze=False)[0]
        if pairs:
            for panel, (across, up) in zip(axes, pairs, strict=False):
                _draw_pair(panel, plan, values[chosen], across, up)
        else:
            _draw_one(axes[0], plan, values[:, 0])
        _draw_curve(axes[-1], plan, others or {})
        words, bars = lower.subplots(1, 2, sharey=True, width_ratios=[1, 0.85 if panels < 4 else 1.4])
        _draw_words(words, plan, rows)
        _draw_shares(bars, plan, rows)
    return figure


def _pairs(modalities: int) -> list[tuple[int, int]]:
    """Pairs of modalities that are drawn against each other: all of three, of more those that show four of them.

    >>> [_pairs(count) for count in (1, 2, 3, 5)]
    [[], [(0, 1)], [(0, 1), (0, 2), (1, 2)], [(0, 1), (1, 2), (2, 3)]]
    """
    if modalities > 3:
        return [(0, 1), (1, 2), (2, 3)]
    return list(combinations(range(modalities), 2))


class _Row(NamedTuple):
    """A shape, or several that have one row together, in the table below."""

    number: str
    lengths: list[str]
    batch_size: str
    samples: float
    padded: float
    real: float


def _rows(plan: DrawnPlan) -> list[_Row]:
    """Return a row for each shape, from the cheapest, and one for those that add least to a plan of very many."""
    padded = plan.costs * plan.samples
    real = padded * plan.shape_efficiency
    shown = np.arange(len(plan))
    if len(plan) > MOST_ROWS:
        shown = np.sort(np.argsort(-padded, kind="stable")[:MOST_ROWS])
    columns = plan.lengths if len(plan.modalities) <= MOST_COLUMNS else plan.lengths.sum(axis=1, keepdims=True)
    rows = [
        _Row(
            str(place + 1),
            [f"{length:,}" for length in columns[place].tolist()],
            f"{plan.batch_sizes[place]:,}",
            float(plan.samples[place]),
            float(padded[place]),
            float(real[place]),
        )
        for place in shown
    ]
    rest = np.setdiff1d(np.arange(len(plan)), shown)
    if len(rest):
        sums = (float(each[rest].sum()) for each in (plan.samples, padded, real))
        rows.append(_Row(f"{len(rest)} more", [""] * columns.shape[1], "", *sums))
    return rows


def _draw_pair(axes: Any, plan: DrawnPlan, values: np.ndarray, across: int, up: int) -> None:
    """Draw samples as dots, shapes as the corners of what they hold."""
    dots, counts = np.unique(values[:, [across, up]], axis=0, return_counts=True)
    axes.scatter(*dots.T, s=2 + 6 * counts / counts.max(initial=1), color=FAINT, linewidths=0, rasterized=True)
    for x, y in np.unique(plan.lengths[:, [across, up]], axis=0):
        axes.plot([0, x, x], [y, y, 0], color=PLAN, linewidth=0.6, alpha=0.6)
        axes.plot(x, y, "s", color=PLAN, markersize=4)
    axes.set(xlim=0, ylim=0)
    axes.set_xlabel(f"{shortened(plan.modalities[across], 34)}, positions", parse_math=False)
    axes.set_ylabel(f"{shortened(plan.modalities[up], 30)}, positions", parse_math=False)
    axes.set_title(_told(plan, values), fontsize=9, loc="left", color=INK)


def _draw_one(axes: Any, plan: DrawnPlan, values: np.ndarray) -> None:
    """How many samples have each length, and where the shapes cut."""
    if len(values):
        axes.hist(values, bins=min(80, int(values.max()) + 1), color=FAINT)
    for length in plan.lengths[:, 0]:
        axes.axvline(length, color=PLAN, linewidth=1)
    axes.set(xlim=0, ylabel="samples" if len(values) else "", yticks=axes.get_yticks() if len(values) else [])
    axes.set_xlabel(f"{shortened(plan.modalities[0], 34)}, positions", parse_math=False)
    axes.set_title(_told(plan, values), fontsize=9, loc="left", color=INK)


def _draw_curve(axes: Any, plan: DrawnPlan, others: Mapping[str, Compared]) -> None:
    """Efficiency against the number of shapes, with the bound and the other policies."""
    counts = np.arange(1, len(plan.efficiencies) + 1)
    axes.plot(counts, 100 * plan.bounds, color=INK, linewidth=1, linestyle="--", label="bound of any plan")
    axes.plot(counts, 100 * plan.efficiencies, color=PLAN, linewidth=1.8, marker=".", markersize=4, label="planned")
    for name, other in others.items():
        axes.plot(other.shapes, 100 * other.cost, "D", markersize=5, color=POLICIES.get(name, OTHER), label=name)
    most = max([len(counts), *(other.shapes for other in others.values())])
    if most > 12:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
    else:
        axes.set(xticks=range(1, most + 1), xlim=(0.5, most + 0.5))
    axes.set(ylim=(0, 101), xlabel="batch shapes", ylabel="real share of the padded cost, %")
    axes.set_title("what more shapes gain", fontsize=9, loc="left", color=INK)
    axes.legend(frameon=False, fontsize=8, loc="best")


def _draw_words(axes: Any, plan: DrawnPlan, rows: list[_Row]) -> None:
    """Draw padded lengths, rows, samples and padding of each shape, in columns."""
    names = plan.modalities if len(plan.modalities) <= MOST_COLUMNS else ("all positions",)
    heading = ["shape", *(shortened(name, 8) for name in names), "rows", "samples", "padding"]
    table = [
        [row.number, *row.lengths, row.batch_size, f"{row.samples:,.0f}", _percent(row.padded - row.real, row.padded)]
        for row in rows
    ]
    for line, cells in enumerate([heading, *table], start=-1):
        for column, cell in enumerate(cells):
            last = column == len(heading) - 1
            told = {"color": INK if line >= 0 else SOFT, "fontweight": "bold" if last and line >= 0 else "normal"}
            axes.text(column + 1, line, cell, ha="right", va="center", fontsize=8.5, parse_math=False, **told)
    axes.set(xlim=(0.4, len(heading) + 0.1))
    axes.axis("off")


def _draw_shares(axes: Any, plan: DrawnPlan, rows: list[_Row]) -> None:
    """Draw a bar for each shape, as long as its share of the padded cost."""
    whole = sum(row.padded for row in rows) or 1.0
    padded, real = (100 * np.array(column) / whole for column in zip(*((r.padded, r.real) for r in rows), strict=True))
    places = np.arange(len(rows))
    axes.barh(places, real, height=0.72, color=PLAN, label="real")
    axes.barh(places, padded - real, left=real, height=0.72, color=FAINT, label="padding")
    axes.set(ylim=(len(rows) - 0.4, -1.5), xlim=(0, max(1.02 * padded.max(initial=0), 1)))
    axes.set(xlabel="share of the padded cost, %", yticks=[])
    title = f"where the cost goes: {_percent(1 - plan.efficiency, 1)} of it is padding"
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2, borderaxespad=0, handlelength=1.2)


def _percent(part: float, whole: float) -> str:
    """Return a share for the eye; none of nothing.

    >>> _percent(1, 8), _percent(1, 128), _percent(0, 0)
    ('12 %', '0.8 %', '-')
    """
    if not whole:
        return "-"
    share = 100 * part / whole
    return f"{share:.1f} %" if 0.05 <= share < 1 else f"{abs(share):.0f} %"


def _told(plan: DrawnPlan, values: np.ndarray) -> str:
    return f"{len(plan)} {'shape' if len(plan) == 1 else 'shapes'}" + (" over the samples" if len(values) else "")
