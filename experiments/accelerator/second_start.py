"""Seconds to the first step in a fresh process that finds its programs in the compilation cache."""

from __future__ import annotations

from pathlib import Path

from experiments.accelerator.budget import Clock
from experiments.accelerator.config import SECOND_STARTS, Config
from experiments.accelerator.parts import LeftOut
from experiments.accelerator.record import Record, read
from experiments.accelerator.work import load, shape_of, step_places
from multimodal_pad.compiling import CompileLog


def measure(name: str, config: Config, record: Record, clock: Clock, cache_dir: Path) -> None:
    """Repeat another part until its first step.

    Raises:
        LeftOut: that part did not come to its first step.
    """
    before = SECOND_STARTS[name]
    part, first = config.steps[before], read(record.path.with_name(f"{before}.json")).get("start")
    if first is None:
        raise LeftOut(f"the part {before} did not come to its first step")
    with CompileLog() as log:
        work = load(part.model, config, cache_dir / before)
        batcher = work.batcher(part.policies[0])
        prepared = clock.elapsed()
        shapes = [shape_of(shape) for shape in first["shapes"]]
        work.compile(shapes, batcher.example())
        work.first_step(batcher.batch(0, step_places(batcher)[shapes[-1]][0]))
    record.keep(
        shapes=len(shapes),
        seconds_to_prepare=prepared,
        seconds_to_first_step=clock.elapsed(),
        compiled=log.total.compiled,
        cache_hits=log.total.cache_hits,
    )
