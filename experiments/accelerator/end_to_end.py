"""Samples per second of a policy through its batcher: laying out, transfer and steps, as a training loop has them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

import jax
import numpy as np

from experiments.accelerator.record import Record
from experiments.accelerator.work import Work, shape_of, step_shapes
from experiments.lib.measure import predict_seconds, step_work
from multimodal_pad import BatchShape, BucketBatcher
from multimodal_pad.lengths.samples import EMPTY

WINDOW_STEPS = 64
WINDOW_SECONDS = 2.0
"""Most steps, and most seconds, of a window, which ends when the device has finished."""


def run_policy(work: Work, spec: str, rows: list[dict[str, Any]], record: Record, seconds: float, most: int) -> None:
    """Run a policy's epochs for some seconds, and keep its figures in ``record`` under ``policies``.

    There are ``most`` windows at most. Steps of shapes that are not compiled are passed over. The rate of a whole epoch
    is that of its steps as ``rows`` (see :mod:`experiments.accelerator.steps`) timed them, or predict them from
    lengths, times what a window took over what its steps take alone.
    """
    if not rows:
        return
    batcher = work.batcher(spec)
    schedule = batcher.schedule(0)
    used = Counter(step_shapes(batcher, schedule))
    if not any(shape in work.table.steps for shape in used):
        record.note(f"{spec}: none of its shapes is compiled")
        return
    alone = _seconds_alone(work, list(used), rows)
    windows = run_windows(work, batcher, alone, seconds, most)
    epoch = sum(alone[shape] * steps for shape, steps in used.items())
    samples = int((schedule.ids != EMPTY).sum())
    slower = [window["seconds"] / sum(alone[s] * n for s, n in window["shapes"].items()) for window in windows]
    compiled = sum(shape in work.table.steps for shape in used)
    stats = jax.local_devices()[0].memory_stats() or {}
    kept = record.values.get("policies", {})
    row = {
        "batches": batcher.grouping.name,
        "shapes": len(used),
        "shapes_compiled": compiled,
        "steps": sum(sum(window["shapes"].values()) for window in windows),
        "samples_per_second": [samples / (epoch * factor) for factor in slower],
        "waiting_share": [window["waited"] / window["seconds"] for window in windows],
        "stepping_share": [min(1.0, 1 / factor) for factor in slower],
        "real_flops_per_sample": float(work.model_config.cost(work.lengths.values).mean()),
        "peak_bytes_in_use": stats.get("peak_bytes_in_use"),  # of the process so far, hence the smallest policy first
        "device_bytes": max(work.table.steps[shape].device_bytes or 0 for shape in used if shape in work.table.steps),
    }
    record.keep(policies={**kept, spec.split("/")[0]: row})


def run_windows(
    work: Work, batcher: BucketBatcher, alone: Mapping[BatchShape, float], seconds: float, most: int
) -> list[dict[str, Any]]:
    """Train through epochs; return each window's shapes, its seconds, and the seconds spent waiting for batches.

    Args:
        work: the model.
        batcher: of the policy.
        alone: seconds of a step of each shape.
        seconds: for all windows; one is run in any case.
        most: the most windows. The first one warms up, and is not counted where there are others.
    """
    ends = time.perf_counter() + seconds
    windows: list[dict[str, Any]] = []
    used: Counter[BatchShape] = Counter()
    waited = passed = 0.0
    metrics: Any = None
    asked = begun = time.perf_counter()
    for batch in (batch for epoch in count() for batch in batcher.epoch(epoch)):
        got = time.perf_counter()
        if batch.shape not in work.table.steps:
            passed += got - asked
        else:
            waited += got - asked
            work.state, metrics = work.table(work.state, batch)
            used[batch.shape] += 1
        asked = time.perf_counter()
        # By predicted seconds, since the steps are only begun here and may not have run yet.
        expected = sum(alone[shape] * steps for shape, steps in used.items())
        if used and (used.total() == WINDOW_STEPS or max(asked - begun, expected) > WINDOW_SECONDS):
            jax.block_until_ready(metrics.loss)
            whole = time.perf_counter() - begun - passed
            windows.append({"shapes": used, "seconds": whole, "waited": waited})
            used, waited, passed = Counter(), 0.0, 0.0
            if time.perf_counter() > ends or len(windows) == most:
                break
            asked = begun = time.perf_counter()
    return windows[1:] or windows


def _seconds_alone(work: Work, shapes: list[BatchShape], rows: list[dict[str, Any]]) -> dict[BatchShape, float]:
    """Return the seconds of a step of each shape, its batch on the device: timed, or predicted from those timed."""
    timed = {shape_of(row): float(np.median(row["step_ms"])) / 1e3 for row in rows}
    missing = [shape for shape in shapes if shape not in timed]

    def amounts(listed: list[BatchShape]) -> np.ndarray:
        rows = np.array([shape.batch_size for shape in listed])
        return step_work(work.model_config.cost, work.padded_lengths(listed), rows)

    if not missing:
        return timed
    predicted = predict_seconds(amounts(list(timed)), np.array(list(timed.values())), amounts(missing))
    return timed | dict(zip(missing, predicted.tolist(), strict=True))
