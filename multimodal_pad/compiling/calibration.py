"""Times of compiling and running a step on this device, for plans in seconds instead of FLOPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from multimodal_pad.compiling.log import CompileLog
from multimodal_pad.compiling.options import CompilerOptions, default_threads
from multimodal_pad.compiling.step_times import StepTime, seconds_from_cache, time_steps
from multimodal_pad.compiling.table import StepTable, as_table, batch_struct
from multimodal_pad.compiling.warming import Batches, as_spec, compile_all
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchShape, BatchSpec, batch_shapes
from multimodal_pad.layouts.padded import PADDED
from multimodal_pad.lengths.cost import Cost, TransformerCost, position_count, priced_modalities
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.run_time import RunTime

MOST_FOR_ONE_RATE = 2
"""Up to so many shapes, the fit has one rate for all FLOPs of a :class:`~multimodal_pad.TransformerCost`."""

LEAST_PRICE = 1e-6
"""The share of the time that the largest shape's cost gets, where steps of all shapes take as long."""


@dataclass(frozen=True)
class Calibration:
    """The result of :func:`calibrate`, as the planner takes it.

    A step of ``rows`` at padded lengths L takes ``seconds_per_cost * (batch_overhead + rows * cost(L))``. To plan
    with it: ``plan_shapes(lengths, max_shapes="auto", cost=c.cost, batch_overhead=c.batch_overhead,
    run_time=c.run_time(epochs=20))``.

    Attributes:
        cost: per row. A :class:`~multimodal_pad.TransformerCost` has its linear and quadratic FLOPs weighted so
            that it is in seconds; any other cost is as it was.
        seconds_per_cost: of a step, for each unit of ``cost``; 1 where that is in seconds.
        batch_overhead: time of a step beside its rows, in the unit of ``cost``.
        compile_seconds: mean per shape, on the clock: less than each took where threads compiled side by side. A
            program that was read from the persistent cache counts about as long as it took to compile once; a
            table that had all shapes before has noted their times.
        error: root mean square of the relative errors with which the fit to the other shapes predicts each
            shape's step; NaN where there is one shape alone.
        shapes: the shapes measured.
        step_seconds: median of a step at each of them.

    >>> shape = BatchShape.of(32, {"text": 50})
    >>> calibration = Calibration(position_count, 1e-6, 2000.0, 3.0, 0.05, (shape,), (0.0036,))
    >>> calibration.run_time(epochs=20).seconds(shapes=4, cost=500_000)
    22.0
    """

    cost: Cost
    seconds_per_cost: float
    batch_overhead: float
    compile_seconds: float
    error: float
    shapes: tuple[BatchShape, ...]
    step_seconds: tuple[float, ...]

    def run_time(self, epochs: float, compiled: Sequence[BatchShape] = ()) -> RunTime:
        """Return the times of a run of so many epochs, for ``plan_shapes(max_shapes="auto")``.

        ``compiled`` are batch shapes that the plan is to have because their programs exist.
        """
        return RunTime(epochs, self.compile_seconds, self.seconds_per_cost, tuple(compiled))


def calibrate(
    step: StepTable | Callable[[Any, Any], Any],
    batches: Batches | BatchSpec,
    state: Any,
    *,
    cost: Cost = position_count,
    repeats: int = 5,
    threads: int | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = False,
) -> Calibration:
    """Compile a step for a few batch shapes, time it there, and fit the cost to the times.

    The fit is by least squares of relative errors, with no negative coefficient: a constant and one rate for the cost,
    or, for a :class:`~multimodal_pad.TransformerCost` at three shapes or more, one rate each for its linear and its
    quadratic FLOPs. At one shape or two they have one rate, weighted as ``cost`` weights them. At one shape there is no
    constant either: a step is assumed to take time in proportion to its cost, which is when smaller shapes save most.

    To choose the number of shapes for a run, :func:`~multimodal_pad.compiling.plan_run` needs two programs at most,
    and keeps them.

    Args:
        step: a table or function ``(state, batch)`` that gives the next state, or a tuple that begins with it; a
            table keeps what is compiled.
        batches: a :class:`~multimodal_pad.BatchSpec` of the batch shapes to measure, such as :func:`typical_shapes` of
            the lengths, and an example batch; or a batcher. Shapes of several sizes and forms make the fit better.
        state: its first argument; the steps run on a copy.
        cost: per row, of lengths ``(n, M)``. Its columns are ``cost.modalities``, or else the modalities in the order
            that the batches have them in.
        repeats: runs at each shape after a first one, in random order; their median counts.
        threads: how many compile side by side, as for :func:`warm_up`.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar.

    Raises:
        PaddingError: no shapes, no repeats, other modalities in the batch than in the shapes, shapes that all
            cost nothing, or a step that gives no next state.

    >>> def step(state, batch):
    ...     return state + batch.features["text"].sum(), None
    >>> from multimodal_pad import pad_samples
    >>> shapes = [BatchShape.of(4, {"text": length}) for length in (8, 64, 512)]
    >>> calibration = calibrate(step, BatchSpec(shapes, pad_samples([{"text": np.arange(3.0)}])), np.float32(0))
    >>> calibration.run_time(epochs=10).epochs, calibration.compile_seconds > 0, calibration.error >= 0
    (10, True, True)
    """
    check_whole("repeats", repeats, 1)
    table = as_table(step, compiler_options)
    shapes, example, _ = as_spec(batches)
    listed = list(dict.fromkeys(shapes))
    if not listed:
        raise PaddingError("got no shapes to calibrate at; give at least one, or three for a fit")
    names = priced_modalities(cost) or tuple(example.features)
    fit_terms(cost, listed, names)  # raises for bad shapes before anything is compiled
    each = compile_shapes(table, BatchSpec(listed, example), state, threads=threads, progress=progress)
    measured = time_steps(table, listed, state, example, repeats).tolist()
    return fit_steps([StepTime(*shape, each) for shape in zip(listed, measured, strict=True)], cost, names)


