"""PyTorch's side of the training benchmark: the same batches, padded or end to end, executed eagerly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib import corpora, twin
from experiments.lib.corpora import some_batch
from experiments.lib.measure import step_work
from experiments.peers.contenders import (
    EPOCHS,
    UNPADDED,
    Config,
    Contender,
    Prepared,
    answers,
    first_facts,
    make_batches,
    warmed,
)
from multimodal_pad import BucketBatcher
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.models import TransformerConfig


def prepare(library: str, config: Config, parameters: dict[str, Any]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Prepare PyTorch's side: the same batches, padded by ``pad_sequence`` or end to end.

    Raises:
        RuntimeError: the library does not train on this device.
    """
    if library == "torch.flex" and twin.platform() == "cpu":
        raise RuntimeError("FlexAttention has no backward pass on CPU")
    corpus = config.corpus
    samples, lengths, model_config, _ = corpora.load(corpus, Progress(disable=True))
    prepared = [
        _eager_steps(
            contender, make_batches(contender, samples, lengths, model_config, corpus), parameters, model_config, corpus
        )
        for contender in config.contenders
        if contender.library == library
    ]
    model: Any = twin.Twin(model_config, parameters).to(twin.best_device())
    layouts = dict.fromkeys(contender.layout for contender in config.contenders if contender.library == library)

    def forward() -> np.ndarray:
        _, some, padded = some_batch(samples, lengths)
        outputs = []
        with twin.float32_products("highest"):
            for layout in layouts:
                features, positions, _ = twin.to_device(lay_out(layout, some, lengths.modalities, padded))
                outputs.append(model(features, positions).detach().cpu().numpy())
        return np.stack(outputs)

    first = first_facts(prepared, samples, parameters, twin.torch.__version__)
    return {**first, "platform": twin.platform()}, answers(prepared, forward)


def _eager_steps(
    contender: Contender,
    batches: tuple[BucketBatcher, float],
    parameters: dict[str, Any],
    config: TransformerConfig,
    corpus: corpora.Config,
) -> Prepared:
    """Make PyTorch's train steps on the same batches, without empty rows."""
    batcher, preparing = batches
    names, schedule, layout = batcher.policy.modalities, batcher.schedule(0), contender.layout
    ids = [[int(i) for i in row if i != EMPTY] for _, row in schedule]
    lengths = schedule.lengths
    if layout == "maxima":
        lengths = np.array([np.maximum(batcher.lengths.values[row].max(axis=0), 1) for row in ids])
    model: Any = twin.Twin(config, parameters).to(twin.best_device())
    optimizer = twin.make_optimizer(model, corpus.learning_rate)
    called = twin.torch.compile(model, dynamic=True) if contender.library == "torch.compile" else model

    def run(place: int) -> None:
        samples = [batcher.source[i] for i in ids[place]]
        padded = dict(zip(names, lengths[place].tolist(), strict=True))
        batch = twin.to_device(twin.pin(lay_out(layout, samples, names, padded)))
        with twin.float32_products("high"):
            float(twin.train_step(called, optimizer, *batch))  # waits for the step

    order = np.random.default_rng(corpus.seed).permutation(len(schedule)).tolist()
    begun, compiling = time.perf_counter(), 0.0
    if contender.library in ("torch.compile", "torch.flex"):
        for place in order[:6]:  # the first calls compile
            run(place)
        compiling = time.perf_counter() - begun
    count = len(np.unique(lengths, axis=0))
    rows = np.array([len(row) for row in ids])
    real = batcher.lengths.values
    if layout in UNPADDED:
        efficiency, work = 1.0, np.stack([_work_alone(config, real[row]) for row in ids])
    else:
        efficiency = float(config.cost(real).sum() / (config.cost(lengths) * rows).sum())
        work = step_work(config.cost, lengths, rows)
    prepared = Prepared(
        work,
        efficiency,
        order,
        run,
        {
            "preparing_seconds": preparing,
            "shapes": {str(epochs): count for epochs in EPOCHS},
            "shapes_compiled": None,
            "compile_seconds": {str(epochs): compiling for epochs in EPOCHS},
            "device_bytes": None,
        },
    )
    return warmed(prepared)


def lay_out(layout: str, samples: list[Any], names: tuple[str, ...], padded: dict[str, int]) -> Any:
    """Lay out a batch for a contender; ``padded`` are the policy's lengths."""
    if layout in UNPADDED:
        return twin.lay_end_to_end(samples, names, layout)
    return twin.pad(samples, names, padded if layout == "policy" else None)


def _work_alone(config: TransformerConfig, lengths: np.ndarray) -> np.ndarray:
    """Compute :func:`step_work` of one step of samples of ``lengths (B, M)`` without padding, ``(3,)``."""
    each = step_work(config.cost, lengths, np.ones(len(lengths), np.int64)).sum(axis=0)
    each[0] = 1
    return each
