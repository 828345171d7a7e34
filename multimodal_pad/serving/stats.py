"""Statistics of a predictor and of a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from multimodal_pad.layouts.layout import BatchShape


@dataclass
class PredictionStats:
    """The predictions so far, and how much of the work was real.

    Attributes:
        samples: samples whose outputs were requested.
        truncated: samples cut to a planned shape.
        windowed: samples cut into windows.
        windows: windows that they were cut into.
        batches: batches run.
        repeated: samples run again, alone, since outputs of their packed batch were NaN.
        real_positions: of the samples in the batches, all modalities together.
        positions: of the batches, padding included.
        shapes: batches of each shape.

    >>> stats = PredictionStats()
    >>> stats.ran(BatchShape.of(2, {"text": 8}), real=12)
    >>> stats.batches, stats.efficiency
    (1, 0.75)
    """

    samples: int = 0
    truncated: int = 0
    windowed: int = 0
    windows: int = 0
    batches: int = 0
    repeated: int = 0
    real_positions: int = 0
    positions: int = 0
    shapes: Counter[BatchShape] = field(default_factory=Counter)

    def ran(self, shape: BatchShape, real: int) -> None:
        """Count a batch with so many real positions."""
        self.batches += 1
        self.real_positions += real
        self.positions += shape.positions
        self.shapes[shape] += 1

    @property
    def efficiency(self) -> float:
        """Real positions / positions computed on; 1 where there are none."""
        return self.real_positions / self.positions if self.positions else 1.0

    def __str__(self) -> str:
        lines = [
            f"{self.samples:,} samples in {self.batches:,} batches of {len(self.shapes)} shapes, padding efficiency "
            f"{self.efficiency:.3f}"
        ]
        if self.truncated or self.windowed:
            lines.append(f"truncated: {self.truncated:,}, in windows: {self.windowed:,} (of {self.windows:,})")
        lines += [f"run again, alone: {self.repeated:,}"] if self.repeated else []
        return "\n".join(lines)


@dataclass(frozen=True)
class ServerStats:
    """The work of a server so far.

    Attributes:
        requests: requests submitted.
        answered: those with outputs.
        failed: those with an error, bad requests among them.
        cancelled: those cancelled before they were in a batch.
        waiting: those that are in no batch yet.
        batches: batches run.
        latencies: seconds from submission to answer, of the last 10,000.

    >>> stats = ServerStats(3, answered=3, failed=0, cancelled=0, waiting=0, batches=1, latencies=(0.1, 0.2, 0.3))
    >>> stats.latency(50)
    0.2
    """

    requests: int
    answered: int
    failed: int
    cancelled: int
    waiting: int
    batches: int
    latencies: tuple[float, ...] = field(repr=False)

    def latency(self, percentile: float) -> float:
        """Return the seconds within which so many per cent of requests were answered; NaN before the first."""
        return float(np.percentile(self.latencies, percentile)) if self.latencies else float("nan")

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests: {self.answered:,} answered, {self.failed:,} failed, {self.cancelled:,} "
            f"cancelled, {self.waiting:,} waiting; {self.batches:,} batches; latency p50 "
            f"{1e3 * self.latency(50):.1f} ms, p99 {1e3 * self.latency(99):.1f} ms"
        )
