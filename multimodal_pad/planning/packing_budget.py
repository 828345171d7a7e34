"""The most samples of a packed batch whose capacities stay within a batch budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from multimodal_pad.errors import PaddingError, PlanError
from multimodal_pad.layouts.packed import PACKED
from multimodal_pad.lengths.cost import BatchBudget
from multimodal_pad.planning.packing_plan import PackingPlan

_ROUNDING = 1 + 1e-9  # of measures of fractions of positions


def sizes_to_try(budget: BatchBudget, shares: int, count: int) -> np.ndarray:
    """Return batch sizes that a budget allows, whatever they measure: int64 ``(k,)``, rising.

    Args:
        budget: has the multiple and the largest batch size.
        shares: divides each of them.
        count: samples that there are: no batch has more, but for the last multiple.

    Raises:
        PaddingError: the budget's largest batch is smaller than its multiples that ``shares`` divides.

    >>> sizes_to_try(BatchBudget(100, multiple=4, largest=30), 6, 1000).tolist()
    [12, 24]
    """
    step = math.lcm(budget.multiple, shares)
    most = -(-count // step) if budget.largest is None else min(budget.largest // step, -(-count // step))
    if not most:
        raise PaddingError(
            f"got a batch budget with largest={budget.largest} and multiple={budget.multiple} for shares={shares}; let "
            f"it have batches of {step} samples at least"
        )
    return step * np.arange(1, most + 1)


def largest_within(
    budget: BatchBudget,
    sizes: np.ndarray,
    least: np.ndarray,
    modalities: Sequence[str],
    plan: Callable[[int], PackingPlan],
) -> PackingPlan:
    """Return the plan of a batch size that keeps a budget, where the next larger one would not.

    Plans take a while to make, so only batch sizes are tried that the least capacities allow, from the largest down,
    with steps that double.

    Args:
        budget: measures capacities.
        sizes: batch sizes, rising.
        least: int64 ``(k, M)``: the least capacities at each of them.
        modalities: names of the M columns.
        plan: makes the plan of a batch size.

    Raises:
        PlanError: not even the smallest batch size keeps it.
    """
    allowed = np.flatnonzero(_measured(budget, sizes, least) <= budget.limit * _ROUNDING)
    low, high, step = 0, int(allowed.max(initial=-1)) + 1, 1
    best, needed = None, least[0]
    while low < high:  # sizes below low keep the budget, and those from high on don't
        middle = max(0, high - step) if best is None else (low + high) // 2
        found = plan(int(sizes[middle]))
        if _measured(budget, found.batch_sizes, found.lengths).max() <= budget.limit * _ROUNDING:
            low, best = middle + 1, found
        else:
            high, step, needed = middle, 2 * step, found.lengths[-1]
    if best is None:
        held = ", ".join(f"{name} {n:,}" for name, n in zip(modalities, needed.tolist(), strict=True))
        raise PlanError(
            f"batches of {sizes[0]}, the smallest, need capacities of {held}, which measure "
            f"{_measured(budget, sizes[:1], needed[None])[0]:,.6g} and exceed the batch budget of {budget.limit:,.6g}; "
            "raise the budget, or truncate or drop long samples before planning"
        )
    return best


def _measured(budget: BatchBudget, sizes: np.ndarray, capacities: np.ndarray) -> np.ndarray:
    """Return the measures of batches, ``(k,)``."""
    return PACKED.price(sizes, capacities, budget.measured)
