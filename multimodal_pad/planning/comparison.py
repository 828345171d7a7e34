"""A plan beside other policies: padding efficiency of each, in cost and in positions."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from multimodal_pad.layouts.packed import PACKED
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.task import distinct_rows
from multimodal_pad.scheduling.groupings import as_grouping
from multimodal_pad.scheduling.policies import Fixed, Ladder
from multimodal_pad.scheduling.policy import Grouping, Policy


class PolicyEfficiency(NamedTuple):
    """The padding efficiency of a policy on some lengths.

    Attributes:
        shapes: batch shapes that the lengths lead to.
        cost: real / padded cost.
        positions: real / padded positions of each modality, in the table's order.
        padded_cost: per epoch, in the cost's unit.
    """

    shapes: int
    cost: float
    positions: tuple[float, ...]
    padded_cost: float


def policy_efficiency(
    policy: Policy,
    lengths: LengthTable,
    cost: Cost,
    *,
    price: Cost | None = None,
    grouping: Grouping | str = "length",
    batch_size: int = 32,
) -> PolicyEfficiency:
    """Pad each sample (in ``"random"`` grouping each batch of one epoch) by a policy, every batch full.

    Args:
        policy: covers the lengths.
        lengths: the length table.
        cost: of a sample at its own lengths.
        price: of a row at its padded lengths; by default the cost.
        grouping: of the batches.
        batch_size: rows per batch, for ``"random"``.

    >>> from multimodal_pad import position_count
    >>> table = LengthTable(("text",), np.array([[3], [4], [9]]))
    >>> policy_efficiency(Ladder({"text": [4, 12]}), table, position_count)
    PolicyEfficiency(shapes=2, cost=0.8, positions=(0.8,), padded_cost=20.0)
    """
    values = lengths.select(policy.modalities).values
    rows, weights = _rows_to_pad(lengths.select(policy.modalities), grouping, batch_size)
    padded, counts = distinct_rows(policy.round_up(rows), weights)
    padded_cost = float(counts @ (price or cost)(padded))
    positions = values.sum(axis=0) / (counts @ padded)
    return PolicyEfficiency(
        len(padded), float(cost(values).sum() / padded_cost), tuple(positions.tolist()), padded_cost
    )


def packing_efficiency(plan: PackingPlan, lengths: LengthTable, cost: Cost) -> PolicyEfficiency:
    """Return the efficiency of a packing plan on its own lengths, in the epochs that were dealt to find it.

    >>> from multimodal_pad import plan_packing, position_count
    >>> table = LengthTable(("text",), np.array([[3], [4], [9]]))
    >>> packing_efficiency(plan_packing(table, batch_size=3), table, position_count)
    PolicyEfficiency(shapes=1, cost=1.0, positions=(1.0,), padded_cost=16.0)
    """
    real = float(cost(lengths.select(plan.modalities).values).sum())
    # Where samples have no cost, that of their batches.
    empty = float(plan.batches @ PACKED.price(plan.batch_sizes, plan.lengths, cost))
    positions = tuple(plan.position_efficiency[name] for name in plan.modalities)
    return PolicyEfficiency(len(plan), plan.efficiency, positions, real / plan.efficiency if real else empty)


def ladders_within(
    lengths: LengthTable,
    count: int,
    *,
    alignment: Mapping[str, int] | None = None,
    grouping: Grouping | str = "length",
    batch_size: int = 32,
) -> dict[str, Policy]:
    """Return fixed padding, and the finest powers of two and quantiles that lead to at most ``count`` shapes.

    Their edges are rounded up to multiples of the ``alignment`` of each modality.

    >>> table = LengthTable(("text", "audio"), np.array([[1, 9], [2, 20], [4, 33]]))
    >>> ladders_within(table, 2)["powers of two"]
    Ladder({'text': [32], 'audio': [32, 64]})
    """
    rows, _ = distinct_rows(*_rows_to_pad(lengths, grouping, batch_size))

    def fits(policy: Policy) -> bool:
        return len(np.unique(policy.round_up(rows), axis=0)) <= count

    def align(ladder: Ladder) -> Ladder:
        steps = [(alignment or {}).get(name, 1) for name in ladder.modalities]
        edges = [np.unique(-(-edges // step) * step) for edges, step in zip(ladder.edges, steps, strict=True)]
        return Ladder(dict(zip(ladder.modalities, edges, strict=True)))

    powers = (align(Ladder.powers_of_two(lengths, 2**exponent)) for exponent in itertools.count())
    finer = takewhile(fits, (align(Ladder.quantiles(lengths, n)) for n in range(1, min(count, 64) + 1)))
    return {
        "fixed": align(Fixed.longest(lengths)),
        "powers of two": next(filter(fits, powers)),
        "quantiles": deque(finer, maxlen=1)[0],
    }


def _rows_to_pad(lengths: LengthTable, grouping: Grouping | str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths to round up, of samples or of the batches of a random epoch, and the samples at each."""
    paid = list(as_grouping(grouping).paid(lengths, batch_size=batch_size))
    return np.concatenate([steps.lengths for steps in paid]), np.concatenate([steps.samples for steps in paid])
