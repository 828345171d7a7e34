"""Choose the batch shapes of a run on this device, and keep every program that the choice compiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import TimeElapsedColumn

from multimodal_pad.compiling.cache import cache_in_use, use_compilation_cache, write_whole_entries
from multimodal_pad.compiling.calibration import fit_steps, fit_terms
from multimodal_pad.compiling.calibration_file import CalibrationFile, identity
from multimodal_pad.compiling.log import CompileLog
from multimodal_pad.compiling.step_times import StepTime, seconds_from_cache, time_steps
from multimodal_pad.compiling.table import StepTable, batch_struct
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.lengths.cost import BatchBudget, Cost, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.planner import plan_shapes
from multimodal_pad.planning.run_time import RunTime
from multimodal_pad.planning.task import PlanningTask
from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.scheduling.policy import Grouping


def plan_run(
    table: StepTable,
    lengths: LengthTable,
    state: Any,
    example: Batch,
    *,
    epochs: float,
    cost: Cost = position_count,
    alignment: int | Mapping[str, int] = 1,
    grouping: Grouping | str = "length",
    batch_size: int | BatchBudget = 32,
    seed: int = 0,
    effort: float = 1.0,
    repeats: int = 3,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> ShapePlan:
    """Plan as many batch shapes as pay for a run on this device: seconds to compile against seconds to step.

    The largest shape is compiled and timed first. If no number of smaller shapes could save the time to compile them,
    even with steps that take time in proportion to their cost, the plan has that shape alone. Otherwise the shape that
    would take most samples is compiled and timed, too, which shows a step's time beside its cost, and the shapes
    are planned with both. Every shape is assumed to compile as long as these.

    Both programs stay in the table, and their shapes are in the plan, so :func:`warm_up` compiles only the others:

        plan = plan_run(table, lengths, state, example, epochs=20, cache_dir="~/.cache/mine")
        warm_up(table, plan.spec(example), state, cache_dir="~/.cache/mine")

    With several processes, plan in one process and give the others its file (:meth:`ShapePlan.save
    <multimodal_pad.ShapePlan.save>`): the shapes follow from times, which differ between processes.

    Args:
        table: of the run's step: ``(state, batch)`` to the next state, or to a tuple that begins with it.
        lengths: the length table ``(N, M)``.
        state: the table's first argument; timing runs on a copy.
        example: any batch: its feature shapes, dtypes and targets serve; its lengths and size don't matter.
        epochs: of the run; count those of all runs that will read the same programs from the cache.
        cost: per row, as for :func:`~multimodal_pad.plan_shapes`; its unit doesn't matter.
        alignment: of padded lengths, as for :func:`~multimodal_pad.plan_shapes`, and so are the next four.
        grouping: ``"length"`` or ``"random"``.
        batch_size: samples per batch, or a budget.
        seed: of the search.
        effort: of the search.
        repeats: runs of each of the two programs after a first one; their median counts.
        cache_dir: folder of the persistent compilation cache, see :func:`use_compilation_cache`. Measurements are
            kept there, too, in a file per device and program, so that the next run doesn't measure.
        progress: show what is being compiled.

    Returns:
        The plan. ``plan.reason`` says in a line how many shapes it has and why; ``print(plan)`` shows it.

    Raises:
        PaddingError: a function in place of the table, several processes, a step that gives no next state, or what
            :func:`~multimodal_pad.plan_shapes` refuses.

    Warns:
        CalibrationWarning: the file of measurements is damaged, or of another device or model; they are made anew.

    >>> from multimodal_pad import pad_samples
    >>> def step(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> lengths = LengthTable(("text",), np.arange(1, 101)[:, None])
    >>> table, example = StepTable(step), pad_samples([{"text": np.ones(3)}])
    >>> plan = plan_run(table, lengths, np.float32(0), example, epochs=1, progress=False)
    >>> len(plan), plan.reason.partition(":")[0], plan.batch_shapes == list(table.steps)
    (1, '1 batch shape', True)
    """
    _check(table, epochs, repeats)
    options: dict[str, Any] = {"alignment": alignment, "grouping": grouping, "batch_size": batch_size, "seed": seed}
    task = PlanningTask(lengths, cost, batch_overhead=0.0, **options)
    folder = None if cache_dir is None else use_compilation_cache(cache_dir)
    if cache_in_use():
        write_whole_entries()
    largest = _largest_shape(task)
    fit_terms(cost, [largest], lengths.modalities)

    def planned(times: list[StepTime], effort: float) -> ShapePlan:
        found = fit_steps(times, cost, lengths.modalities)
        compiled = [time.shape for time in times if time.shape == largest or _may_keep(task, time.shape)]
        return plan_shapes(
            lengths,
            max_shapes="auto",
            cost=found.cost,
            batch_overhead=found.batch_overhead,
            run_time=found.run_time(epochs, compiled),
            effort=effort,
            **options,
        )

    with progress_bars(TimeElapsedColumn, bar=False, disable=not progress) as bar:

        def measured(shape: BatchShape, lowered: tuple[Any, float] | None = None) -> StepTime:
            shown = bar.add_task(f"compiling {table.name} for {shape}", total=None)
            found = _measure(table, shape, state, example, repeats, lowered)
            bar.update(shown, total=1, completed=1)
            return found

        lowered = table.lower(state, batch_struct(example, largest)) if folder or largest not in table.steps else None
        file = CalibrationFile(folder, identity(table, lowered[0]) if folder and lowered else {})
        times = file.read()
        if lowered and any(time.shape == largest for time in times):
            # The run needs the program in any case, and lowering it again would take as long as reading it.
            if largest not in table.steps:
                table.finish(largest, *lowered)
        else:
            times = [measured(largest, lowered)]
            file.write(times)
        # A rough plan shows whether more than one shape pays off, and which of them would take most samples.
        rough = planned(times, 0.0) if len(times) == 1 else None
        if rough and len(rough) == 1:
            return rough
        if rough:
            times = [*times, measured(_most_used(task, rough, largest))]
            file.write(times)
        return planned(times, effort)


def _check(table: StepTable, epochs: float, repeats: int) -> None:
    if not isinstance(table, StepTable):
        raise PaddingError(
            f"got {table!r}; give a StepTable of it, which keeps the programs, and warm that up with the plan"
        )
    check_whole("repeats", repeats, 1)
    RunTime(epochs, 0, 0)
    if jax.process_count() > 1:
        raise PaddingError(
            f"got {jax.process_count()} processes, whose plans would differ; plan in a run of one, save the plan "
            "and load it in all"
        )


def _measure(
    table: StepTable,
    shape: BatchShape,
    state: Any,
    example: Batch,
    repeats: int,
    lowered: tuple[Any, float] | None,
) -> StepTime:
    """Compile for a shape, unless the table has it, and time its steps."""
    with CompileLog() as log:
        step = table.steps.get(shape) or table.finish(
            shape, *(lowered or table.lower(state, batch_struct(example, shape)))
        )
    (seconds,) = time_steps(table, [shape], state, example, repeats)
    return StepTime(shape, float(seconds), step.seconds + seconds_from_cache(log))


def _largest_shape(task: PlanningTask) -> BatchShape:
    """Return the longest lengths together, or the costliest sample's where a batch budget is below those."""
    row = task.rows.max(axis=0)
    if task.batch_sizes(row[None])[0] < 1:
        row = task.rows[np.argmax(task.costs(task.rows))]
    return _batch_shape(task, row)


def _most_used(task: PlanningTask, plan: ShapePlan, measured: BatchShape) -> BatchShape:
    """Return the shape of a plan that takes most samples, other than the one measured."""
    columns = [plan.modalities.index(name) for name in task.names]
    shapes = [_batch_shape(task, row[columns]) for row in plan.lengths]
    return next(shapes[place] for place in np.argsort(-plan.samples, kind="stable") if shapes[place] != measured)


def _batch_shape(task: PlanningTask, row: np.ndarray) -> BatchShape:
    rows = int(task.batch_sizes(row[None])[0])
    lengths = dict(zip(task.names, row.tolist(), strict=True))
    return BatchShape.of(rows, {name: lengths[name] for name in task.given})


def _may_keep(task: PlanningTask, shape: BatchShape) -> bool:
    """Return whether a plan of this run may have a shape that was measured in another run."""
    try:
        (row,) = task.kept_shapes([shape])
    except PaddingError:
        return False
    return bool((row <= task.rows.max(axis=0)).all())
