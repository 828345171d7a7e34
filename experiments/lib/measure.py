"""Measure one policy: run its steps, time them, and estimate the whole run."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from scipy.optimize import nnls

from multimodal_pad import BatchShape, BatchSpec, BucketBatcher, PaddingStats, Schedule, TransformerCost
from multimodal_pad.compiling import CompileLog, StepTable, batch_struct, forbid_compiles, warm_up
from multimodal_pad.layouts.layout import batch_shapes
from multimodal_pad.models import MultimodalTransformer, TransformerConfig
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer

LAST_STEPS = 10
"""Number of the last measured steps whose mean is ``loss_last``."""


@dataclass
class Measured:
    """Measurements of the steps of one policy, in the order in which they ran."""

    places: list[int] = field(default_factory=list)  # the steps' places in the schedules
    step_seconds: list[float] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    backend_compiles: list[int] = field(default_factory=list)  # total after each step
    compiled_ahead: int = 0  # programs in the step table at the start
    shapes_missing: int = 0  # used by the schedules, and not in the table at the start
    shapes_compiled: int = 0  # of the missing ones
    seconds_each: float = 0.0  # to compile one shape, by the first
    seconds_before: float = 0.0  # compiling before the first step, on the clock
    seconds_during: float = 0.0  # compiling after it
    device_bytes: int | None = None


@lru_cache(maxsize=1)
def initial_model(config: TransformerConfig, seed: int) -> MultimodalTransformer:
    """Make the model that every policy starts from."""
    return MultimodalTransformer(config, rngs=nnx.Rngs(seed))


def parameters_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return the arrays of a model by path, with ``/`` between the parts."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {
        "/".join(map(str, path)): np.asarray(value[...]) for path, value in zip(flat.paths, flat.leaves, strict=True)
    }


def make_step(config: TransformerConfig, learning_rate: float, seed: int, mesh: Mesh | None = None) -> TrainStep:
    """Make the model's train step, the same for every policy."""
    return TrainStep(initial_model(config, seed), make_optimizer(learning_rate), cross_entropy, mesh=mesh)


def measure(
    batcher: BucketBatcher,
    schedules: list[Schedule],
    state: Any,
    table: StepTable,
    *,
    seconds: float,
    tick: Callable[[int], None],
) -> Measured:
    """Train through the epochs of ``schedules``, or the part that fits into ``seconds``.

    A policy with finitely many shapes is warmed up for all shapes that the schedules use, or for as many as half of
    the time allows: the largest, then those of most steps. Steps of other shapes are skipped, and nothing may compile
    from then on. Exact padding compiles during training, until half of the time is gone. Programs that ``table``
    already has count as compiled; their seconds were counted where they were made. Training starts from ``state``,
    which is used up if the table donates it.
    """
    started = time.perf_counter()
    measured, example = Measured(compiled_ahead=len(table)), batcher.example()
    endless = not batcher.policy.finite
    by_use = shapes_by_use(batcher, schedules)
    missing = [shape for shape in by_use if shape not in table.steps]
    there = [shape for shape in by_use if shape in table.steps]
    with CompileLog() as log:
        # Two first: the largest for its memory, and the seconds of both to see how many more there is time for.
        warming = time.perf_counter()
        first = max(0, (1 if endless else 2) - len(there))
        warm_up(table, BatchSpec([*there, *missing[:first]], example), state, progress=False)
        measured.seconds_before = time.perf_counter() - warming
        took = [table.steps[shape].seconds for shape in there]
        each = measured.seconds_before / max(1, len(missing[:first])) if first else float(np.mean(took))
        measured.seconds_each, affordable = each, int(seconds / 2 / max(each, 1e-3))
        if not endless and first < len(missing) and affordable > first:
            warm_up(table, BatchSpec(missing[:affordable], example), state, progress=False)
            measured.seconds_before = time.perf_counter() - warming
        with nullcontext() if endless else forbid_compiles():
            asked = time.perf_counter()
            for place, batch in enumerate(batch for epoch in range(len(schedules)) for batch in batcher.epoch(epoch)):
                waited = time.perf_counter() - asked
                may_compile = endless and (measured.seconds_during < seconds / 2 or not measured.losses)
                if batch.shape in table.steps or may_compile:
                    begun = time.perf_counter()
                    executable = table.steps.get(batch.shape)
                    if executable is None:
                        executable = table.compile(state, batch)
                        measured.seconds_during += time.perf_counter() - begun
                        begun = time.perf_counter()
                    state, metrics = executable.call(state, batch)
                    measured.losses.append(float(metrics.loss))  # waits for the step
                    measured.step_seconds.append(time.perf_counter() - begun)
                    measured.wait_seconds.append(waited)
                    measured.places.append(place)
                    measured.backend_compiles.append(measured.compiled_ahead + log["train_step"].backend_compiles)
                    tick(len(measured.losses))
                asked = time.perf_counter()
                if asked > started + seconds and measured.losses:
                    break
    if endless:  # the largest was compiled ahead only for its memory, and counts like the others
        measured.seconds_during += measured.seconds_before
        measured.seconds_before = 0.0
    measured.shapes_missing = len(missing)
    measured.shapes_compiled = sum(shape in table.steps for shape in missing)
    held = [table.steps[shape].device_bytes for shape in by_use if shape in table.steps]
    measured.device_bytes = max((size for size in held if size is not None), default=None)
    return measured


