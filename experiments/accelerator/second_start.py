"""Seconds to the first step in a fresh process that finds its programs in the compilation cache."""

from __future__ import annotations

from pathlib import Path

from experiments.accelerator.budget import Clock
from experiments.accelerator.config import Config
from experiments.accelerator.parts import LeftOut
from experiments.accelerator.record import Record, read
from experiments.accelerator.work import load, step_places
from multimodal_pad import BatchShape
from multimodal_pad.compiling import CompileLog


def measure(_name: str, config: Config, record: Record, clock: Clock, cache_dir: Path) -> None:
    """Do once more what the steps part of the first model did until its first step.

    Raises:
        LeftOut: that part did not come to its first step.
    """
    name = next(iter(config.models))
    first = read(record.path.with_name(f"{name}.json")).get("start")
    if first is None:
        raise LeftOut(f"the part {name} did not come to its first step")
    with CompileLog() as log:
        work = load(name, config, cache_dir)
        batcher = work.batcher(config.layouts["planned"])
        prepared = clock.elapsed()
        shapes = [BatchShape.of(shape["rows"], shape["lengths"]) for shape in first["shapes"]]
        work.compile(shapes, batcher.example())
        work.first_step(batcher.batch(0, step_places(batcher)[shapes[-1]][0]))
    record.keep(
        model=config.models[name].name,
        shapes=len(shapes),
        seconds_to_prepare=prepared,
        seconds_to_first_step=clock.elapsed(),
        seconds_to_first_step_empty=first["seconds_to_first_step"],
        compiled=log.total.compiled,
        cache_hits=log.total.cache_hits,
    )
