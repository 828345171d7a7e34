"""A packing plan as a picture: how near the batches of an epoch come to its capacities, and what they leave empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.picture import (
    FAINT,
    INK,
    POLICIES,
    SOFT,
    check_plots,
    picture,
    shortened,
    write_picture,
)
from multimodal_pad.scheduling.balanced import BalancedDeal
from multimodal_pad.scheduling.dealing import shuffled
from multimodal_pad.scheduling.schedule import WINDOW

PACKED = POLICIES["packed"]


class DrawnPacking(Protocol):
    """What of a packing plan is drawn."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def lengths(self) -> np.ndarray: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def shares(self) -> int: ...  # noqa: D102
    @property
    def position_efficiency(self) -> dict[str, float]: ...  # noqa: D102
    @property
    def unrounded_efficiency(self) -> dict[str, float]: ...  # noqa: D102


def plot_packing(plan: DrawnPacking, lengths: LengthTable, path: str | Path, *, seed: int = 0) -> None:
    """Draw an epoch of a packing plan; the file is there whole or not at all.

    A panel for each modality has the sums of lengths of the epoch's full batches, their mean and the capacities. The
    last one has what of the capacity is empty, for rounding or for another reason.

    Args:
        plan: the plan.
        lengths: the length table that it was made for.
        path: the picture; its ending (``.png``, ``.svg``, ``.pdf``) decides the format.
        seed: of the epoch.

    Raises:
        PaddingError: matplotlib is not installed, or doesn't draw this kind of file.
        UncoveredLengthError: a sample is longer than the largest capacity.
    """
    check_plots(path)
    write_picture(draw_packing(plan, lengths, seed=seed), path)


def draw_packing(plan: DrawnPacking, lengths: LengthTable | None, *, seed: int = 0) -> Any:
    """Draw the picture as matplotlib's Figure; without lengths, of what is empty alone.

    Raises:
        PaddingError: matplotlib is not installed.
        UncoveredLengthError: a sample is longer than the largest capacity.
        LengthError: lengths of other modalities.
    """
    if lengths is None:
        with picture(3.6, 3.5) as figure:
            _draw_empty(figure.subplots(), plan)
        return figure
    sums, batches = _batch_sums(plan, lengths.select(plan.modalities), seed)
    panels = len(plan.modalities) + 1
    with picture(3.6 * panels, 3.5) as figure:
        axes = figure.subplots(1, panels)
        for column, panel in enumerate(axes[:-1]):
            _draw_sums(panel, plan, column, sums[:, column])
        counted = f"batches of {plan.batch_size:,} samples ({len(sums):,} full ones of {batches:,})"
        axes[0].set_ylabel(counted)
        _draw_empty(axes[-1], plan)
    return figure


def _batch_sums(plan: DrawnPacking, lengths: LengthTable, seed: int) -> tuple[np.ndarray, int]:
    """Return sums of lengths ``(full batches, M)`` of an epoch, and how many batches it has, short ones too."""
    _check_held(plan, lengths)
    order = shuffled(len(lengths), seed, 0)
    deal = BalancedDeal(
        lengths.values,
        order,
        plan.lengths,
        plan.batch_size,
        keep=None,
        shares=plan.shares,
        window=WINDOW,
        seeds=(seed, 0),
    )
    parts = [deal.window(number).ids for number in range(len(deal.starts) - 1)]
    ids = np.concatenate(parts).reshape(-1, plan.batch_size)
    full = (ids != EMPTY).all(axis=1)
    return lengths.values[ids[full]].sum(axis=1, dtype=np.int64), len(ids)


def _check_held(plan: DrawnPacking, lengths: LengthTable) -> None:
    limits = plan.lengths[-1] // plan.shares
    for start, block in lengths.blocks():
        row, column = np.unravel_index(int(np.argmax(block - limits)), block.shape)
        if block[row, column] > limits[column]:
            part = "" if plan.shares == 1 else f" of one of {plan.shares} shares"
            raise UncoveredLengthError(
                f"sample {start + row}: {plan.modalities[column]!r} has {block[row, column]} positions and the largest "
                f"capacity{part} is {limits[column]}; draw lengths like those that the plan was made for"
            )


def _draw_sums(axes: Any, plan: DrawnPacking, column: int, sums: np.ndarray) -> None:
    """How many batches have each sum of lengths, and what holds them."""
    name, capacities = plan.modalities[column], np.unique(plan.lengths[:, column])
    low = int(min(sums.min(initial=capacities[0]), capacities[0] - 1))
    span = int(capacities[-1]) - low
    axes.hist(sums, bins=np.linspace(low, capacities[-1], min(60, span) + 1), color=PACKED)
    if len(sums):
        axes.axvline(sums.mean(), color=INK, linewidth=1, linestyle="--", label=f"mean ({sums.mean():,.0f})")
    held = ", ".join(f"{n:,}" for n in capacities.tolist())
    for number, capacity in enumerate(capacities.tolist()):
        axes.axvline(capacity, color=INK, linewidth=2, label=None if number else f"capacity ({held})")
    axes.set_xlim(low - 0.04 * span, capacities[-1] + 0.04 * span)
    axes.margins(y=0.15)
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # the legend is above the bars
    axes.legend(edgecolor="none", fontsize=8, loc="upper left", borderaxespad=0)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(f"{shortened(name, 18)}, positions of a batch", parse_math=False)
    waste = f"{100 * (1 - plan.position_efficiency[name]):.1f} % of {shortened(name, 24)} is empty"
    axes.set_title(waste, fontsize=9, loc="left", color=INK, parse_math=False)


def _draw_empty(axes: Any, plan: DrawnPacking) -> None:
    """Draw what of the capacities holds nothing, because they are rounded up, and for any other reason."""
    names = [*plan.modalities, "total"]
    fill = 100 * np.array([plan.position_efficiency[name] for name in names])
    rounding = np.maximum(100 * np.array([plan.unrounded_efficiency[name] for name in names]) - fill, 0)
    rest, places = 100 - fill - rounding, np.arange(len(names))
    axes.barh(places, rest, color=FAINT, label="uneven batches")
    axes.barh(places, rounding, left=rest, color=SOFT, label="rounding")
    for place, empty in zip(places, 100 - fill, strict=True):
        axes.text(empty, place, f" {empty:.1f} %", va="center", color=INK)
    axes.set_yticks(places, [shortened(name, 22) for name in names], parse_math=False)
    axes.set(ylim=(len(names) - 0.5, -1.1))  # the legend is above the bars
    axes.set(xlim=(0, max(1.25 * (100 - fill).max(), 1)), xlabel="empty share of the capacity, %")
    axes.set_title("what is empty, and why", fontsize=9, loc="left", color=INK)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2, handlelength=1.2)
