"""The policy of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.plan_fit import check_fit, plan_efficiency
from multimodal_pad.scheduling.policy import Policy, compact


class Planned(Policy):
    """Each row padded to the cheapest shape of a plan that holds it.

    Args:
        plan: of the shapes, and of the rows of a batch at each.

    >>> from multimodal_pad import plan_shapes
    >>> table = LengthTable(("text", "audio"), np.array([[3, 9], [9, 3], [2, 8]]))
    >>> Planned(plan_shapes(table, max_shapes=2)).round_up(table.values).tolist()
    [[3, 9], [9, 3], [3, 9]]
    """

    compile_all = True

    def __init__(self, plan: ShapePlan) -> None:
        self.plan, self.modalities = plan, plan.modalities
        self.grouping, self.cost = plan.grouping, plan.cost
        if not plan.grouping.draws_first:
            self.promised = plan.position_efficiency["total"] if plan.cost is None else plan.efficiency

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the plan's shapes."""
        return self.plan.shapes_fingerprint

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the cheapest planned shape that holds each row."""
        lengths = np.asarray(lengths)
        places = self.plan.place(lengths)
        self.check_held(lengths, places >= 0)
        return self.plan.lengths[places]

    def lengths(self) -> np.ndarray:
        """Return the plan's shapes, cheapest first."""
        return self.plan.lengths

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Return lengths that fit; what does not is cut to the shape that keeps most of its positions."""
        lengths = np.asarray(lengths)
        cut = lengths.copy()
        for row in np.flatnonzero(self.plan.place(lengths) < 0):
            kept = np.minimum(lengths[row], self.plan.lengths)
            cut[row] = kept[np.argmax(kept.sum(axis=1))]
        return cut

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Return which rows fit a planned shape: bool ``(n,)``."""
        return self.plan.covers(lengths)

    def batch_sizes(self, padded: np.ndarray) -> np.ndarray:
        """Return the plan's samples per batch at each of its shapes."""
        return self.plan.batch_sizes[self.plan.place(padded)]

    def number_shapes(self, blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of rows among the plan's shapes, without looking at distinct lengths."""
        found, of = compact(np.concatenate([self.plan.place(block) for block in blocks]))
        return self.plan.lengths[found], of

    def efficiency(self, lengths: LengthTable, cost: Cost) -> float:
        """Return the efficiency in the plan's own cost, or in positions where its file could not hold it."""
        return plan_efficiency(self.plan, lengths) if self.promised is not None else super().efficiency(lengths, cost)

    def check_lengths(self, lengths: LengthTable, keep: np.ndarray | None = None) -> None:
        """Warn where the plan keeps less than 0.9 of its efficiency on these lengths."""
        check_fit(self.plan, lengths, keep)

    @property
    def plan_options(self) -> dict[str, Any]:
        """The options of the plan; no batch size where that follows from a budget, since a plan holds no measure."""
        plan = self.plan
        options = {"max_shapes": len(plan), "alignment": plan.alignment, "cost": plan.cost or position_count}
        return options if plan.batch_budget is not None else {**options, "batch_size": int(plan.batch_sizes[0])}

    def why_not(self, lengths: np.ndarray) -> str:
        """Say which planned shape is nearest, and what is too long for it."""
        return self.plan.why_not(lengths)

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the plan's cheapest shape that holds the samples."""
        return self.plan.shape_for(lengths, batch_size=batch_size, numbers=numbers)

    def __repr__(self) -> str:
        shapes = "1 shape" if len(self.plan) == 1 else f"{len(self.plan)} shapes"
        return f"Planned({shapes}, {self.plan.shapes_fingerprint[:12]})"
