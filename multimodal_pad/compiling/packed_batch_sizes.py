"""The largest batches of the packed layout whose step fits the memory."""

from __future__ import annotations

import math
from typing import Any

import jax

from multimodal_pad.compiling.memory_search import MemorySearch, nbytes, refusal
from multimodal_pad.compiling.table import StepTable, batch_struct
from multimodal_pad.compiling.warming import compile_all
from multimodal_pad.errors import PaddingError, PlanError
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packing import plan_packing
from multimodal_pad.planning.packing_plan import PackingPlan


class PackedBatchSizeFit:
    """The search for the largest packed batches: plans capacities for one batch size after the other, and compiles.

    Attributes:
        search: over batch sizes; the bytes of one are those of its largest program.
        plans: by batch size.
    """

    def __init__(
        self,
        table: StepTable,
        plan: PackingPlan,
        lengths: LengthTable | None,
        state: Any,
        example: Batch,
        limit: float,
        *,
        multiple: int = 1,
        largest: int | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.lengths = _checked(plan, lengths)
        self.table, self.plan, self.state, self.example = table, plan, state, example
        self.options = {"threads": threads, "progress": progress}
        step = math.lcm(multiple, plan.shares)
        most = -(-len(self.lengths) // step) * step
        if largest is not None:
            most = min(most, largest // step * step)
        if most < step:
            raise PlanError(
                f"got largest={largest} for batches of a multiple of {step} (of {multiple}, and of {plan.shares} "
                f"shares); give at least {step}"
            )
        # The capacity for a few samples is that of the longest one, so no line follows from them.
        first = min(most, -(-plan.batch_size // step) * step)
        self.search = MemorySearch(limit, step, most, nbytes(state), first)
        self.plans: dict[int, PackingPlan] = {}

    def run(self) -> PackingPlan:
        """Return the plan of the largest batch size, confirmed."""
        there, kept = set(self.table.steps), set()
        try:
            while (size := self.search.next_rows()) is not None:
                self.search.known[size] = self._measure(size)
            refused = self.search.refused
            if refused is not None:
                shape = self.plans[min(self.plans)].batch_shapes[-1]
                raise PlanError(refusal(shape, refused, self.search.limit))
            found = self.plans[self.search.best]
            kept = set(found.batch_shapes)
            return found
        finally:
            for shape in set(self.table.steps) - there - kept:
                del self.table.steps[shape]

    def _measure(self, size: int) -> int:
        """Return the device bytes of the largest program of a plan for batches of this size."""
        plan = self.plan
        if size != plan.batch_size:
            plan = plan_packing(
                self.lengths,
                batch_size=size,
                max_shapes=len(plan),
                alignment=plan.alignment,
                shares=plan.shares,
                cost=plan.cost,  # pyright: ignore[reportArgumentType]  it was checked
            )
        self.plans[size] = plan
        jobs = [(self.table, batch_struct(self.example, shape)) for shape in plan.batch_shapes]
        held = [step.device_bytes for step in compile_all(jobs, self.state, **self.options)]
        if None in held:
            raise PaddingError(
                f"XLA gives no memory analysis on {jax.devices()[0].device_kind}, and without it nothing says what "
                "packed batches hold there; choose their size with plan_packing(batch_size=...)"
            )
        return max(size for size in held if size is not None)


def _checked(plan: PackingPlan, lengths: LengthTable | None) -> LengthTable:
    if lengths is None:
        raise PlanError("got a packing plan without lengths=...; give the length table that it was planned for")
    if lengths.fingerprint != plan.fingerprint:
        raise PlanError(
            f"got a length table of fingerprint {lengths.fingerprint[:12]} for a packing plan of "
            f"{plan.fingerprint[:12]}; give the table that it was planned for"
        )
    if plan.cost is None:
        raise PlanError(
            f"the packing plan's cost ({plan.cost_name}) is not known; load the plan with cost=..., to plan other "
            "batch sizes by it"
        )
    return lengths
