"""The fit of a plan to lengths that it was not made for."""

from __future__ import annotations

import warnings

import numpy as np

from multimodal_pad.errors import PlanWarning
from multimodal_pad.lengths.cost import position_count
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.scheduling.checks import check_covered, check_joint_maxima

WORSE = 0.9
"""Warn where a plan keeps less than this part of its efficiency on other lengths."""


def plan_efficiency(plan: ShapePlan, lengths: LengthTable, keep: np.ndarray | None = None) -> float:
    """Return real / padded cost of a plan on the lengths given, or positions where the plan has no cost function.

    Args:
        plan: the plan.
        lengths: lengths that it covers.
        keep: bool ``(N,)``, the samples that count, at least one; by default all.

    Raises:
        UncoveredLengthError: a sample (or, where batches are drawn first, a batch) that no planned shape holds.

    >>> from multimodal_pad import plan_shapes
    >>> table = LengthTable(("text",), np.array([[4], [6], [8]]))
    >>> plan = plan_shapes(table, max_shapes=2)
    >>> plan.efficiency, plan_efficiency(plan, LengthTable(("text",), np.array([[2], [8]])))
    (0.9, 0.8333333333333334)
    """
    lengths = lengths.select(plan.modalities)
    check_covered(lengths, plan, keep)
    cost = plan.cost or position_count
    prices = plan.lengths.sum(axis=1) if plan.cost is None else plan.costs
    kept = None if keep is None else np.flatnonzero(keep)
    if plan.grouping.draws_first:
        check_joint_maxima(plan, lengths.longest(kept))
    real = sum(float(cost(block).sum()) for _, block in lengths.blocks(kept))
    samples = np.zeros(len(plan))
    for steps in plan.grouping.paid(lengths, batch_size=int(plan.batch_sizes[0]), keep=keep):
        samples += np.bincount(plan.place(steps.lengths), steps.samples, minlength=len(plan))
    padded = float(prices @ samples)
    return real / padded if padded else 1.0


def check_fit(plan: ShapePlan, lengths: LengthTable, keep: np.ndarray | None = None) -> None:
    """Warn where a plan that was made for other lengths serves these much worse.

    The measure is the plan's cost, or positions where a plan file could not hold the cost function.

    Args:
        plan: the plan.
        lengths: lengths that it covers.
        keep: bool ``(N,)``, the samples that count; by default all.

    Warns:
        PlanWarning: these lengths keep less than 0.9 of the efficiency that the plan has on its own.
    """
    if lengths.fingerprint == plan.fingerprint:
        return
    if keep is not None and not keep.any():
        return  # every sample is dropped
    unit = "positions" if plan.cost is None else "cost"
    if plan.grouping.draws_first:
        longest = lengths.select(plan.modalities).longest(None if keep is None else np.flatnonzero(keep))
        if not plan.covers(longest[None])[0]:
            return  # random batches of these are refused; others have nothing to be compared with
    theirs = plan.position_efficiency["total"] if plan.cost is None else plan.efficiency
    ours = plan_efficiency(plan, lengths, keep)
    if ours < WORSE * theirs:
        count = len(lengths) if keep is None else int(keep.sum())
        warnings.warn(
            f"the shape plan keeps {ours:.3f} of the padded {unit} real on these {count:,} samples, and "
            f"{theirs:.3f} on those it was made for; plan the shapes for these lengths",
            PlanWarning,
            stacklevel=5,  # where the batcher is made
        )