def shapes_by_use(batcher: BucketBatcher, schedules: list[Schedule]) -> list[BatchShape]:
    """List the batch shapes that the schedules use: the largest, then by falling number of steps."""
    used: Counter[BatchShape] = Counter()
    costs = {}
    names = batcher.policy.modalities
    for steps in schedules:
        for shape, rows in zip(steps.lengths, steps.batch_sizes.tolist(), strict=True):
            batch_shape = BatchShape.of(rows, dict(zip(names, shape.tolist(), strict=True)), batcher.policy.layout)
            used[batch_shape] += 1
            costs[batch_shape] = batch_shape.price(batcher.cost, names)
    largest = max(costs, key=lambda shape: costs[shape])
    return [largest, *(shape for shape, _ in used.most_common() if shape != largest)]


def summarise(
    policy: str,
    batcher: BucketBatcher,
    schedules: list[Schedule],
    cost: TransformerCost,
    measured: Measured,
    preparing: float,
    reason: str = "",
) -> dict[str, Any]:
    """Make the row of ``results.json``: the whole run, measured or (where ``estimated`` names it) estimated.

    ``preparing`` is the seconds for making the policy, which count as time to train. ``reason`` is that of a plan
    that chose its number of shapes.
    """
    stats = PaddingStats(batcher.policy.modalities, cost, batcher.policy.layout)
    for schedule in schedules:
        stats.record(schedule.steps(), batcher.lengths)
    shapes = np.concatenate([schedule.lengths for schedule in schedules])
    batch_sizes = np.concatenate([schedule.batch_sizes for schedule in schedules])
    done = len(measured.losses)
    step_seconds = np.asarray(measured.step_seconds)
    rest = np.setdiff1d(np.arange(len(shapes)), measured.places)
    work = step_work(cost, shapes, batch_sizes)
    stepping = step_seconds.sum() + predict_seconds(work[measured.places], step_seconds, work[rest]).sum()
    waiting = np.mean(measured.wait_seconds) * len(shapes)
    ahead, missing = measured.compiled_ahead, measured.shapes_missing
    before, during = measured.seconds_before, measured.seconds_during
    compiles = measured.backend_compiles[-1] - ahead
    if measured.shapes_compiled:
        whole = missing / measured.shapes_compiled
        before, during, compiles = before * whole, during * whole, round(compiles * whole)
    else:
        before, compiles = measured.seconds_each * missing, missing
    estimated = ["samples_per_second", "seconds_to_train"] if done < len(shapes) else []
    if measured.shapes_compiled < missing:
        estimated += ["backend_compiles", "compile_seconds_before", "compile_seconds_during"]
    return {
        "policy": policy,
        "grouping": batcher.grouping.name,
        "shapes": len(stats.shapes),
        "backend_compiles": ahead + compiles,
        "compiled_while_planning": ahead,
        "reason": reason,
        "compile_seconds_before": before,
        "compile_seconds_during": during,
        "position_efficiency": stats.position_efficiency,
        "cost_efficiency": stats.cost_efficiency,
        "batch_bytes_mean": _batch_bytes(batcher, shapes, batch_sizes),
        "device_bytes_max": measured.device_bytes,
        "step_ms_median": 1e3 * float(np.median(step_seconds)),
        "step_ms_quartiles": (1e3 * np.quantile(step_seconds, [0.25, 0.75])).tolist(),
        "samples_per_second": stats.samples / (stepping + waiting),
        "preparing_seconds": preparing,
        "seconds_to_train": preparing + before + during + stepping + waiting,
        "loss_first": measured.losses[0],
        "loss_last": float(np.mean(measured.losses[-LAST_STEPS:])),
        "steps": len(shapes),
        "steps_measured": done,
        "estimated": estimated,
        "shapes_used": [{"lengths": list(shape), "steps": count} for shape, count in sorted(stats.shapes.items())],
        "shapes_so_far": _distinct_so_far(shapes),
        "measured": {
            "places": measured.places,
            "step_seconds": measured.step_seconds,
            "wait_seconds": measured.wait_seconds,
            "losses": measured.losses,
            "backend_compiles": measured.backend_compiles,
            "compile_seconds_before": measured.seconds_before,
            "compile_seconds_during": measured.seconds_during,
        },
    }


