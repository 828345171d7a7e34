"""As many rows per batch shape as the memory of the device holds, from XLA's own analysis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from multimodal_pad.compiling.cache import use_compilation_cache
from multimodal_pad.compiling.memory_search import Line, MemorySearch, nbytes, refusal
from multimodal_pad.compiling.options import CompilerOptions
from multimodal_pad.compiling.packed_batch_sizes import PackedBatchSizeFit
from multimodal_pad.compiling.table import StepTable, as_table, batch_struct
from multimodal_pad.compiling.warming import compile_all
from multimodal_pad.errors import PaddingError, PlanError, PlanWarning
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.plan import ShapePlan

P = TypeVar("P", ShapePlan, PackingPlan)


def fit_batch_sizes(
    step: StepTable | Callable[[Any, Any], Any],
    plan: P,
    state: Any,
    example: Batch,
    *,
    lengths: LengthTable | None = None,
    bytes_limit: float | Literal["device"] = "device",
    headroom: float = 0.1,
    multiple: int = 1,
    largest: int | None = None,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = True,
) -> P:
    """Choose the most rows for each planned shape, or samples of packed batches, whose step fits the device's memory.

    Nothing is run and nothing is allocated: the bytes of a step come from XLA's analysis of the compiled
    program. Each shape is compiled with few rows, and with as many as should then fit if bytes grew in
    proportion. They grow nearly so: a line through the two predicts how many rows fit, and that program is compiled
    to confirm it (and again with fewer rows, should it not fit). The confirmed one stays in the table, where
    :func:`warm_up` finds it.

    For a packing plan capacities are planned anew for each batch size that is tried, beginning with the plan's own.

    Args:
        step: the table to fill, or a function ``(state, batch)`` to make one of. Donated state counts once.
        plan: the shapes, made for length grouping, whose own rows don't matter; or a packing plan.
        state: arrays, or anything with their shapes and dtypes.
        example: any batch: its feature shapes, dtypes and targets serve; its lengths and size don't matter.
        lengths: the length table of a packing plan.
        bytes_limit: of a device, or ``"device"``: the limit that it reports, less what is in use there
            beside the state; of the devices that hold the state the one with least. Several hosts must share one
            plan: fit it on one and save it for the others.
        headroom: the share of the limit that is left free: for the batches on their way, copies of
            the state, and an allocator's losses.
        multiple: rows are a multiple of it: 8 for tensor cores, or the number of devices. Samples of a packed batch
            are one of the plan's shares, too.
        largest: the most rows of a batch. No shape gets more than its samples fill in any case.
        threads: how many compile side by side, as for :func:`warm_up`.
        cache_dir: folder of the persistent compilation cache, as for :func:`warm_up`.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar.

    Returns:
        The plan with these rows; its ``batch_budget`` is the limit in bytes, without the headroom. Its costs
        and efficiencies stay those of the rows that it was planned with, which matters where it was made with a
        ``batch_overhead``. A packing plan is the one for the largest batch size.

    Raises:
        PlanError: not even ``multiple`` rows of a shape fit (names the shape and the bytes), or the plan was
            made for random grouping; a packing plan without its length table, or whose cost is not known.
        PaddingError: an option out of range, a device that does not report its limit, or one where XLA gives no
            analysis for a packing plan.

    Warns:
        PlanWarning: XLA gives no analysis here, and the bytes are those of the plan's
            :class:`~multimodal_pad.TransformerCost` instead, which were fitted on CPU and are unproven elsewhere.

    >>> from multimodal_pad import LengthTable, pad_samples, plan_shapes
    >>> def total(state, batch):
    ...     return state + batch.features["audio"].sum()
    >>> samples = [{"audio": np.ones((n, 100), np.float32)} for n in [8] * 90 + [64] * 90]
    >>> plan = plan_shapes(LengthTable.measure(samples), max_shapes=2)
    >>> fitted = fit_batch_sizes(
    ...     total, plan, np.float32(0), pad_samples(samples[:1]), bytes_limit=1e6, multiple=4, progress=False
    ... )
    >>> fitted.lengths.ravel().tolist(), fitted.batch_sizes.tolist()
    ([8, 64], [92, 32])
    """
    check_whole("multiple", multiple, 1)
    if largest is not None:
        check_whole("largest", largest, multiple)
    if isinstance(plan, ShapePlan) and lengths is not None:
        raise PaddingError("got lengths=... for a plan of padded shapes, whose lengths stay; leave it out")
    if isinstance(plan, ShapePlan) and plan.grouping.draws_first:
        raise PlanError(
            "a random batch is drawn before its shape is known, so its rows can't follow from it; plan with "
            "grouping='length'"
        )
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    limit = usable_bytes(bytes_limit, state, headroom)
    table = as_table(step, compiler_options)
    options: dict[str, Any] = {"multiple": multiple, "largest": largest, "threads": threads, "progress": progress}
    if isinstance(plan, PackingPlan):
        return PackedBatchSizeFit(table, plan, lengths, state, example, limit, **options).run()
    fit = BatchSizeFit(table, plan, state, example, limit, **options)
    return replace(plan, batch_sizes=fit.run(), batch_budget=limit)


class BatchSizeFit:
    """The search for the rows of each shape.

    Attributes:
        searches: one per shape.
    """

    def __init__(
        self,
        table: StepTable,
        plan: ShapePlan,
        state: Any,
        example: Batch,
        limit: float,
        *,
        multiple: int = 1,
        largest: int | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.table, self.plan, self.state, self.example = table, plan, state, example
        self.limit, self.multiple = limit, multiple
        self.options = {"threads": threads, "progress": progress}
        most = -(-np.maximum(1, plan.samples.astype(np.int64)) // multiple) * multiple
        most = most if largest is None else np.minimum(most, largest // multiple * multiple)
        self.shapes = plan.batch_shapes
        self.searches = [MemorySearch(limit, multiple, int(rows), nbytes(state)) for rows in most]

    def run(self) -> np.ndarray:
        """Return the rows of each shape, ``(k,)``, all confirmed."""
        there, kept = set(self.table.steps), set()
        try:
            if not self._search():
                return self._by_cost_model()
            chosen = [search.best for search in self.searches]
            kept = {shape._replace(batch_size=rows) for shape, rows in zip(self.shapes, chosen, strict=True)}
            return np.array(chosen)
        finally:
            for shape in set(self.table.steps) - there - kept:
                del self.table.steps[shape]

    def _search(self) -> bool:
        """Compile until the rows that fit best are known for each shape; False where XLA gives no bytes."""
        while wanted := self._wanted():
            if not self._measure(wanted):
                return False
        return True

    def _wanted(self) -> list[tuple[int, int]]:
        """Return the shapes (by number) to compile next, and with how many rows."""
        wanted = []
        for number in reversed(range(len(self.shapes))):  # the dearest first: an error names that one
            rows, refused = self.searches[number].next_rows(), self.searches[number].refused
            if refused is not None:
                self._refuse(number, refused)
            if rows is not None:
                wanted.append((number, rows))
        return wanted

    def _measure(self, wanted: Sequence[tuple[int, int]]) -> bool:
        """Compile shapes (by number) with so many rows, and note their bytes; False where XLA gives none."""
        shapes = [self.shapes[number]._replace(batch_size=rows) for number, rows in wanted]
        jobs = [(self.table, batch_struct(self.example, shape)) for shape in shapes]
        steps = compile_all(jobs, self.state, **self.options)
        for (number, rows), compiled in zip(wanted, steps, strict=True):
            if compiled.device_bytes is None:
                return False
            self.searches[number].known[rows] = compiled.device_bytes
        return True

    def _by_cost_model(self) -> np.ndarray:
        """Return rows by the bytes of the plan's cost model, where XLA gives none."""
        cost = self.plan.cost
        device = jax.devices()[0].device_kind
        if not isinstance(cost, TransformerCost):
            raise PaddingError(
                f"XLA gives no memory analysis on {device}, and the plan's cost ({self.plan.cost_name}) gives no "
                "bytes; plan with a TransformerCost, or with batch_size=BatchBudget(...)"
            )
        warnings.warn(
            f"XLA gives no memory analysis on {device}; rows per batch follow from the bytes of the plan's "
            "TransformerCost, and nothing confirms them",
            PlanWarning,
            stacklevel=4,
        )
        held, activations = nbytes(self.state), cost.activation_bytes(self.plan.lengths)
        rows = np.zeros(len(self.shapes), np.int64)
        for number in reversed(range(len(rows))):
            row = nbytes(batch_struct(self.example, self.shapes[number]._replace(batch_size=1)))
            line = Line(held, float(activations[number]) + row)
            if line.bytes(self.multiple) > self.limit:
                self._refuse(number, line.bytes(self.multiple))
            rows[number] = self.searches[number].rounded(line.rows(self.limit))
        return rows

    def _refuse(self, number: int, needed: float) -> None:
        raise PlanError(refusal(self.shapes[number]._replace(batch_size=self.multiple), needed, self.limit))


def usable_bytes(bytes_limit: float | Literal["device"], state: Any, headroom: float) -> float:
    """Return the bytes of the limit that a step may take; see :func:`fit_batch_sizes`."""
    if not 0 <= headroom < 1:
        raise PaddingError(f"got headroom={headroom!r}; it must be a share of the limit, at least 0 and below 1")
    if bytes_limit != "device":
        if isinstance(bytes_limit, str) or not 0 < bytes_limit < np.inf:
            raise PaddingError(f'got bytes_limit={bytes_limit!r}; give bytes above 0, or "device"')
        return (1 - headroom) * float(bytes_limit)
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array) and not x.is_deleted()]
    shards = [shard for x in arrays for shard in x.addressable_shards]
    room = []
    for device in {shard.device for shard in shards} or jax.local_devices()[:1]:
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            raise PaddingError(
                f"{device.device_kind} does not report how much memory it has; give bytes_limit, in bytes"
            )
        held = nbytes([shard.data for shard in shards if shard.device == device])
        room.append(stats["bytes_limit"] - max(0, stats.get("bytes_in_use", 0) - held))
    return (1 - headroom) * min(room)
