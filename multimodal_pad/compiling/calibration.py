"""How long this device takes to compile a step and to run it: plans in seconds, and not in FLOPs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from multimodal_pad.compiling.log import CompileLog
from multimodal_pad.compiling.options import CompilerOptions, default_threads
from multimodal_pad.compiling.table import StepTable, as_table, batch_struct
from multimodal_pad.compiling.warming import Shapes, compile_all, listed_shapes
from multimodal_pad.cost import Cost, TransformerCost, position_count, priced_modalities
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths import LengthTable, check_whole
from multimodal_pad.padding import BatchShape, PaddedBatch
from multimodal_pad.plan import ShapePlan
from multimodal_pad.planner import RunTime

SHARES = (0.25, 0.5, 0.9, 0.99, 1.0)
"""Of the samples: :func:`typical_shapes` has the lengths that so many of them don't exceed, in each modality."""


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` measured, as the planner takes it.

    A step of ``rows`` at padded lengths L takes ``seconds_per_cost * (batch_overhead + rows * cost(L))``. To plan
    with it: ``plan_shapes(lengths, max_shapes="auto", cost=c.cost, batch_overhead=c.batch_overhead,
    run_time=c.run_time(epochs=20))``.

    Attributes:
        cost: per row. A :class:`~multimodal_pad.TransformerCost` has its linear and quadratic FLOPs weighted so
            that it is in seconds; any other cost is as it was.
        seconds_per_cost: of a step, for each unit of ``cost``; 1 where that is in seconds.
        batch_overhead: what a step takes beside its rows, in the unit of ``cost``.
        compile_seconds: mean of a shape, on the clock: less than each took where threads compiled side by side. A
            program that was read from the persistent cache counts about as long as it took to compile once; of a
            table that had all shapes before, what it noted then.
        error: root mean square of the relative errors with which the fit to the other shapes foretells each
            shape's step; NaN where there is one shape alone.
        shapes: that were measured.
        step_seconds: of each, the median.
    """

    cost: Cost
    seconds_per_cost: float
    batch_overhead: float
    compile_seconds: float
    error: float
    shapes: tuple[BatchShape, ...]
    step_seconds: tuple[float, ...]

    def run_time(self, epochs: float) -> RunTime:
        """What ``plan_shapes(max_shapes="auto")`` weighs for a run of so many epochs."""
        return RunTime(epochs, self.compile_seconds, self.seconds_per_cost)


def calibrate(
    step: StepTable | Callable[[Any, PaddedBatch], Any],
    shapes: Shapes,
    state: Any,
    example: PaddedBatch,
    *,
    cost: Cost = position_count,
    repeats: int = 5,
    threads: int | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = False,
) -> Calibration:
    """Compile a step for a few batch shapes, time it there, and fit the cost to the times.

    The fit is by least squares of relative errors, with no negative coefficient: a constant and one factor for
    the cost, or, for a :class:`~multimodal_pad.TransformerCost`, one each for its linear and its quadratic FLOPs.

    Args:
        step: a table or function ``(state, batch)`` that gives the next state, or a tuple that begins with it; a
            table keeps what is compiled.
        shapes: the batch shapes to measure, such as :func:`typical_shapes` of the lengths; those of several
            sizes and forms tell more.
        state: its first argument; gone for the caller where the table donates it.
        example: any batch, as for :func:`warm_up`.
        cost: per row, of lengths ``(n, M)``. Its columns are ``cost.modalities``, or else those of the plan that
            the shapes are given as, or else the modalities in the order of their names.
        repeats: runs at each shape after a first one, in random order; their median counts.
        threads: that compile side by side, as for :func:`warm_up`.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar.

    Raises:
        PaddingError: no shapes, no repeats, other modalities in the batch than in the shapes, shapes that all
            cost nothing, or a step that gives no next state.

    >>> def step(state, batch):
    ...     return state + batch.features["text"].sum(), None
    >>> from multimodal_pad import pad_samples
    >>> shapes = [BatchShape.of(4, {"text": length}) for length in (8, 64, 512)]
    >>> calibration = calibrate(step, shapes, np.float32(0), pad_samples([{"text": np.arange(3.0)}]))
    >>> calibration.run_time(epochs=10).epochs, calibration.compile_seconds > 0, calibration.error >= 0
    (10, True, True)
    """
    check_whole("repeats", repeats, 1)
    table = as_table(step, compiler_options)
    threads = default_threads() if threads is None else threads
    listed = listed_shapes(shapes)
    if not listed:
        raise PaddingError("got no shapes to calibrate at; give at least one, or three for a fit")
    by_name = tuple(name for name, _ in listed[0].lengths)
    names = priced_modalities(cost) or (shapes.modalities if isinstance(shapes, ShapePlan) else by_name)
    terms = _terms(cost, listed, names)
    fresh = sum(shape not in table.steps for shape in listed)
    started = time.perf_counter()
    with CompileLog() as log:
        jobs = [(table, batch_struct(example, shape)) for shape in listed]
        steps = compile_all(jobs, state, threads=threads, progress=progress)
    # What the persistent cache gave counts as if it had been compiled, since other shapes will not be there. It
    # remembers whole seconds, rounded down: half a second is what that leaves out.
    cached = max(0.0, log.total.saved_seconds + 0.5 * log.total.cache_hits)
    compiling = time.perf_counter() - started + cached / max(1, min(threads, fresh))
    measured = _time_steps(table, listed, state, example, repeats)
    weights = _fit(terms, measured)
    seconds_per_cost, fitted = float(weights[1]), cost
    if isinstance(cost, TransformerCost):
        seconds_per_cost = 1.0
        fitted = replace(cost, linear_weight=float(weights[1]), quadratic_weight=float(weights[2]), memory_weight=0.0)
    return Calibration(
        cost=fitted,
        seconds_per_cost=seconds_per_cost,
        batch_overhead=float(weights[0]) / seconds_per_cost,
        compile_seconds=compiling / fresh if fresh else float(np.mean([step.seconds for step in steps])),
        error=_foretelling_error(terms, measured),
        shapes=tuple(listed),
        step_seconds=tuple(measured.tolist()),
    )


def typical_shapes(lengths: LengthTable, batch_size: int) -> list[BatchShape]:
    """Batch shapes to calibrate at: quantiles of every modality together, the longest lengths included.

    >>> typical_shapes(LengthTable(("text",), np.arange(1, 101)[:, None]), 32)[-1]
    BatchShape(batch_size=32, lengths=(('text', 100),))
    """
    check_whole("batch_size", batch_size, 1)
    quantiles = np.maximum(np.quantile(lengths.values, SHARES, axis=0, method="inverted_cdf"), 1)
    rows = np.unique(quantiles, axis=0).tolist()
    return [BatchShape.of(batch_size, dict(zip(lengths.modalities, row, strict=True))) for row in rows]


def _terms(cost: Cost, shapes: list[BatchShape], names: tuple[str, ...]) -> np.ndarray:
    """What a step's seconds are a sum of, ``(n, w)``: 1 for every step, then rows times each part of the cost."""
    for shape in shapes:
        if set(dict(shape.lengths)) != set(names):
            raise PaddingError(f"got the shape {shape} among others of {list(names)}; give all the same modalities")
    lengths = np.array([[dict(shape.lengths)[name] for name in names] for shape in shapes])
    rows = np.array([[shape.batch_size] for shape in shapes], np.float64)
    each = cost.step_flops(lengths) if isinstance(cost, TransformerCost) else np.asarray(cost(lengths), float)[:, None]
    if not each.max() > 0:
        raise PaddingError("the cost of every shape is 0; time per cost makes no sense for it")
    return np.concatenate([np.ones((len(shapes), 1)), rows * each], axis=1)


def _fit(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Factors of the terms, none below 0, by least squares of relative errors; not the constant alone."""
    from scipy.optimize import nnls  # JAX needs SciPy too, but nothing else here does

    scale = np.maximum(terms.max(axis=0), np.finfo(float).tiny)
    relative = terms / scale / seconds[:, None]
    factors, _ = nnls(relative, np.ones(len(seconds)))
    if not factors[1:].any():
        factors = np.append(0.0, nnls(relative[:, 1:], np.ones(len(seconds)))[0])
    return factors / scale


def _foretelling_error(terms: np.ndarray, seconds: np.ndarray) -> float:
    others = [np.delete(np.arange(len(seconds)), place) for place in range(len(seconds))]
    if len(others) < 2:
        return float("nan")
    foretold = [terms[place] @ _fit(terms[kept], seconds[kept]) for place, kept in enumerate(others)]
    return float(np.sqrt(np.mean((np.array(foretold) / seconds - 1) ** 2)))


def _time_steps(
    table: StepTable, shapes: list[BatchShape], state: Any, example: PaddedBatch, repeats: int
) -> np.ndarray:
    """Median seconds of a step at each shape, every position real."""
    batches = [_blank(batch_struct(example, shape)) for shape in shapes]
    seconds = np.zeros((repeats + 1, len(shapes)))
    rng = np.random.default_rng(0)
    for turn in range(repeats + 1):
        # In another order each time, as in training: a step after one of a large shape takes longer.
        for place in rng.permutation(len(shapes)).tolist():
            started = time.perf_counter()
            result = jax.block_until_ready(table(state, batches[place]))
            seconds[turn, place] = time.perf_counter() - started
            state = _next_state(result, state)
    return np.median(seconds[1:], axis=0)


def _next_state(result: Any, state: Any) -> Any:
    """The state that a step gave: all of its result, or the first part of it."""
    wanted = jax.tree.structure(state)
    for candidate in (result, result[0] if isinstance(result, tuple) and result else None):
        if jax.tree.structure(candidate) == wanted:
            return candidate
    raise PaddingError(
        f"got a step whose result is {jax.tree.structure(result)}, and its state is {wanted}; give one that returns "
        "the next state, or a tuple that begins with it"
    )


def _blank(struct: PaddedBatch) -> PaddedBatch:
    """A batch of zeros with every position real."""

    def filled(x: Any) -> np.ndarray:
        return np.ones(x.shape, bool) if x.dtype == bool else np.zeros(x.shape, x.dtype)

    blank = jax.tree.map(filled, struct)
    return blank._replace(features={m: np.zeros(x.shape, x.dtype) for m, x in struct.features.items()})
