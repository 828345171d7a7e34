"""Train steps over padded length, rows and number of modalities: compile seconds, memory and step time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.lib.measure import make_step
from experiments.scaling.rounds import Config, in_turn
from multimodal_pad import Batch, BatchShape, pack_samples, pad_samples
from multimodal_pad.compiling import CompiledStep, StepTable
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.models import ModalityConfig, TransformerConfig

MODALITIES = {
    "text": ModalityConfig(feature_width=300),
    "audio": ModalityConfig(feature_width=74, kernel_size=3),
    "visual": ModalityConfig(feature_width=35, kernel_size=3),
    "pose": ModalityConfig(feature_width=35, kernel_size=3),
    "gaze": ModalityConfig(feature_width=35, kernel_size=3),
}
"""Inputs of a model; one of M modalities takes the first M."""

CLASSES = 3


class Point(NamedTuple):
    """The setting of a train step: number of modalities and rows, length of each, and layout."""

    modalities: int
    rows: int
    length: int
    layout: str = "padded"

    def shape(self, names: Iterable[str]) -> BatchShape:
        """Return the batch shape without padding."""
        lengths = self.length if self.layout == "padded" else self.rows * self.length
        return BatchShape.of(self.rows, dict.fromkeys(names, lengths), self.layout)


def full_batch(shape: BatchShape, widths: dict[str, int], targets: bool = True) -> Batch:
    """Make a batch of this shape with every position real: standard normal features of the given widths."""
    rng = np.random.default_rng(0)
    lengths = shape.layout.full_lengths(shape)
    whole = {m: rng.standard_normal((int(lengths[m].max()), width), np.float32) for m, width in widths.items()}
    extra = {TARGETS: np.int32(0)} if targets else {}
    samples = [{**{m: x[: lengths[m][i]] for m, x in whole.items()}, **extra} for i in range(shape.batch_size)]
    return {"padded": pad_samples, "packed": pack_samples}[shape.layout.name](samples)


def step_axes(config: Config) -> dict[str, list[Point]]:
    """Return the points of the axes that are measured by a train step; axes may share some."""
    usual = Point(config.modality_count, config.batch_size, config.length)
    return {
        "length": [usual._replace(length=length) for length in config.lengths],
        "batch_size": [usual._replace(rows=rows) for rows in config.batch_sizes],
        "modalities": [usual._replace(modalities=count) for count in config.modalities],
    }


def model_config(config: Config, modalities: int) -> TransformerConfig:
    """Return the configuration of a transformer of so many modalities."""
    return TransformerConfig(
        dict(list(MODALITIES.items())[:modalities]),
        CLASSES,
        d_model=config.d_model,
        num_heads=config.num_heads,
        crossmodal_layers=config.layers,
        memory_layers=config.layers,
        dropout_rate=config.dropout_rate,
    )


def measure_steps(config: Config, done: Callable[..., None]) -> dict[str, list[dict[str, Any]]]:
    """Compile and time train steps over length, batch size and number of modalities, in both layouts."""
    axes = step_axes(config)
    padded = {point for listed in axes.values() for point in listed}
    points = sorted({point._replace(layout=layout) for point in padded for layout in ("padded", "packed")})
    configs = {point.modalities: model_config(config, point.modalities) for point in points}
    steps, states = {}, {}
    for count, chosen in configs.items():
        steps[count] = make_step(chosen, 1e-3, config.seed)
        states[count] = steps[count].state
        done("making models")
    batches, compiled = {}, {}
    for point in points:
        widths = {m: given.feature_width or 0 for m, given in configs[point.modalities].modalities.items()}
        batches[point] = full_batch(point.shape(widths), widths)

    def compile_at(point: Point) -> float:
        jax.clear_caches()  # so that nothing traced before is found
        table = StepTable(steps[point.modalities].train_step, donate_state=True)
        found: CompiledStep = table.compile(states[point.modalities], batches[point])
        compiled.setdefault(point, found)
        return found.seconds

    def step_at(point: Point) -> float:
        begun = time.perf_counter()
        states[point.modalities], metrics = compiled[point].call(states[point.modalities], batches[point])
        float(metrics.loss)  # waits for the step
        return time.perf_counter() - begun

    compiling = in_turn([partial(compile_at, p) for p in points], config.rounds, config, partial(done, "compiling"))
    for point in points:
        step_at(point)  # the first one is slower
    stepping = in_turn([partial(step_at, p) for p in points], config.step_rounds, config, partial(done, "stepping"))
    rows = {
        point: {
            **point._asdict(),
            "encoders": point.modalities * (point.modalities - 1),
            "step_seconds": stepping[place],
            "compile_seconds": compiling[place],
            "device_bytes": compiled[point].device_bytes,
            "flops": point.rows
            * float(configs[point.modalities].cost(np.full((1, point.modalities), point.length))[0]),
        }
        for place, point in enumerate(points)
    }
    sizes = {"length": "length", "batch_size": "rows", "modalities": "modalities"}

    def row(point: Point, size: str) -> dict[str, Any]:
        packed = rows[point._replace(layout="packed")]
        own = {f"packed_{key}": packed[key] for key in ("step_seconds", "compile_seconds", "device_bytes")}
        return {"size": rows[point][size], **rows[point], **own}

    return {axis: [row(point, sizes[axis]) for point in listed] for axis, listed in axes.items()}
