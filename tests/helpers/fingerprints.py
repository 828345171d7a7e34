"""Fingerprints of what must stay the same for the same seed: plans, schedules, shards, batches and streams.

``python -m tests.helpers.fingerprints`` rewrites the golden file: only where a change of schedules is meant.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from multimodal_pad import (
    BatchBudget,
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    PaddedBatch,
    Planned,
    Policy,
    ShapePlan,
    StreamBatcher,
    TransformerCost,
    make_schedule,
    plan_shapes,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "fingerprints.json"

NAMES = ("text", "audio", "visual")


def draw_lengths(count: int, seed: int = 0) -> LengthTable:
    """Lengths of three modalities that grow together, with some that are missing; only raw bits are drawn."""
    bits = np.random.PCG64(seed).random_raw(4 * count).reshape(4, count) >> np.uint64(40)
    size = 1 + (bits[0] % 40 * (1 + bits[0] % 3)) // 2
    columns = [1 + size // 3, 2 * size + bits[1] % 9, size + bits[2] % 5]
    values = np.stack(columns, axis=1).astype(np.int64)
    values[np.arange(count), (bits[3] % 3).astype(int)] *= (bits[3] % 16 > 0).astype(np.int64)
    return LengthTable(NAMES, values)


def make_source(lengths: LengthTable) -> list[dict]:
    """Samples of these lengths: token ids, and features that count on from sample to sample."""
    widths = {"text": None, "audio": 3, "visual": 2}
    samples = []
    for number, row in enumerate(lengths.values.tolist()):
        sample: dict = {"targets": np.int32(number % 5)}
        for name, length in zip(lengths.modalities, row, strict=True):
            width = widths[name]
            ids = np.arange(length, dtype=np.int32) + number
            sample[name] = ids if width is None else np.outer(ids, np.ones(width)).astype(np.float32)
        samples.append(sample)
    return samples


def make_policies(lengths: LengthTable) -> Iterator[tuple[str, Policy, int | None, str]]:
    """A name, a policy, a batch size and a grouping each."""
    cost = TransformerCost(NAMES)
    plans: dict[str, ShapePlan] = {
        "planned": plan_shapes(lengths, max_shapes=5, cost=cost, alignment={"audio": 4}, batch_size=8),
        "planned random": plan_shapes(lengths, max_shapes=4, cost=cost, grouping="random", batch_size=8),
        "planned budget": plan_shapes(lengths, max_shapes=5, batch_size=BatchBudget(900, multiple=4, largest=24)),
        "planned overhead": plan_shapes(lengths, max_shapes=3, batch_size=8, batch_overhead=50.0),
    }
    for grouping in ("length", "random"):
        yield f"fixed {grouping}", Fixed.longest(lengths), 8, grouping
        yield f"quantiles {grouping}", Ladder.quantiles(lengths, 3), 8, grouping
        yield f"powers {grouping}", Ladder.powers_of_two(lengths, 8), 8, grouping
    yield "exact random", Exact(NAMES), 8, "random"
    yield "exact length", Exact(NAMES), 8, "length"
    for name, plan in plans.items():
        yield name, Planned(plan), None, str(plan.grouping)
    yield "planned with rows", Planned(plans["planned"]), 8, "length"


def fingerprints() -> dict[str, str]:
    """A digest by the name of each thing."""
    lengths = draw_lengths(203)
    source = make_source(lengths)
    found: dict[str, str] = {"lengths": lengths.fingerprint}
    for name, policy, rows, grouping in make_policies(lengths):
        if isinstance(policy, Planned):
            plan = policy.plan
            figures = [plan.efficiency, plan.bound, *plan.efficiencies, *plan.samples, *plan.costs]
            found[f"{name}: plan"] = _digest(
                plan.lengths, plan.batch_sizes, np.array([float(f"{figure:.6g}") for figure in figures])
            )
        for seed, epoch, window in ((0, 0, 1024), (0, 1, 1024), (3, 0, 7)):
            options = {"batch_size": rows, "grouping": grouping, "window": window, "seed": seed}
            schedule = make_schedule(lengths, policy, epoch=epoch, **options)
            found[f"{name}: schedule {seed} {epoch} {window}"] = _digest(
                schedule.lengths, schedule.starts, schedule.ids
            )
        batcher = BucketBatcher(source, policy, batch_size=rows, grouping=grouping, window=7, seed=5)
        found[f"{name}: batches"] = _digest(*(_contents(batch) for batch in batcher.epoch(2)))
        if all(size % 2 == 0 for size in batcher.batch_sizes):
            halves = [batcher.shard(index, 2) for index in range(2)]
            found[f"{name}: shards"] = _digest(*(_contents(batch) for half in halves for batch in half.epoch(1)))
        figures = batcher.forecast(1)
        found[f"{name}: ledger"] = _digest(
            figures.real, figures.padded, figures.missing, np.array([float(f"{figures.cost_efficiency:.6g}")])
        )
        if grouping == "length":
            stream = StreamBatcher(source, policy, batch_size=rows, buffer=64, seed=2, prefetch=1)
            found[f"{name}: stream"] = _digest(*(_contents(batch) for batch in stream))
    cut = BucketBatcher(
        source, Ladder({"text": [8], "audio": [16, 32], "visual": [24]}), batch_size=8, long_samples="truncate"
    )
    found["truncated: batches"] = _digest(*(_contents(batch) for batch in cut.epoch(0)))
    return found


def _contents(batch: PaddedBatch) -> str:
    """Digest of all that a batch holds, with its masks, whatever it is made of."""
    arrays = [batch.sample_mask, batch.targets]
    for name in NAMES:
        arrays += [batch.features[name], batch.masks[name]]
    return _digest(*arrays)


def _digest(*parts: np.ndarray | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, str):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(part.encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(fingerprints(), indent=1) + "\n")
