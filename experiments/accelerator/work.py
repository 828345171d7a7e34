"""Samples, batches and the compiled steps of one model, for the parts on steps and on the second start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.accelerator.config import Config
from experiments.lib import corpora, policies
from experiments.lib.measure import initial_model, make_step, shapes_by_use
from multimodal_pad import BatchShape, BucketBatcher, LengthTable
from multimodal_pad.compiling import StepTable, default_threads, use_compilation_cache
from multimodal_pad.compiling.table import batch_struct
from multimodal_pad.layouts.layout import batch_shapes
from multimodal_pad.models import TransformerConfig


@dataclass
class Work:
    """The samples, and one model's train step with its state, which lives on the device once.

    Attributes:
        samples: in memory.
        lengths: of them.
        model_config: of the model.
        corpus: where the samples come from.
        table: the executables; they donate the state.
        state: of the training; each step replaces it.
    """

    samples: list[Any]
    lengths: LengthTable
    model_config: TransformerConfig
    corpus: corpora.Config
    table: StepTable = field(init=False)
    state: Any = field(init=False)
    _batchers: dict[str, BucketBatcher] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        step = make_step(self.model_config, self.corpus.learning_rate, self.corpus.seed)
        initial_model.cache_clear()  # its arrays would be a second copy
        self.table = StepTable(step.train_step, donate_state=True)
        self.state = step.state
        del step.state

    def batcher(self, spec: str) -> BucketBatcher:
        """Return the batches of a policy of :mod:`experiments.lib.policies`, such as ``"planned_8/length"``."""
        if spec not in self._batchers:
            name, grouping = policies.parse_policy(spec)
            policy = policies.make_policy(name, grouping, self.lengths, self.corpus, self.model_config)
            self._batchers[spec] = policies.make_batcher(
                policy, grouping, self.samples, self.lengths, self.corpus, self.model_config
            )
        return self._batchers[spec]

    def padded_lengths(self, shapes: Iterable[BatchShape]) -> np.ndarray:
        """Return padded lengths ``(shapes, M)`` in the order of the model's modalities, which its cost expects."""
        return np.array([[dict(shape.lengths)[name] for name in self.model_config.modalities] for shape in shapes])

    def compile(
        self, shapes: Iterable[BatchShape], example: Any, done: Callable[[BatchShape], None] = lambda _: None
    ) -> None:
        """Compile the step for these shapes like a warm-up, and call ``done`` with each shape when it is compiled."""
        missing = [shape for shape in dict.fromkeys(shapes) if shape not in self.table.steps]
        with ThreadPoolExecutor(default_threads()) as pool:
            compiling = {}
            for shape in missing:
                lowered = self.table.lower(self.state, batch_struct(example, shape))
                compiling[pool.submit(self.table.finish, shape, *lowered)] = shape
            for future in as_completed(compiling):
                future.result()
                done(compiling[future])

    def first_step(self, batch: Any) -> None:
        """Run one step, and wait for it."""
        self.state, metrics = self.table(self.state, batch)
        jax.block_until_ready(metrics.loss)


def load(name: str, config: Config, cache_dir: Path) -> Work:
    """Read the samples and make the model; programs are read from ``cache_dir`` and added to it."""
    use_compilation_cache(cache_dir)
    samples, lengths, model_config, _ = corpora.load(config.corpus, Progress(disable=True))
    return Work(samples, lengths, config.models[name].sized(model_config), config.corpus)


def shape_of(row: dict[str, Any]) -> BatchShape:
    """Return the batch shape of a row of the results.

    >>> str(shape_of({"rows": 2, "lengths": {"text": 3}, "layout": "packed"}))
    '2 packed in (text 3)'
    """
    return BatchShape.of(row["rows"], row["lengths"], row["layout"])


def shape_order(batcher: BucketBatcher) -> list[BatchShape]:
    """Order the batch shapes of the first epoch: the largest, the smallest, then by falling number of steps."""
    largest, *others = shapes_by_use(batcher, [batcher.schedule(0)])
    if not others:
        return [largest]
    smallest = min(others, key=lambda shape: shape.positions)
    return [largest, smallest, *(shape for shape in others if shape != smallest)]


def step_places(batcher: BucketBatcher) -> dict[BatchShape, list[int]]:
    """Return the steps of the first epoch by batch shape."""
    found: dict[BatchShape, list[int]] = {}
    schedule = batcher.schedule(0)
    for place, shape in enumerate(step_shapes(batcher, schedule)):
        found.setdefault(shape, []).append(place)
    return found


def step_shapes(batcher: BucketBatcher, schedule: Any) -> list[BatchShape]:
    """Return the batch shape of each step of a schedule."""
    policy = batcher.policy
    return batch_shapes(schedule.batch_sizes, schedule.lengths, policy.modalities, policy.layout)