def predict_seconds(work: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Predict seconds of steps of ``wanted (k, w)`` amounts of work, from ``seconds (n,)`` of ``work (n, w)``.

    Non-negative least squares of relative errors through the median of each distinct amount.

    >>> predict_seconds(np.array([[1.0, 1], [1, 3]]), np.array([3.0, 5]), np.array([[1.0, 2]])).round(6).tolist()
    [4.0]
    """
    distinct, kind, counts = np.unique(work, axis=0, return_inverse=True, return_counts=True)
    medians = np.array([np.median(seconds[kind.ravel() == i]) for i in range(len(distinct))])
    scale = distinct.max(axis=0)
    weights = np.sqrt(counts) / medians
    rates, _ = nnls(weights[:, None] * (distinct / scale), weights * medians)
    return wanted / scale @ rates


def step_work(cost: TransformerCost, shapes: np.ndarray, batch_sizes: np.ndarray) -> np.ndarray:
    """Return the amounts that a step's time may grow with, ``(steps, 3)``: a constant, linear and quadratic FLOPs."""
    return np.concatenate([np.ones((len(shapes), 1)), batch_sizes[:, None] * cost.step_flops(shapes)], axis=1)


def _distinct_so_far(shapes: np.ndarray) -> list[int]:
    """Count the distinct rows up to each row."""
    _, first = np.unique(shapes, axis=0, return_index=True)
    new = np.zeros(len(shapes), int)
    new[first] = 1
    return np.cumsum(new).tolist()


def _batch_bytes(batcher: BucketBatcher, shapes: np.ndarray, batch_sizes: np.ndarray) -> float:
    """Return the mean bytes of a batch over all steps."""
    policy, example = batcher.policy, batcher.example()
    rows, steps = np.unique(np.column_stack([batch_sizes, shapes]), axis=0, return_counts=True)
    each = [
        sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(batch_struct(example, shape)))
        for shape in batch_shapes(rows[:, 0], rows[:, 1:], policy.modalities, policy.layout)
    ]
    return float(np.average(each, weights=steps))
