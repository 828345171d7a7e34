"""The policy of a packing plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packing import plan_packing
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.scheduling.balanced import BalancedGrouping
from multimodal_pad.scheduling.policy import Policy


class Packed(Policy):
    """Batches of exactly the plan's batch size, end to end in its capacities.

    Any samples may meet in a batch: each epoch deals a random order so that the batches' sums of lengths are alike.

    Args:
        plan: the capacities, and the samples of a batch.

    >>> from multimodal_pad import BucketBatcher, plan_packing
    >>> samples = [{"text": np.arange(1 + i % 7)} for i in range(40)]
    >>> plan = plan_packing(LengthTable.measure(samples), batch_size=8)
    >>> batcher = BucketBatcher(samples, Packed(plan))
    >>> [str(batch.shape) for batch in batcher.epoch(0)] == ["8 packed in (text 32)"] * 5
    True
    """

    compile_all = True

    def __init__(self, plan: PackingPlan) -> None:
        self.plan, self.modalities, self.cost = plan, plan.modalities, plan.cost
        self.layout = plan.layout
        self.grouping = BalancedGrouping(plan.shares)
        self.promised = plan.position_efficiency["total"] if plan.cost is None else plan.efficiency

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the plan's shapes."""
        return self.plan.shapes_fingerprint

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the smallest capacity that holds each sample."""
        lengths = np.asarray(lengths)
        self.check_held(lengths, self.covers(lengths))
        holds = (lengths[:, None] <= self.plan.lengths).all(axis=2)
        return self.plan.lengths[holds.argmax(axis=1)]

    def lengths(self) -> np.ndarray:
        """Return the plan's capacities, smallest first."""
        return self.plan.lengths

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Return lengths that one share of the largest capacity holds."""
        return np.minimum(lengths, self.plan.lengths[-1] // self.plan.shares)

    def batch_sizes(self, padded: np.ndarray) -> np.ndarray:
        """Return the plan's batch size at each of its capacities."""
        return np.full(len(padded), self.plan.batch_size)

    def efficiency(self, lengths: LengthTable, cost: Cost) -> float:
        """Return real cost / (real cost + cost of unused positions), of as many smallest batches as the samples take.

        As many as the number of samples asks for, or more where their positions do.
        """
        real, size = float(cost(lengths.values).sum()), self.plan.batch_size
        positions, capacity = lengths.values.sum(axis=0), self.plan.lengths[0]
        batches = max(-(-len(lengths) // size), int((-(-positions // capacity)).max()))
        empty = np.maximum(batches * capacity - positions, 0)[None]
        paid = real + float(self.layout.price(np.array([batches * size]), empty, cost)[0])
        return real / paid if paid else 1.0

    @property
    def plan_options(self) -> dict[str, Any]:
        """The options of the plan."""
        plan = self.plan
        return {
            "batch_size": plan.batch_size,
            "max_shapes": len(plan),
            "alignment": plan.alignment,
            "shares": plan.shares,
            "cost": plan.cost or position_count,
        }

    def plan_anew(self, lengths: LengthTable, options: Mapping[str, Any]) -> Packed:
        """Return the policy of a packing plan for other lengths."""
        return Packed(plan_packing(lengths, **options))

    def why_not(self, lengths: np.ndarray) -> str:
        """Say which modality is longer than its capacity."""
        limits = self.truncate(lengths[None])[0]
        column = int(np.argmax(lengths > limits))
        part = "" if self.plan.shares == 1 else f" of one of {self.plan.shares} shares"
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the largest capacity{part} is "
            f"{limits[column]}"
        )

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the plan's smallest shape that holds the samples."""
        return self.plan.shape_for(lengths, batch_size=batch_size, numbers=numbers)

    def __repr__(self) -> str:
        shapes = "1 shape" if len(self.plan) == 1 else f"{len(self.plan)} shapes"
        return f"Packed({shapes}, {self.plan.shapes_fingerprint[:12]})"
