"""How long this device takes to compile a step and to run it: what ``max_shapes="auto"`` plans with."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from multimodal_pad.compiling import StepTable
from multimodal_pad.cost import Cost
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths import LengthTable, check_whole
from multimodal_pad.padding import PaddedBatch
from multimodal_pad.planner import RunTime

SHARES = (0.5, 0.9, 0.99)
"""Of the samples: calibration runs at the lengths that so many of them don't exceed, in each modality."""


def calibrate(
    table: StepTable,
    state: Any,
    batch: PaddedBatch,
    lengths: LengthTable,
    cost: Cost,
    *,
    epochs: float,
    repeats: int = 3,
) -> RunTime:
    """Compile a step at up to three batch shapes and time it there.

    Args:
        table: of a function ``(state, batch) -> (state, anything)``; it keeps what is compiled.
        state: its first argument; gone for the caller where the table donates it.
        batch: any batch: its features' widths, dtypes and targets serve, its lengths don't matter.
        lengths: the lengths to plan for.
        cost: per row, of lengths ``(n, M)`` in the columns of ``lengths``.
        epochs: of the run to plan.
        repeats: runs at each shape after a first one; their median counts.

    Returns:
        Mean seconds to compile a shape, and seconds per unit of cost: the slope of a line through the
        medians, whose height at cost 0 is what a step takes under any plan.

    Raises:
        PaddingError: no repeats, epochs below 0, other modalities in the batch than in the lengths, or
            shapes that all cost nothing.

    >>> def step(state, batch):
    ...     return state + batch.features["text"].sum(), None
    >>> from multimodal_pad import pad_samples, position_count
    >>> batch = pad_samples([{"text": np.arange(3.0)}] * 4)
    >>> table = LengthTable(("text",), np.arange(1, 100)[:, None])
    >>> run_time = calibrate(StepTable(step), np.float64(0), batch, table, position_count, epochs=10)
    >>> run_time.epochs, run_time.compile_seconds > 0, run_time.seconds_per_cost >= 0
    (10, True, True)
    """
    check_whole("repeats", repeats, 1)
    RunTime(epochs, 0, 0)  # refuses epochs that make no sense before anything is compiled
    if set(batch.features) != set(lengths.modalities):
        raise PaddingError(
            f"got a batch of {sorted(batch.features)} and lengths of {sorted(lengths.modalities)}; give both the same "
            "modalities"
        )
    quantiles = np.quantile(lengths.values, SHARES, axis=0, method="inverted_cdf")
    shapes = np.unique(np.maximum(quantiles, 1), axis=0)
    compiling, stepping = [], []
    for shape in shapes.tolist():
        blank = _blank(batch, dict(zip(lengths.modalities, shape, strict=True)))
        compiling.append(table.compile(state, blank).seconds)
        seconds = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            state, _ = jax.block_until_ready(table(state, blank))
            seconds.append(time.perf_counter() - started)
        stepping.append(float(np.median(seconds[1:])))
    costs = len(batch.sample_mask) * np.asarray(cost(shapes), np.float64)
    if not costs.max() > 0:
        raise PaddingError("the cost of every shape is 0; time per cost makes no sense for it")
    return RunTime(epochs, float(np.mean(compiling)), _slope(costs, np.array(stepping)))


def _slope(costs: np.ndarray, seconds: np.ndarray) -> float:
    """Of the line of least squares whose height at 0 is not negative."""
    if np.ptp(costs) > 0:
        slope, height = np.polyfit(costs, seconds, 1)
        if slope > 0 and height >= 0:
            return float(slope)
    return float(seconds @ costs / (costs @ costs))


def _blank(batch: PaddedBatch, lengths: dict[str, int]) -> PaddedBatch:
    """A batch of zeros at other padded lengths, every position real."""
    rows = len(batch.sample_mask)
    return batch._replace(
        features={m: np.zeros((rows, lengths[m], *x.shape[2:]), x.dtype) for m, x in batch.features.items()},
        masks={m: np.ones((rows, lengths[m]), bool) for m in batch.masks},
        sample_mask=np.ones(rows, bool),
    )