def typical_shapes(lengths: LengthTable, batch_size: int, shares: Sequence[float] = (0.5, 1.0)) -> list[BatchShape]:
    """Return batch shapes to calibrate at: quantiles of all modalities together, by default the median and the longest.

    Args:
        lengths: the length table ``(N, M)``.
        batch_size: rows of each.
        shares: quantile levels: a shape has the lengths that this share of the samples doesn't exceed, per modality.
            For a fit of several rates give five, such as ``(0.25, 0.5, 0.9, 0.99, 1)``.

    >>> [str(shape) for shape in typical_shapes(LengthTable(("text",), np.arange(1, 101)[:, None]), 32)]
    ['32 x (text 50)', '32 x (text 100)']
    """
    check_whole("batch_size", batch_size, 1)
    if not len(shares) or not (min(shares) >= 0 and max(shares) <= 1):
        raise PaddingError(f"got shares={shares!r}; give at least one, each from 0 to 1")
    quantiles = np.maximum(np.quantile(lengths.values, shares, axis=0, method="inverted_cdf"), 1)
    rows = np.unique(quantiles, axis=0)
    return batch_shapes(np.full(len(rows), batch_size), rows, lengths.modalities, PADDED)


def compile_shapes(table: StepTable, spec: BatchSpec, state: Any, *, threads: int | None, progress: bool) -> float:
    """Compile for distinct shapes; return the seconds per shape on the clock, as :class:`Calibration` counts them."""
    threads = default_threads() if threads is None else threads
    fresh = sum(shape not in table.steps for shape in spec.shapes)
    started = time.perf_counter()
    with CompileLog() as log:
        jobs = [(table, batch_struct(spec.example, shape)) for shape in spec.shapes]
        steps = compile_all(jobs, state, threads=threads, progress=progress)
    if not fresh:
        return float(np.mean([step.seconds for step in steps]))
    return (time.perf_counter() - started + seconds_from_cache(log) / max(1, min(threads, fresh))) / fresh


def fit_steps(times: Sequence[StepTime], cost: Cost, names: tuple[str, ...]) -> Calibration:
    """Fit the cost, whose columns are the modalities ``names``, to the steps measured, as in :func:`calibrate`."""
    shapes, seconds = [time.shape for time in times], np.array([time.step_seconds for time in times])
    terms = fit_terms(cost, shapes, names)
    weights = _fit(terms, seconds)
    seconds_per_cost, fitted = float(weights[1]), cost
    if isinstance(cost, TransformerCost):
        linear, quadratic = float(weights[1]), float(weights[-1])
        if len(weights) == 2:
            linear, quadratic = linear * cost.linear_weight, quadratic * cost.quadratic_weight
        seconds_per_cost = 1.0
        fitted = replace(cost, linear_weight=linear, quadratic_weight=quadratic, memory_weight=0.0)
    return Calibration(
        cost=fitted,
        seconds_per_cost=seconds_per_cost,
        batch_overhead=float(weights[0]) / seconds_per_cost,
        compile_seconds=float(np.mean([time.compile_seconds for time in times])),
        error=_prediction_error(terms, seconds),
        shapes=tuple(shapes),
        step_seconds=tuple(seconds.tolist()),
    )


def fit_terms(cost: Cost, shapes: Sequence[BatchShape], names: tuple[str, ...]) -> np.ndarray:
    """Return the terms of a step's seconds, ``(n, w)``: 1 for every step, then rows times each part of the cost.

    Raises:
        PaddingError: a shape of other modalities than ``names``, or shapes that all cost nothing.
    """
    for shape in shapes:
        if set(dict(shape.lengths)) != set(names):
            raise PaddingError(f"got the shape {shape} among others of {list(names)}; give all the same modalities")
    parts: list[Cost] = [cost]
    if isinstance(cost, TransformerCost):
        flops, one_rate = cost.step_flops, np.array([cost.linear_weight, cost.quadratic_weight])
        rates = np.eye(2) if len(shapes) > MOST_FOR_ONE_RATE else one_rate[None]
        parts = [lambda lengths, rate=rate: flops(lengths) @ rate for rate in rates]
    each = np.array([[shape.price(part, names) for part in parts] for shape in shapes])
    if not each.max() > 0:
        raise PaddingError("the cost of every shape is 0; time per cost makes no sense for it")
    return np.concatenate([np.ones((len(shapes), 1)), each], axis=1)


def _fit(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return factors of the terms, none below 0, by least squares of relative errors; not the constant alone."""
    from scipy.optimize import nnls  # JAX needs SciPy too, but nothing else here does

    scale = np.maximum(terms.max(axis=0), np.finfo(float).tiny)
    relative = terms / scale / seconds[:, None]
    if len(seconds) == 1:
        return np.append(0.0, nnls(relative[:, 1:], np.ones(1))[0]) / scale
    factors, _ = nnls(relative, np.ones(len(seconds)))
    if not factors[1:].any():  # all steps take as long, so the cost needs a price to be a unit for the constant
        factors[1:] = LEAST_PRICE * factors[0]
    return factors / scale


def _prediction_error(terms: np.ndarray, seconds: np.ndarray) -> float:
    others = [np.delete(np.arange(len(seconds)), place) for place in range(len(seconds))]
    if len(others) < 2:
        return float("nan")
    predicted = [terms[place] @ _fit(terms[kept], seconds[kept]) for place, kept in enumerate(others)]
    return float(np.sqrt(np.mean((np.array(predicted) / seconds - 1) ** 2)))
