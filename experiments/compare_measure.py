"""Measure one policy: run its steps, time them, and say what the whole run takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx
from scipy.optimize import nnls

from multimodal_pad import BucketBatcher, PaddedBatch, PaddingStats, Schedule, TransformerCost
from multimodal_pad.compiling import CompileLog, StepTable
from multimodal_pad.models import MultimodalTransformer, TransformerConfig
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer

LAST_STEPS = 10
"""``loss_last`` is the mean over so many of the last steps measured."""


@dataclass
class Measured:
    """What the steps of one policy took, in the order in which they ran."""

    places: list[int] = field(default_factory=list)  # which steps of the schedules
    step_seconds: list[float] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    backend_compiles: list[int] = field(default_factory=list)  # so far, after each step
    shapes_compiled: int = 0
    compile_seconds: float = 0.0
    device_bytes: int | None = None


def measure(
    batcher: BucketBatcher,
    schedules: list[Schedule],
    config: TransformerConfig,
    *,
    learning_rate: float,
    seed: int,
    seconds: float,
    tick: Callable[[int], None],
) -> Measured:
    """Train through the epochs of ``schedules`` in ``seconds``, or as much of them as fits.

    The largest shape is compiled first, for its memory. Once half of the time has gone into compiling,
    steps of shapes that are not compiled yet are passed over, so that the rest of the time measures steps.
    """
    started = time.perf_counter()
    model = MultimodalTransformer(config, rngs=nnx.Rngs(seed))
    step = TrainStep(model, make_optimizer(learning_rate), cross_entropy, seed=seed)
    table = StepTable(step.train_step, donate_state=True)
    leaves, measured = step.leaves, Measured()
    shapes = np.concatenate([steps.shapes for steps in schedules])
    largest = dict(zip(batcher.policy.modalities, shapes[np.argmax(batcher.cost(shapes))].tolist(), strict=True))
    with CompileLog() as log:
        table.compile(leaves, _like(next(batcher.epoch(0)), largest))
        asked = time.perf_counter()
        for place, batch in enumerate(batch for epoch in range(len(schedules)) for batch in batcher.epoch(epoch)):
            waited = time.perf_counter() - asked
            if batch.shape in table.steps or log["train_step"].seconds < seconds / 2 or not measured.losses:
                executable = table.compile(leaves, batch)
                begun = time.perf_counter()
                leaves, metrics = executable.call(leaves, batch)
                measured.losses.append(float(metrics.loss))  # waits for the step
                measured.step_seconds.append(time.perf_counter() - begun)
                measured.wait_seconds.append(waited)
                measured.places.append(place)
                measured.backend_compiles.append(log["train_step"].backend_compiles)
                tick(len(measured.losses))
            asked = time.perf_counter()
            if asked > started + seconds:
                break
    measured.shapes_compiled = len(table)
    measured.compile_seconds = log["train_step"].seconds
    known = [step.device_bytes for step in table.steps.values() if step.device_bytes is not None]
    measured.device_bytes = max(known, default=None)
    return measured


def summarise(
    policy: str,
    batcher: BucketBatcher,
    schedules: list[Schedule],
    cost: TransformerCost,
    measured: Measured,
    preparing: float,
) -> dict[str, Any]:
    """The row of ``results.json``: the whole run, measured or (named in ``estimated``) estimated.

    ``preparing`` is what making the policy took, in seconds; it counts as time to train.
    """
    stats = PaddingStats(batcher.policy.modalities, cost)
    for schedule in schedules:
        stats.record(schedule, batcher.lengths)
    shapes = np.concatenate([schedule.shapes for schedule in schedules])
    batch_sizes = np.concatenate([schedule.batch_sizes for schedule in schedules])
    done = len(measured.losses)
    step_seconds = np.asarray(measured.step_seconds)
    rest = np.setdiff1d(np.arange(len(shapes)), measured.places)
    work = _work(cost, shapes, batch_sizes)
    stepping = step_seconds.sum() + predict_seconds(work[measured.places], step_seconds, work[rest]).sum()
    waiting = np.mean(measured.wait_seconds) * len(shapes)
    whole = len(stats.shapes) / measured.shapes_compiled
    compile_seconds = measured.compile_seconds * whole
    estimated = ["samples_per_second", "seconds_to_train"] if done < len(shapes) else []
    estimated += ["backend_compiles", "compile_seconds"] if whole > 1 else []
    return {
        "policy": policy,
        "grouping": batcher.grouping,
        "shapes": len(stats.shapes),
        "backend_compiles": round(measured.backend_compiles[-1] * whole),
        "compile_seconds": compile_seconds,
        "position_efficiency": stats.position_efficiency,
        "cost_efficiency": stats.cost_efficiency,
        "batch_bytes_mean": _batch_bytes(batcher, shapes, batch_sizes),
        "device_bytes_max": measured.device_bytes,
        "step_ms_median": 1e3 * float(np.median(step_seconds)),
        "step_ms_quartiles": (1e3 * np.quantile(step_seconds, [0.25, 0.75])).tolist(),
        "samples_per_second": stats.samples / (stepping + waiting),
        "preparing_seconds": preparing,
        "seconds_to_train": preparing + compile_seconds + stepping + waiting,
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
            "compile_seconds": measured.compile_seconds,
        },
    }


def predict_seconds(work: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Seconds of steps of the ``wanted (k, w)`` amounts of work, from ``seconds (n,)`` of ``work (n, w)``.

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


def _work(cost: TransformerCost, shapes: np.ndarray, batch_sizes: np.ndarray) -> np.ndarray:
    """What a step's time may grow with, ``(steps, 3)``: nothing, linear FLOPs, quadratic FLOPs."""
    linear = batch_sizes * (shapes @ cost.linear)
    return np.stack([np.ones(len(shapes)), linear, batch_sizes * cost.forward(shapes) - linear], axis=1)


def _distinct_so_far(shapes: np.ndarray) -> list[int]:
    """How many distinct rows there are up to each row."""
    _, first = np.unique(shapes, axis=0, return_index=True)
    new = np.zeros(len(shapes), int)
    new[first] = 1
    return np.cumsum(new).tolist()


def _batch_bytes(batcher: BucketBatcher, shapes: np.ndarray, batch_sizes: np.ndarray) -> float:
    """Mean bytes of a batch over all steps: the widths of one batch, the lengths and rows of each."""
    batch = next(batcher.epoch(0))
    positions = np.array([batch.masks[m].size for m in batcher.policy.modalities])
    widths = np.array([batch.features[m].nbytes + batch.masks[m].nbytes for m in batcher.policy.modalities]) / positions
    per_row = (batch.nbytes - float(widths @ positions)) / len(batch.sample_mask)
    return float((batch_sizes * (per_row + shapes @ widths)).mean())


def _like(batch: PaddedBatch, lengths: dict[str, int]) -> Any:
    """The shapes and dtypes of ``batch`` at other padded lengths."""

    def stretched(x: np.ndarray, length: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0], length, *x.shape[2:]), x.dtype)

    return batch._replace(
        features={m: stretched(x, lengths[m]) for m, x in batch.features.items()},  # type: ignore[dict-item]
        masks={m: stretched(x, lengths[m]) for m, x in batch.masks.items()},  # type: ignore[dict-item]
    )
