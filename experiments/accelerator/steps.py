"""Compile seconds, step milliseconds, memory and samples per second end to end, of one model in one layout."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.accelerator.budget import Clock
from experiments.accelerator.config import Config
from experiments.accelerator.end_to_end import run_policy
from experiments.accelerator.record import Record
from experiments.accelerator.work import Work, load, shape_order, step_places
from experiments.lib.exactness import apart
from experiments.lib.timing import time_calls
from multimodal_pad import BatchShape, BucketBatcher, PaddingStats

FIRST_SHAPES = 3
LONG_ENOUGH = 100.0
"""Least seconds of a part for compiling three shapes at once; with less, one is compiled and timed first."""

FOR_COMPILING = 0.6
"""Share of the part's time for compiling."""

STEPPING_SECONDS = 1.0
"""Seconds for timing one shape, where there is time."""


def measure(name: str, config: Config, record: Record, clock: Clock, cache_dir: Path) -> None:
    """Compile, take the first step, time every compiled shape, and run the policies end to end."""
    part = config.steps[name]
    work = load(part.model, config, cache_dir / name)
    first, *rest = part.policies
    batcher = work.batcher(first)
    shapes = shape_order(batcher)
    record.keep(
        model=config.models[part.model].name,
        layout=batcher.policy.layout.name,
        samples=len(work.samples),
        batch_size=config.corpus.batch_size,
        parameters=sum(x.size for x in jax.tree.leaves(work.state.params)),
        shapes=len(shapes),
        seconds_to_prepare=clock.elapsed(),
    )

    def keep_compiled(_shape: BatchShape) -> None:
        rows = [_compiled_row(work, shape) for shape in list(work.table.steps)]
        record.keep(compiled=rows)

    at_first = shapes[: FIRST_SHAPES if clock.seconds >= LONG_ENOUGH else 1]
    begun = time.perf_counter()
    work.compile(at_first, batcher.example(), keep_compiled)
    per_shape = (time.perf_counter() - begun) / len(at_first)
    places = step_places(batcher)
    batch = batcher.batch(0, places[at_first[-1]][0])
    work.first_step(batch)
    record.keep(
        start={
            "shapes": [_as_json(shape) for shape in at_first],
            "seconds_to_first_step": clock.elapsed(),
        }
    )
    affordable = int((FOR_COMPILING * clock.seconds - clock.elapsed()) / per_shape)
    # Fixed padding needs another program where no planned shape is the longest in every modality.
    others = [shape for spec in rest for shape in shape_order(work.batcher(spec))]
    later = [shape for shape in dict.fromkeys([*shapes[:FIRST_SHAPES], *others, *shapes]) if shape not in at_first]
    work.compile(later[: max(affordable, 0)], batcher.example(), keep_compiled)
    compiled = [shape for shape in shapes if shape in work.table.steps]
    if len(compiled) < len(shapes):
        record.note(f"{len(compiled)} of {len(shapes)} planned shapes compiled in the time")
    rows: list[dict[str, Any]] = []
    for shape in sorted(compiled, key=lambda shape: shape.positions):
        left = clock.left()
        if rows and not left:
            record.note(f"{len(rows)} of {len(compiled)} compiled shapes timed")
            break
        rows.append(_shape_row(work, batcher, shape, places[shape], min(STEPPING_SECONDS, left / 3 / len(compiled))))
        record.keep(steps=rows)
    for number, spec in enumerate(part.policies):
        seconds = clock.left() / (len(part.policies) - number)
        run_policy(work, spec, rows, record, seconds, config.windows)


def _shape_row(
    work: Work, batcher: BucketBatcher, shape: BatchShape, places: list[int], seconds: float
) -> dict[str, Any]:
    """Time the step of one shape, on a batch of the first epoch that is on the device already."""
    batch, table = batcher.batch(0, places[0]), work.table
    initial = work.state = jax.device_get(work.state)  # so that the device holds one state at a time
    twice = [jax.device_get(table(initial, batch)[0]) for _ in range(2)]
    pairs = zip(*map(jax.tree.leaves, twice), strict=True)
    repeat = max(apart(np.asarray(one, float), np.asarray(other, float)) for one, other in pairs)
    batch = jax.device_put(batch)

    def step() -> Any:
        work.state, metrics = table(work.state, batch)
        return metrics.loss

    jax.block_until_ready(step())
    taken = time_calls(step, jax.block_until_ready, seconds=seconds)
    stats = PaddingStats(batcher.policy.modalities, work.model_config.cost, batcher.policy.layout)
    stats.record(batcher.schedule(0).steps().take(np.array(places)), batcher.lengths)
    return {
        **_compiled_row(work, shape),
        "steps_of_epoch": len(places),
        "step_ms": [1e3 * each for each in taken],
        "real_flops": stats.real_cost / len(places),
        "paid_flops": stats.padded_cost / len(places),
        "repeat_changes": repeat,
    }


def _compiled_row(work: Work, shape: BatchShape) -> dict[str, Any]:
    compiled = work.table.steps[shape]
    return {**_as_json(shape), "compile_seconds": compiled.seconds, "device_bytes": compiled.device_bytes}


def _as_json(shape: BatchShape) -> dict[str, Any]:
    return {"rows": shape.batch_size, "lengths": dict(shape.lengths), "layout": shape.layout.name}
