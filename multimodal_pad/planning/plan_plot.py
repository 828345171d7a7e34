"""A shape plan as a picture: its shapes over the lengths, and what more shapes would gain."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.picture import (
    BOUND,
    FAINT,
    INK,
    OTHERS,
    PLAN,
    check_plots,
    picture,
    write_picture,
)

SHOWN_SAMPLES = 20_000


class DrawnPlan(Protocol):
    """What of a shape plan is drawn."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def lengths(self) -> np.ndarray: ...  # noqa: D102
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
    """The picture as matplotlib's Figure; without lengths, of the shapes alone.

    Raises:
        PaddingError: matplotlib is not installed.
        LengthError: lengths of other modalities.
    """
    values = np.zeros((0, len(plan.modalities)), np.int64)
    if lengths is not None:
        values = lengths.select(plan.modalities).values
    chosen = np.random.default_rng(0).permutation(len(values))[:SHOWN_SAMPLES]
    pairs = list(combinations(range(len(plan.modalities)), 2))[:3]
    with picture(max(1, len(pairs)) + 1) as (figure, axes):
        if pairs:
            for panel, (across, up) in zip(axes, pairs, strict=False):
                _draw_pair(panel, plan, values[chosen], across, up)
        else:
            _draw_one(axes[0], plan, values[:, 0])
        _draw_curve(axes[-1], plan, others or {})
    return figure


def _draw_pair(axes: Any, plan: DrawnPlan, values: np.ndarray, across: int, up: int) -> None:
    """Samples as dots, shapes as the corners of what they hold."""
    dots, counts = np.unique(values[:, [across, up]], axis=0, return_counts=True)
    axes.scatter(*dots.T, s=2 + 6 * counts / counts.max(initial=1), color=FAINT, linewidths=0, rasterized=True)
    for x, y in np.unique(plan.lengths[:, [across, up]], axis=0):
        axes.plot([0, x, x], [y, y, 0], color=PLAN, linewidth=0.6, alpha=0.6)
        axes.plot(x, y, "s", color=PLAN, markersize=4)
    axes.set(xlim=0, ylim=0)
    axes.set_xlabel(f"{plan.modalities[across]}, positions", parse_math=False)
    axes.set_ylabel(f"{plan.modalities[up]}, positions", parse_math=False)
    axes.set_title(_told(plan, values), fontsize=9, loc="left", color=INK)


def _draw_one(axes: Any, plan: DrawnPlan, values: np.ndarray) -> None:
    """How many samples have each length, and where the shapes cut."""
    if len(values):
        axes.hist(values, bins=min(80, int(values.max()) + 1), color=FAINT)
    for length in plan.lengths[:, 0]:
        axes.axvline(length, color=PLAN, linewidth=1)
    axes.set(xlim=0, ylabel="samples" if len(values) else "", yticks=axes.get_yticks() if len(values) else [])
    axes.set_xlabel(f"{plan.modalities[0]}, positions", parse_math=False)
    axes.set_title(_told(plan, values), fontsize=9, loc="left", color=INK)


def _draw_curve(axes: Any, plan: DrawnPlan, others: Mapping[str, Compared]) -> None:
    """Efficiency against the number of shapes, with the bound and the other policies."""
    counts = np.arange(1, len(plan.efficiencies) + 1)
    axes.plot(counts, 100 * plan.bounds, color=BOUND, linewidth=1.2, label="bound of any plan")
    axes.plot(counts, 100 * plan.efficiencies, color=PLAN, linewidth=1.8, marker=".", markersize=4, label="planned")
    for (name, other), colour in zip(others.items(), OTHERS, strict=False):
        axes.plot(other.shapes, 100 * other.cost, "D", markersize=5, color=colour, label=name)
    if len(counts) > 12:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(ylim=(0, 101), xlabel="batch shapes", ylabel="real share of the padded cost, %")
    axes.set_title("what more shapes gain", fontsize=9, loc="left", color=INK)
    axes.legend(frameon=False, fontsize=8, loc="best")


def _told(plan: DrawnPlan, values: np.ndarray) -> str:
    return f"{len(plan)} {'shape' if len(plan) == 1 else 'shapes'}" + (" over the samples" if len(values) else "")
