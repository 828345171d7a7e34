"""Plan the batch shapes: jointly over all modalities, under a compile budget, with a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Literal

import numpy as np

from multimodal_pad.errors import PaddingError, PlanError
from multimodal_pad.lengths.cost import BatchBudget, Cost, cost_name, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import Lengths, as_lengths
from multimodal_pad.planning.partition import ENUMERATED, enumerate_shapes, optimal_runs
from multimodal_pad.planning.plan import ShapePlan, TailSaving
from multimodal_pad.planning.run_time import RunTime, ShapeCount
from multimodal_pad.planning.search import ShapeSearch
from multimodal_pad.planning.task import PlanningTask, Settled, is_among
from multimodal_pad.scheduling.policy import Grouping

MOST_SHAPES = 128
"""The most shapes that ``max_shapes="auto"`` tries."""

SEARCHED_ROWS = 8192
"""Most rows of the search: more distinct lengths are rounded up to fewer, and the shapes found are tightened after."""

TAIL_SHARES = (0.001, 0.01)
"""Shares of the samples for which a plan says what dropping or truncating them would save."""


def plan_shapes(
    lengths: Lengths,
    *,
    max_shapes: int | Literal["auto"] = 8,
    cost: Cost = position_count,
    alignment: int | Mapping[str, int] = 1,
    grouping: Grouping | str = "length",
    batch_size: int | BatchBudget = 32,
    batch_overhead: float = 0.0,
    run_time: RunTime | None = None,
    seed: int = 0,
    effort: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> ShapePlan:
    """Choose at most ``max_shapes`` batch shapes that hold every sample, for the least padded cost.

    In ``"length"`` grouping each sample pays the cost of the cheapest shape that holds it. In
    ``"random"`` grouping each sample pays the cost of the cheapest shape that holds the maxima of its
    batch, over batches that the schedule draws from the sorted samples; the longest lengths of all
    modalities together are always held, because a batch may have them.

    One modality is solved exactly by dynamic programming, and so is every table of at most 8 distinct
    aligned lengths by enumeration. Several modalities are searched, see
    :class:`~multimodal_pad.planning.search.ShapeSearch`; more shapes are never worse. The bound is the optimal
    partition of the sorted sample costs (:func:`~multimodal_pad.planning.partition.optimal_runs`), so that
    ``plan.gap`` is what is left to gain at most. The order of samples and of modalities changes nothing.

    Args:
        lengths: the length table ``(N, M)``; or its columns, ``{"text": [3, 5, ...]}``; or samples, each of which is
            read once to be measured.
        max_shapes: the compile budget, or ``"auto"``: as many as take least time in all, by ``run_time``.
        cost: per row, of padded lengths ``(n, M) -> (n,)``; not below 0, and never falling as lengths
            grow. Its columns follow ``lengths.modalities``.
        alignment: padded lengths are multiples of it; one for all modalities, or per modality (1 where
            a modality is not named).
        grouping: how batches will be made, see :func:`~multimodal_pad.scheduling.schedule.make_schedule`.
        batch_size: samples per batch, or a :class:`~multimodal_pad.lengths.cost.BatchBudget` for each shape.
        batch_overhead: what a batch costs beside its rows, in the unit of ``cost``.
        run_time: for ``"auto"``; :func:`multimodal_pad.compiling.calibrate` measures it. Its compiled shapes
            are in the plan as they are, beside those that are chosen.
        seed: of the search, and of the batches drawn.
        effort: how long the search may go on: at 1 a second or two for each shape, at 10 five times as long. It is
            counted in work and not in time, so that a plan is the same everywhere; up to three modalities need less
            than 1 allows. The number of random moves out of local minima grows with it. More effort makes plans little
            better.
        progress: called with 1, 2, ... as plans with so many shapes are found.

    Raises:
        LengthError: an alignment below 1, or of a modality that the table lacks.
        PaddingError: an option out of range, a cost that is NaN, negative or falling (named), or a compiled shape
            that such a plan can't have.
        PlanError: a sample, or a shape that is needed to stay within ``max_shapes``, exceeds the batch budget.

    >>> lengths = {"text": [3, 4, 20, 4], "audio": [30, 36, 31, 33]}
    >>> print(plan_shapes(lengths, max_shapes=2, alignment={"audio": 8}, batch_size=2))
    2 batch shapes for 4 samples, length grouping
    text  audio  rows  samples  efficiency
       4     40     2        3       0.833
      20     32     2        1       0.981
    padding efficiency: cost 0.875; positions text 0.969, audio 0.855, total 0.875
    bound: 0.875 for any plan of at most 2; a better one saves at most 0.0%
    """
    if max_shapes != "auto":
        check_whole("max_shapes", max_shapes, 1)
    elif run_time is None:
        raise PaddingError('max_shapes="auto" needs run_time=RunTime(epochs, compile_seconds, seconds_per_cost)')
    check_whole("seed", seed, 0, most=None)
    if not 0 <= effort < np.inf:
        raise PaddingError(f"got effort={effort!r}; it must be a finite number, 0 or more")
    task = PlanningTask(
        as_lengths(lengths),
        cost,
        alignment=alignment,
        grouping=grouping,
        batch_size=batch_size,
        batch_overhead=batch_overhead,
        seed=seed,
    )
    most = min(MOST_SHAPES if max_shapes == "auto" else int(max_shapes), len(task.rows))
    auto = run_time if max_shapes == "auto" else None
    kept = task.kept_shapes(auto.compiled) if auto else task.kept_shapes(())
    bounds = list(islice(lower_bounds(task), most + len(kept)))
    choice = ShapeCount(auto, task.epochs, bounds, len(kept)) if auto else None
    found: list[Settled] = choice.found if choice else []
    for shapes in _grow(task, seed, effort):
        candidate = task.settle(shapes)
        found.append(min(candidate, found[-1], key=lambda plan: plan.price) if found else candidate)
        if choice:
            choice.plans.append(task.settle(found[-1].lengths, kept) if len(kept) else found[-1])
        if progress is not None:
            progress(len(found))
        if len(found) == most or (choice and choice.is_enough):
            break
    if choice:
        history = choice.history
        return _assemble(task, history, bounds[: len(history)], kept, choice.reason)
    found += [found[-1]] * (most - len(found))
    return _assemble(task, found, bounds, kept)


def lower_bounds(task: PlanningTask) -> Iterator[float]:
    """Yield, for k = 1, 2, ..., the least padded cost of any plan with k shapes."""
    costs = task.costs(task.rows)
    order = np.argsort(costs, kind="stable")
    costs, weights = costs[order], task.weights[order]
    starts = np.unique(np.linspace(0, len(costs), 2**16, endpoint=False).astype(np.int64))
    # Beyond 65,536 costs, neighbours are charged the cheapest of them, which keeps it a bound.
    for total, _ in optimal_runs(costs[starts], np.add.reduceat(weights, starts)):
        yield total


def _grow(task: PlanningTask, seed: int, effort: float) -> Iterator[np.ndarray]:
    """Yield shapes ``(k, M)`` for k = 1, 2, ..., as good as the search finds them."""
    rows, weights = task.rows, task.weights
    if rows.shape[1] == 1:
        for _, ends in islice(optimal_runs(task.price(rows), weights), len(rows)):
            yield rows[ends]
    elif len(rows) <= ENUMERATED:
        yield from enumerate_shapes(rows, weights, task.price)
    else:
        rows, weights = _coarsen(task)
        yield from ShapeSearch(rows, weights, task.price, seed=seed, effort=effort).grow()


def _coarsen(task: PlanningTask) -> tuple[np.ndarray, np.ndarray]:
    """Return at most :data:`SEARCHED_ROWS` rows: neighbours are held together, as one row that is as long as each.

    Neighbours are the leaves of a k-d tree, which halves the cost along the modality that varies most.
    Those that would exceed the batch budget together stay apart, which may make the rows more.
    """
    rows, weights = task.rows, task.weights
    if len(rows) <= SEARCHED_ROWS:
        return rows, weights
    order, starts = np.arange(len(rows)), np.array([0])
    logs, mass = np.log(rows), weights * task.price(rows)
    while 2 * len(starts) <= SEARCHED_ROWS:
        sizes = np.diff(starts, append=len(rows))
        leaf = np.repeat(np.arange(len(starts)), sizes)
        spread = np.maximum.reduceat(logs[order], starts) - np.minimum.reduceat(logs[order], starts)
        order = order[np.lexsort((rows[order, spread.argmax(axis=1)[leaf]], leaf))]
        running = np.cumsum(mass[order])
        before = np.append(0, running)[starts]
        middle = np.searchsorted(running, (before + running[starts + sizes - 1]) / 2) + 1
        middle = np.clip(middle, starts + 1, starts + sizes - 1)
        starts = np.union1d(starts, middle[sizes > 1])
    rows, weights = rows[order], weights[order]
    held, held_weights = np.maximum.reduceat(rows, starts), np.add.reduceat(weights, starts)
    fits = task.batch_sizes(held) >= 1
    apart = np.repeat(~fits, np.diff(starts, append=len(rows)))
    return np.concatenate([held[fits], rows[apart]]), np.concatenate([held_weights[fits], weights[apart]])


def _assemble(
    task: PlanningTask, found: list[Settled], bounds: list[float], kept: np.ndarray, reason: str = ""
) -> ShapePlan:
    """Make the plan that users get from the last of those found for 1, 2, ... shapes."""
    best = found[-1]
    if best.cost < bounds[-1] * (1 - 1e-9):
        raise PaddingError(
            "the cost falls somewhere as lengths grow: padded to the shapes found, the samples cost less than they "
            "must; give a cost that never falls"
        )
    costs, tally = task.costs(best.lengths), task.tally(best.lengths)
    padded = tally.samples @ best.lengths
    each, total = _shares(task.real_positions, padded), _shares(task.real_positions.sum(), padded.sum())
    positions = dict(zip(task.names, each.tolist(), strict=True))
    samples = tally.samples / task.epochs
    return ShapePlan(
        modalities=task.given,
        lengths=task.restore(best.lengths),
        batch_sizes=_planned_rows(task, best, samples, kept),
        costs=costs,
        samples=samples,
        shape_efficiency=_shares(tally.real_costs, tally.samples * costs),
        efficiency=float(_shares(task.real_cost, best.cost)),
        position_efficiency={name: positions[name] for name in task.given} | {"total": float(total)},
        efficiencies=np.array([float(_shares(task.real_cost, plan.cost)) if plan.fits else 0.0 for plan in found]),
        bounds=_shares(task.real_cost, np.array(bounds)),
        savings=tuple(_savings(task, best)),
        alignment=task.alignment,
        grouping=task.grouping,
        batch_budget=None if task.budget is None else float(task.budget.limit),
        fingerprint=task.fingerprint,
        cost=task.cost,
        cost_name=cost_name(task.cost),
        reason=reason,
        table=task.lengths,
    )


def _planned_rows(task: PlanningTask, best: Settled, samples: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return rows per batch of each shape; to a budget, no more than hold the samples that the shape takes.

    A kept shape is compiled, and has the rows that it was compiled for.
    """
    sizes = task.batch_sizes(best.lengths)
    if not best.fits:
        raise PlanError(
            f"each sample fits the batch budget, but no {len(sizes)} shapes were found that fit it and hold all; "
            "raise max_shapes or the budget"
        )
    if task.budget is None or task.overhead:  # with an overhead, costs are for full batches
        return sizes
    multiple = task.budget.multiple
    needed = -(-samples.astype(np.int64) // multiple) * multiple
    return np.where(is_among(best.lengths, kept), sizes, np.minimum(sizes, needed))


def _savings(task: PlanningTask, best: Settled) -> Iterator[TailSaving]:
    """Yield the savings without the longest samples, or with them cut to the rest."""
    for share in TAIL_SHARES:
        count = int(share * task.samples)
        if count:
            shorter = [task.without_tail(count, truncate=truncate) for truncate in (False, True)]
            saved = [1 - _improve(other, best.lengths) / best.price if best.price else 0.0 for other in shorter]
            yield TailSaving(share, count, *(max(0.0, saving) for saving in saved))


def _improve(task: PlanningTask, shapes: np.ndarray) -> float:
    """Return the padded cost of as many shapes, found from these."""
    count = min(len(shapes), len(task.rows))
    if task.rows.shape[1] == 1:
        return next(islice(optimal_runs(task.price(task.rows), task.weights), count - 1, None))[0]
    start = task.settle(np.minimum(shapes, task.rows.max(axis=0)))
    if len(task.rows) > SEARCHED_ROWS:
        return start.price
    search = ShapeSearch(task.rows, task.weights, task.price, effort=0)
    search.reset(start.lengths)
    search.complete(count)
    return min(start.price, search.total)


def _shares(real: float | np.ndarray, padded: float | np.ndarray) -> np.ndarray:
    """Return real / padded, and 1 where nothing is padded."""
    divisor = np.asarray(padded, np.float64)
    return np.divide(real, divisor, out=np.ones_like(divisor), where=divisor > 0)
