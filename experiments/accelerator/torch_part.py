"""The same models in PyTorch on the same device, executed eagerly: samples per second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.accelerator import reference
from experiments.accelerator.budget import Clock
from experiments.accelerator.config import Config
from experiments.accelerator.parts import LeftOut
from experiments.accelerator.random_model import random_model
from experiments.accelerator.record import Record, read
from experiments.lib import corpora, policies
from experiments.lib.corpora import some_batch
from experiments.lib.exactness import apart
from experiments.lib.measure import parameters_of
from multimodal_pad import LengthTable
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.models import TransformerConfig

BATCHES = {"random": "exact/random", "length": "planned_8/length"}
"""Policies of :mod:`experiments.lib.policies` that choose the samples of batches; each is padded to its own maxima."""

FEEDS = ("thread", "ready")
"""Batches are padded by a thread two ahead, or all before the clock starts, which no loader could better."""

WARMING_STEPS = 3
READY_STEPS = 64


def measure(_name: str, config: Config, record: Record, clock: Clock, _cache_dir: Path) -> None:
    """Make a row per model, grouping and feed.

    Raises:
        LeftOut: PyTorch is not installed, or has no GPU where JAX has one.
    """
    if find_spec("torch") is None:
        raise LeftOut("PyTorch is not installed (pip install torch)")
    from experiments.lib import twin

    jax_platform = read(record.path.with_name("device.json"))["device"]["platform"]
    if twin.platform() != jax_platform:
        raise LeftOut(f"PyTorch {twin.torch.__version__} runs on {twin.platform()} here, and JAX on {jax_platform}")
    record.keep(version=twin.torch.__version__, cudnn=twin.torch.backends.cudnn.version())
    samples, lengths, base, _ = corpora.load(config.corpus, Progress(disable=True))
    batches = {name: _batches(spec, samples, lengths, base, config) for name, spec in BATCHES.items()}
    planned = [(model, batching, feed) for model in config.models for batching in batches for feed in FEEDS]
    rows: list[dict[str, Any]] = []
    side: Side | None = None
    for number, (model, batching, feed) in enumerate(planned):
        if rows and clock.over():
            record.note(f"{len(rows)} of {len(planned)} ways to train measured")
            return
        if side is None or side.name != model:
            side = None  # so that the device holds one model at a time
            side = Side(model, config.models[model].sized(base), config)
        if not rows:
            record.keep(outputs_apart=side.outputs_apart(samples, lengths))
        seconds = clock.left() / (len(planned) - number)
        rows.append(side.run(samples, lengths, batches[batching], feed, seconds) | {"batches": batching})
        record.keep(rows=rows)


class Side:
    """The twin of one model and its optimizer; it multiplies in bfloat16 by autocast, or float32 (in TF32 on a GPU)."""

    def __init__(self, name: str, model_config: TransformerConfig, config: Config) -> None:
        from experiments.lib import twin

        self.name, self.title, self.twin = name, config.models[name].name, twin
        self.model_config, self.windows = model_config, config.windows
        self.parameters = parameters_of(random_model(model_config))
        self.autocast = config.models[name].dtype == "bfloat16"
        self.model: Any = twin.Twin(model_config, self.parameters).to(twin.best_device())
        self.optimizer = twin.make_optimizer(self.model, config.corpus.learning_rate)

    def outputs_apart(self, samples: list[Any], lengths: LengthTable) -> float:
        """Return how far its float32 outputs are from the model's in float64 on the host."""
        _, some, padded = some_batch(samples, lengths)
        exact = {path: array.astype(np.float64) for path, array in self.parameters.items()}
        features, positions, _ = self.twin.to_device(self.twin.pad(some, lengths.modalities, padded))
        with self.twin.float32_products("highest"):
            outputs = self.model(features, positions).detach().cpu().numpy()
        return apart(outputs, reference.outputs(self.model_config, exact, some))

    def run(
        self, samples: list[Any], lengths: LengthTable, ids: list[list[int]], feed: str, seconds: float
    ) -> dict[str, Any]:
        """Train for some seconds; each window ends when the device has finished.

        A window is the first epoch, or its first 64 steps where they are padded before.
        """
        names, twin = lengths.modalities, self.twin
        torch = twin.torch
        window = ids[:READY_STEPS] if feed == "ready" else ids

        def padded() -> Iterator[Any]:
            for row in window:
                yield twin.pin(twin.pad([samples[i] for i in row], names, None))

        in_window = sum(map(len, window))
        ready = list(padded()) if feed == "ready" else None
        on_gpu = twin.platform() == "gpu"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        rates, waiting, steps = [], [], 0
        with twin.float32_products("high"):
            for _, batch in zip(range(WARMING_STEPS), ready or padded(), strict=False):
                self._step(batch)
            self._wait()
            ends = time.perf_counter() + seconds
            while not rates or (time.perf_counter() < ends and len(rates) < self.windows):
                trained, waited, begun = 0, 0.0, time.perf_counter()
                with nullcontext(iter(ready)) if ready else Prefetch(padded(), 2) as feeding:
                    asked = time.perf_counter()
                    for row, batch in zip(window, feeding, strict=False):
                        waited += time.perf_counter() - asked
                        self._step(batch)
                        trained, steps, asked = trained + len(row), steps + 1, time.perf_counter()
                        if asked > ends:
                            break
                self._wait()
                whole = time.perf_counter() - begun
                if not rates or trained == in_window:  # a part of a window may hold only short samples
                    rates.append(trained / whole)
                    waiting.append(waited / whole)
        return {
            "model": self.title,
            "precision": "bfloat16 autocast" if self.autocast else "TF32" if on_gpu else "float32",
            "feed": feed,
            "steps": steps,
            "whole": steps >= len(window),
            "samples_per_second": rates,
            "waiting_share": waiting,
            "real_flops_per_sample": float(self.model_config.cost(lengths.values[np.concatenate(window)]).mean()),
            "peak_bytes_in_use": torch.cuda.max_memory_allocated() if on_gpu else None,
        }

    def _step(self, batch: Any) -> None:
        self.twin.train_step(self.model, self.optimizer, *self.twin.to_device(batch), autocast=self.autocast)

    def _wait(self) -> None:
        if self.twin.platform() == "gpu":
            self.twin.torch.cuda.synchronize()


def _batches(
    spec: str, samples: list[Any], lengths: LengthTable, model_config: TransformerConfig, config: Config
) -> list[list[int]]:
    """Return the sample numbers of each batch of the first epoch, without rows that only fill up."""
    name, grouping = policies.parse_policy(spec)
    policy = policies.make_policy(name, grouping, lengths, config.corpus, model_config)
    batcher = policies.make_batcher(policy, grouping, samples, lengths, config.corpus, model_config)
    return [[int(i) for i in row if i != EMPTY] for _, row in batcher.schedule(0)]
