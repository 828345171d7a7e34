"""As many rows per batch shape as the memory of the device holds, from XLA's own analysis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from multimodal_pad.compiling.cache import use_compilation_cache
from multimodal_pad.compiling.options import CompilerOptions
from multimodal_pad.compiling.table import StepTable, as_table, batch_struct
from multimodal_pad.compiling.warming import compile_all
from multimodal_pad.errors import PaddingError, PlanError, PlanWarning
from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LONGEST
from multimodal_pad.planning.plan import ShapePlan

FIRST_ROWS = 4
"""Times ``multiple``: the rows of a shape's first compilation. Not one, where XLA drops an axis."""

NEAR = 0.02
"""Rows that fit are enough where no more than this share of them is foretold to fit beside them."""


class _Line(NamedTuple):
    """Device bytes as a function of rows."""

    constant: float
    per_row: float

    def bytes(self, rows: int) -> float:
        return self.constant + self.per_row * rows

    def rows(self, limit: float) -> float:
        return (limit - self.constant) / self.per_row if self.per_row > 0 else float(LONGEST)


def fit_batch_sizes(
    step: StepTable | Callable[[Any, Any], Any],
    plan: ShapePlan,
    state: Any,
    example: Batch,
    *,
    bytes_limit: float | Literal["device"] = "device",
    headroom: float = 0.1,
    multiple: int = 1,
    largest: int | None = None,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = True,
) -> ShapePlan:
    """Give each planned shape the most rows whose step fits the memory of the device.

    Nothing is run and nothing is allocated: the bytes of a step are what XLA's analysis of the compiled
    program says. Each shape is compiled with few rows, and with as many as should then fit if bytes grew in
    proportion. They grow nearly so: a line through the two says how many rows fit, and that program is compiled
    to confirm it (and again with fewer rows, should it not fit). The confirmed one stays in the table, where
    :func:`warm_up` finds it.

    Args:
        step: the table to fill, or a function ``(state, batch)`` to make one of. Donated state counts once.
        plan: the shapes; made for length grouping. Its own rows don't matter.
        state: arrays, or anything with their shapes and dtypes.
        example: any batch: its feature shapes, dtypes and targets serve; its lengths and size don't matter.
        bytes_limit: of a device, or ``"device"``: what it reports as its limit, less what is in use there
            beside the state; of the devices that hold the state the one with least. Several hosts must share one
            plan: fit it on one and save it for the others.
        headroom: the share of the limit that is left alone: for the batches on their way, copies of
            the state, and what an allocator loses.
        multiple: rows are a multiple of it: 8 for tensor cores, or the number of devices.
        largest: the most rows of a batch. No shape gets more than its samples fill in any case.
        threads: that compile side by side, as for :func:`warm_up`.
        cache_dir: folder of the persistent compilation cache, as for :func:`warm_up`.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar.

    Returns:
        The plan with these rows; its ``batch_budget`` is the limit in bytes, without the headroom. Its costs
        and efficiencies stay those of the rows that it was planned with, which matters where it was made with a
        ``batch_overhead``.

    Raises:
        PlanError: not even ``multiple`` rows of a shape fit (names the shape and the bytes), or the plan was
            made for random grouping.
        PaddingError: an option out of range, or a device that does not report its limit.

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
    if plan.grouping.draws_first:
        raise PlanError(
            "a random batch is drawn before its shape is known, so its rows can't follow from it; plan with "
            "grouping='length'"
        )
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    limit = usable_bytes(bytes_limit, state, headroom)
    table = as_table(step, compiler_options)
    fit = BatchSizeFit(table, plan, state, example, limit, multiple, largest, threads, progress)
    return replace(plan, batch_sizes=fit.run(), batch_budget=limit)


class BatchSizeFit:
    """The rows of each shape, from a line that every compilation makes better.

    Attributes:
        known: bytes of each shape by rows, as XLA tells them.
        foretold: what a line said of the batch shapes that were then compiled.
    """

    def __init__(
        self,
        table: StepTable,
        plan: ShapePlan,
        state: Any,
        example: Batch,
        limit: float,
        multiple: int = 1,
        largest: int | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.table, self.plan, self.state, self.example = table, plan, state, example
        self.limit, self.multiple = limit, multiple
        self.options = {"threads": threads, "progress": progress}
        most = -(-np.maximum(1, plan.samples.astype(np.int64)) // multiple) * multiple
        self.most = most if largest is None else np.minimum(most, largest // multiple * multiple)
        self.shapes = plan.batch_shapes
        self.known: list[dict[int, int]] = [{} for _ in self.shapes]
        self.foretold: dict[BatchShape, float] = {}

    def run(self) -> np.ndarray:
        """Rows of each shape, ``(k,)``, all confirmed."""
        there, kept = set(self.table.steps), set()
        try:
            if not self._search():
                return self._by_cost_model()
            chosen = [max(self._fitting(number)) for number in range(len(self.shapes))]
            kept = {shape._replace(batch_size=rows) for shape, rows in zip(self.shapes, chosen, strict=True)}
            return np.array(chosen)
        finally:
            for shape in set(self.table.steps) - there - kept:
                del self.table.steps[shape]

    def _search(self) -> bool:
        """Compile until the rows that fit best are known for each shape; False where XLA tells no bytes."""
        numbers = range(len(self.shapes))[::-1]  # the dearest first: if a shape must be refused, that one is named
        wanted = [(number, self.multiple * FIRST_ROWS) for number in numbers]
        while wanted:
            if not self._measure(wanted):
                return False
            wanted = [(number, rows) for number in numbers if (rows := self._next_rows(number)) is not None]
        return True

    def _measure(self, wanted: Sequence[tuple[int, int]]) -> bool:
        """Compile shapes (by number) with so many rows, and note their bytes; False where XLA tells none."""
        shapes = [self.shapes[number]._replace(batch_size=rows) for number, rows in wanted]
        jobs = [(self.table, batch_struct(self.example, shape)) for shape in shapes]
        steps = compile_all(jobs, self.state, **self.options)
        for (number, rows), compiled in zip(wanted, steps, strict=True):
            if compiled.device_bytes is None:
                return False
            self.known[number][rows] = compiled.device_bytes
        return True

    def _fitting(self, number: int) -> list[int]:
        """Numbers of rows that are known to fit."""
        return [rows for rows, held in self.known[number].items() if held <= self.limit and rows <= self.most[number]]

    def _next_rows(self, number: int) -> int | None:
        """The rows to compile next, or None where those that fit best are known."""
        known, most = self.known[number], int(self.most[number])
        fits, over = self._fitting(number), [rows for rows, held in known.items() if held > self.limit]
        line = self._line(number, fits, over)
        ceiling = min([most, *(rows - self.multiple for rows in over)])
        if ceiling < self.multiple:
            self._refuse(number, known[min(over)])
        rows = min(self._rounded(line.rows(self.limit), number), ceiling)
        if fits and (rows <= max(fits) * (1 + NEAR) or max(fits) == ceiling):
            return None
        if len(known) > 1:
            self.foretold[self.shapes[number]._replace(batch_size=rows)] = line.bytes(rows)
        return rows

    def _line(self, number: int, fits: list[int], over: list[int]) -> _Line:
        """Through the known points on both sides of the limit, or the two nearest on one; through the state if one."""
        known = self.known[number]
        if len(known) == 1:
            ((rows, held),) = known.items()
            constant = min(held, _nbytes(self.state))
            return _Line(constant, (held - constant) / rows)
        ends = [max(fits), min(over)] if fits and over else sorted(known)[-2:] if fits else sorted(known)[:2]
        fewer, more = sorted(ends)
        per_row = max(0.0, (known[more] - known[fewer]) / (more - fewer))
        return _Line(known[fewer] - per_row * fewer, per_row)

    def _rounded(self, rows: float, number: int) -> int:
        whole = int(min(max(rows, 0.0), float(self.most[number])))
        return max(self.multiple, whole // self.multiple * self.multiple)

    def _by_cost_model(self) -> np.ndarray:
        """Rows by the bytes of the plan's cost model, where XLA tells nothing."""
        cost = self.plan.cost
        device = jax.devices()[0].device_kind
        if not isinstance(cost, TransformerCost):
            raise PaddingError(
                f"XLA gives no memory analysis on {device}, and the plan's cost ({self.plan.cost_name}) tells no "
                "bytes; plan with a TransformerCost, or with batch_size=BatchBudget(...)"
            )
        warnings.warn(
            f"XLA gives no memory analysis on {device}; rows per batch follow from the bytes of the plan's "
            "TransformerCost, and nothing confirms them",
            PlanWarning,
            stacklevel=4,
        )
        held, activations = _nbytes(self.state), cost.activation_bytes(self.plan.lengths)
        rows = np.zeros(len(self.shapes), np.int64)
        for number in reversed(range(len(rows))):
            row = _nbytes(batch_struct(self.example, self.shapes[number]._replace(batch_size=1)))
            line = _Line(held, float(activations[number]) + row)
            if line.bytes(self.multiple) > self.limit:
                self._refuse(number, line.bytes(self.multiple))
            rows[number] = self._rounded(line.rows(self.limit), number)
        return rows

    def _refuse(self, number: int, needed: float) -> None:
        shape = self.shapes[number]._replace(batch_size=self.multiple)
        raise PlanError(
            f"{shape} needs {needed:,.0f} bytes and {self.limit:,.0f} are left for it; cut or drop the longest "
            "samples, lower the headroom, or use a smaller model"
        )


def usable_bytes(bytes_limit: float | Literal["device"], state: Any, headroom: float) -> float:
    """What a step may take of the limit; see :func:`fit_batch_sizes`."""
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
        held = _nbytes([shard.data for shard in shards if shard.device == device])
        room.append(stats["bytes_limit"] - max(0, stats.get("bytes_in_use", 0) - held))
    return (1 - headroom) * min(room)


def _nbytes(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
