"""A contender of the batcher's benchmark in a process of its own: checked once, and then timed epoch by epoch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from experiments.peers.batcher_contenders import CONTENDERS, Contender, Epoch, Padded, Work, make_batcher
from multimodal_pad import PaddedBatch, Planned, plan_shapes
from multimodal_pad.sources import Meld, Synthetic
from multimodal_pad.sources.synthetic import WIDTHS


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    samples: int = 9988
    batch_size: int = 64
    shapes: int = 8
    repeats: int = 11


def load(config: Config) -> Work:
    """Load the samples, the schedule and its batches."""
    source = Synthetic(config.samples) if config.data_dir is None else Meld(config.data_dir, "train")
    lengths = source.lengths.select(tuple(WIDTHS))
    rng = np.random.default_rng(0)
    samples = [
        {
            name: rng.standard_normal((length, WIDTHS[name]), np.float32)
            for name, length in zip(WIDTHS, row, strict=True)
        }
        for row in [*lengths.values.tolist(), [0] * len(WIDTHS)]
    ]
    policy = Planned(plan_shapes(lengths, max_shapes=config.shapes, batch_size=config.batch_size))
    batcher = make_batcher(samples, policy, lengths, config.batch_size, prefetch=0)
    steps = [(dict(zip(WIDTHS, shape.tolist(), strict=True)), ids.tolist()) for shape, ids in batcher.schedule(0)]
    return Work(samples, lengths, policy, config.batch_size, steps, list(batcher.epoch(0)))


def prepare(name: str, config: Config) -> tuple[dict[str, Any], Callable[[], float]]:
    """Check a contender; return the bytes of its epoch, and a function that times one more epoch per call."""
    (contender,) = (contender for contender in CONTENDERS if contender.name == name)
    work = load(config)
    epoch = contender.make(work)
    facts = {
        "bytes": check_epoch(contender, epoch, work),
        "version": import_module(contender.package).__version__,
        "work": {
            "samples": len(work.lengths),
            "batches": len(work.steps),
            "padding_efficiency": work.batcher(0).forecast().cost_efficiency,
        },
    }
    work.ready.clear()  # only contenders that copy them keep them
    gc.collect()
    return facts, lambda: time_epoch(epoch)


def time_epoch(epoch: Epoch) -> float:
    """Time one epoch, in seconds, without reading its batches."""
    begun = time.perf_counter()
    for _ in epoch():
        pass
    return time.perf_counter() - begun


def check_epoch(contender: Contender, epoch: Epoch, work: Work) -> int:
    """Count the bytes written for features and lengths of an epoch, which must equal the ready batches.

    Raises:
        RuntimeError: they differ, so that a comparison would be wrong.
    """
    size = 0
    for batch, ready in zip(epoch(), work.ready, strict=True):
        features = {name: np.asarray(x) for name, x in batch.features.items()}
        lengths = {name: np.asarray(x) for name, x in batch.lengths.items()}
        if not all(_same(contender, Padded(features, lengths), ready, name) for name in ready.features):
            raise RuntimeError(f"{contender.name}: its batches are not those of the schedule")
        if contender.fills:
            size += sum(array.nbytes for arrays in (features, lengths) for array in arrays.values())
        else:  # it writes only the real positions
            size += sum(array[ready.masks[name]].nbytes for name, array in features.items())
    return size


def _same(contender: Contender, batch: Padded, ready: PaddedBatch, name: str) -> bool:
    lengths, mask, features = ready.lengths[name], ready.masks[name], ready.features[name]
    if contender.own_maxima:
        mask, features = mask[:, : lengths.max()], features[:, : lengths.max()]
    if not np.array_equal(batch.lengths[name], lengths) or batch.features[name].shape != features.shape:
        return False
    kept = ... if contender.fills else mask
    return np.array_equal(batch.features[name][kept], features[kept])
