"""Checks whether a policy still suits a stream's samples, and how a new plan would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multimodal_pad.batching.streams.longest import with_longest
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import BatchBudget, Cost
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.plan_fit import WORSE
from multimodal_pad.planning.planned import Planned
from multimodal_pad.planning.planner import plan_shapes
from multimodal_pad.scheduling.policy import Policy

MOST_NEW_SHAPES = 32
"""Most shapes of a new plan for a policy that is no plan; it has as many as the policy used of late."""


@dataclass(frozen=True)
class Service:
    """The figures of a policy on the last samples.

    Attributes:
        samples: looked at.
        uncovered: of these, longer than every bucket.
        efficiency: real cost / padded cost of the others, every batch full; 1 where there are none.
        promised: the efficiency that the plan has on the lengths it was made for; None where the policy is no plan, or
            one for random batches, which a stream does not make.
    """

    samples: int
    uncovered: int
    efficiency: float
    promised: float | None

    @property
    def stale(self) -> bool:
        """Whether samples are uncovered, or less than 0.9 of what was promised is kept."""
        return self.uncovered > 0 or (self.promised is not None and self.efficiency < WORSE * self.promised)

    def __str__(self) -> str:
        promise = "" if self.promised is None else f" (promised: {self.promised:.3f})"
        return (
            f"{self.uncovered:,} of the last {self.samples:,} samples are longer than every bucket, and "
            f"{self.efficiency:.3f} of the padded cost of the others is real{promise}"
        )


@dataclass(frozen=True, eq=False)
class PlanReport(Service):
    """The figures of a policy on the last samples, beside a plan that is made for them.

    Attributes:
        samples: looked at.
        uncovered: of these, longer than every bucket.
        efficiency: real cost / padded cost of the others, every batch full; 1 where there are none.
        promised: the efficiency that the plan in use has on the lengths it was made for; None where there is none.
        new_efficiency: of ``new_plan`` on all of these samples.
        new_plan: of the same kind as the plan in use, of as many shapes, with the same alignment; a ``ShapePlan`` where
            the policy is no plan.

    >>> from multimodal_pad import Ladder, StreamBatcher
    >>> batcher = StreamBatcher([{"text": np.arange(n)} for n in (4, 9, 4, 9)], Ladder({"text": [8, 16]}), batch_size=2)
    >>> batches = list(batcher)
    >>> report = batcher.plan_report()
    >>> report.stale, round(report.efficiency, 3), report.new_efficiency, report.new_plan.lengths.tolist()
    (False, 0.542, 1.0, [[4], [9]])
    """

    new_efficiency: float
    new_plan: ShapePlan | PackingPlan

    def __str__(self) -> str:
        return (
            f"{Service.__str__(self)}{': stale' if self.stale else ''}\n"
            f"a new plan of {len(self.new_plan)} {'shape' if len(self.new_plan) == 1 else 'shapes'} holds all of them "
            f"and keeps {self.new_efficiency:.3f}"
        )


class RecentLengths:
    """The lengths of the last samples, on which the policy is checked each time that as many are new.

    Args:
        policy: the one in use.
        cost: per sample, where the policy is no plan; a plan has its own, or else counts positions.
        size: how many samples.

    Attributes:
        values: lengths, oldest first, int64 ``(n, M)``; replaced and never written to, so any thread may read them.
    """

    def __init__(self, policy: Policy, cost: Cost, size: int) -> None:
        self._policy, self._size = policy, size
        self._cost: Cost = policy.plan_options.get("cost", cost)
        self._new, self._told = 0, False
        self.values = np.empty((0, len(policy.modalities)), np.int64)

    def add(self, lengths: np.ndarray) -> Service | None:
        """Add the lengths of the next samples; return the figures the first time that a plan is found to be stale."""
        self.values = np.concatenate([self.values, lengths])[-self._size :]
        self._new += len(lengths)
        if self._told or self._new < self._size or not self._policy.plan_options:
            return None
        self._new, service = 0, self._look(self.values)
        self._told = service.stale
        return service if service.stale else None

    def report(self, batch_size: int | BatchBudget, longest: Mapping[str, int] | None = None) -> PlanReport:
        """Compare the policy with a new plan of such batches, which holds ``longest`` too where it is given.

        Raises:
            PaddingError: no sample has come yet.
            PlanError: a sample exceeds the batch budget.
        """
        values = self.values
        if not len(values):
            raise PaddingError("no sample of the stream has been read yet; ask for the report after the first batch")
        used = self._policy.round_up(values[self._policy.covers(values)])
        options = {
            "max_shapes": max(1, min(len(np.unique(used, axis=0)), MOST_NEW_SHAPES)),
            "cost": self._cost,
            **self._policy.plan_options,
            "batch_size": batch_size,
        }
        table = LengthTable(self._policy.modalities, values)
        longer = with_longest(table, longest)
        new = self._policy.plan_anew(longer, options) or Planned(plan_shapes(longer, **options))
        service = self._look(values)
        return PlanReport(**vars(service), new_efficiency=new.efficiency(table, self._cost), new_plan=new.plan)

    def _look(self, values: np.ndarray) -> Service:
        policy = self._policy
        covered = values[policy.covers(values)]
        table = LengthTable(policy.modalities, covered) if len(covered) else None
        efficiency = 1.0 if table is None else policy.efficiency(table, self._cost)
        return Service(len(values), len(values) - len(covered), efficiency, policy.promised)
