"""The ledger: real and padded positions, shapes used, samples dropped, truncated, missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from multimodal_pad.layouts.layout import Layout
from multimodal_pad.layouts.padded import PADDED
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.steps import Steps


@dataclass
class PaddingStats:
    """Positions and cost of a run of steps, padded and real.

    Attributes:
        modalities: names of the M columns.
        cost: cost per sample of lengths ``(n, M)``, the unit of :attr:`cost_efficiency`.
        layout: of the batches.
        real: positions that hold data, ``(M,)``.
        padded: positions that were computed on, empty rows included, ``(M,)``.
        missing: samples that have length 0, ``(M,)``.
        samples: samples in the steps.
        steps: steps recorded.
        shapes: steps at each tuple of padded lengths.
        dropped: samples left out because no bucket holds them.
        truncated: samples cut to the longest bucket.

    >>> stats = PaddingStats(("text",))
    >>> table = LengthTable(("text",), np.array([[2], [4]]))
    >>> stats.record(Steps(np.array([[4]]), np.array([0, 2]), np.array([0, 1])), table)
    >>> stats.position_efficiency
    {'text': 0.75, 'total': 0.75}
    """

    modalities: tuple[str, ...]
    cost: Cost = position_count
    layout: Layout = PADDED
    real: np.ndarray = field(init=False)
    padded: np.ndarray = field(init=False)
    missing: np.ndarray = field(init=False)
    real_cost: float = field(default=0.0, init=False)
    padded_cost: float = field(default=0.0, init=False)
    samples: int = field(default=0, init=False)
    steps: int = field(default=0, init=False)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter, init=False)
    dropped: int = 0
    truncated: int = 0

    def __post_init__(self) -> None:
        zeros = np.zeros(len(self.modalities), np.int64)
        self.real, self.padded, self.missing = zeros, zeros.copy(), zeros.copy()

    def record(self, steps: Steps, lengths: LengthTable) -> None:
        """Add steps, whose samples have the lengths given, to the ledger."""
        is_real = steps.ids != EMPTY
        real = lengths.select(self.modalities).values[steps.ids[is_real]]
        costs = np.asarray(self.cost(real), np.float64)
        step_of = np.repeat(np.arange(len(steps)), steps.batch_sizes)[is_real]
        sums = np.stack([np.bincount(step_of, column, len(steps)) for column in real.T], axis=1)
        each = np.bincount(step_of, costs, len(steps))
        self.real += real.sum(axis=0)
        self.padded += self.layout.positions(steps.batch_sizes, steps.lengths).sum(axis=0)
        self.missing += (real == 0).sum(axis=0)
        self.real_cost += float(costs.sum())
        self.padded_cost += float(self.layout.paid(steps.batch_sizes, steps.lengths, sums, each, self.cost).sum())
        self.samples += len(real)
        self.steps += len(steps)
        self.shapes.update(map(tuple, steps.lengths.tolist()))

    @property
    def position_efficiency(self) -> dict[str, float]:
        """Real positions / padded positions, per modality and in ``"total"``."""
        each = zip(self.modalities, self.real.tolist(), self.padded.tolist(), strict=True)
        efficiency = {name: _share(real, padded) for name, real, padded in each}
        return {**efficiency, "total": _share(int(self.real.sum()), int(self.padded.sum()))}

    @property
    def cost_efficiency(self) -> float:
        """Cost of the samples at their own lengths / cost of what was computed."""
        return _share(self.real_cost, self.padded_cost)

    def __str__(self) -> str:
        positions = ", ".join(f"{m} {share:.3f}" for m, share in self.position_efficiency.items())
        lines = [
            f"{self.samples} samples in {self.steps} steps of {len(self.shapes)} shapes",
            f"padding efficiency: positions {positions}; cost {self.cost_efficiency:.3f}",
        ]
        missing = {m: n for m, n in zip(self.modalities, self.missing.tolist(), strict=True) if n}
        lines += [f"missing: {missing}"] if missing else []
        lines += [f"dropped: {self.dropped}, truncated: {self.truncated}"] if self.dropped + self.truncated else []
        return "\n".join(lines)


def _share(real: float, padded: float) -> float:
    return real / padded if padded else 1.0
