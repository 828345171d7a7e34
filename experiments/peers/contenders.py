"""Contenders that train the same model on the same samples, and their preparation before they are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from experiments.lib import corpora, policies
from multimodal_pad import BucketBatcher, LengthTable
from multimodal_pad.models import TransformerConfig

EPOCHS = (1, 3, 10)
TOLERANCE = 1e-4
"""Largest difference between the outputs of the two models."""

SMALL_PAGES = "small_pages"

CORES = "cores"
"""Library name under which JAX has each core as a device, which takes a share of every batch."""

UNPADDED = ("nested", "flex", "sample")
"""PyTorch's layouts without padding."""


def environment_of(library: str) -> dict[str, str]:
    """Return the environment of a library: whether Linux's C library requests pages of 2 MB for large arrays; no cache.

    On a GPU JAX takes memory as needed, so that some is left for PyTorch.
    """
    cores = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={os.cpu_count()}"}
    return {
        **(cores if library.endswith(CORES) else {}),
        "GLIBC_TUNABLES": f"glibc.malloc.hugetlb={0 if library.endswith(SMALL_PAGES) else 1}",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


class Contender(NamedTuple):
    """One way to train.

    Attributes:
        name: for the table.
        batches: policy and grouping of :mod:`experiments.lib.policies`, which choose the samples of batches.
        library: ``"jax"`` or ``"torch"``, and after a dot what is different: ``compile``, ``flex``, ``cores`` or
            ``small_pages``.
            Each of them has a process of its own.
        layout: how PyTorch lays a batch out: padded to the policy's lengths or to the batch's own ``"maxima"``, or
            without padding, with attention of ``"nested"`` tensors, ``"flex"``, or of each ``"sample"`` by itself.
        compiled: the most shapes to compile (the others are predicted), or None for all.
    """

    name: str
    batches: str
    library: str = "jax"
    layout: str = "policy"
    compiled: int | None = None


CONTENDERS = {
    "fixed": Contender("fixed padding", "fixed/random"),
    "exact": Contender("exact padding", "exact/random", compiled=8),
    "powers_of_two": Contender("powers of two", "powers_of_two/length", compiled=8),
    "planned_8": Contender("planned, 8 shapes", "planned_8/length"),
    "planned_4": Contender("planned, 4 shapes", "planned_4/length"),
    "packed": Contender("packed", "packed/balanced"),
    "packed_cores": Contender("packed, a share on each core", "packed/balanced", f"jax.{CORES}"),
    "torch_fixed": Contender("PyTorch eager, fixed padding", "fixed/random", "torch"),
    "torch_random": Contender("PyTorch eager, own maxima", "exact/random", "torch", "maxima"),
    "torch_length": Contender("PyTorch eager, own maxima", "planned_8/length", "torch", "maxima"),
    "torch_nested": Contender("PyTorch eager, nested jagged tensors", "exact/random", "torch", "nested"),
    "torch_sample": Contender("PyTorch eager, attention by sample", "exact/random", "torch", "sample"),
    "torch_flex": Contender("PyTorch, FlexAttention", "exact/random", "torch.flex", "flex"),
    "torch_compile": Contender(
        "torch.compile(dynamic=True), own maxima", "planned_8/length", "torch.compile", "maxima"
    ),
    "planned_8_small": Contender("planned, 8 shapes, small pages", "planned_8/length", f"jax.{SMALL_PAGES}"),
    "torch_length_small": Contender(
        "PyTorch eager, own maxima, small pages", "planned_8/length", f"torch.{SMALL_PAGES}", "maxima"
    ),
}
"""All contenders, by the names that the command takes."""

MAIN = ("fixed", "planned_8", "packed", "packed_cores", "torch_random", "torch_length", "torch_sample", "torch_flex")
"""The contenders of ``--contenders main``: this project's best and PyTorch's, in minutes. Nested tensors are left out,
since on CPU one of their steps takes as long as a turn."""


@dataclass(frozen=True)
class Config:
    """Options of one comparison, with every default.

    Attributes:
        corpus: samples and model.
        rounds: how often each contender has its turn.
        turn_seconds: how long a turn is.
        patience: seconds that ``torch.compile`` and FlexAttention may take before they are given up.
        contenders: those that are compared.
    """

    corpus: corpora.Config
    rounds: int = 7
    turn_seconds: float = 4.0
    patience: float = 420.0
    contenders: tuple[Contender, ...] = tuple(CONTENDERS.values())


QUICK = {"modalities": ("audio",), "samples": 96, "d_model": 8, "num_heads": 2}


def quick(config: Config) -> Config:
    """Options under --quick, to check that everything works."""
    corpus = replace(config.corpus, source="synthetic", data_dir=None, **{**corpora.QUICK, **QUICK})
    few = tuple(
        contender._replace(batches=contender.batches.replace("_8", "_2"), compiled=contender.compiled and 1)
        for contender in config.contenders
        if "4 shapes" not in contender.name and contender.library in ("jax", f"jax.{CORES}", "torch")
    )
    return replace(config, corpus=corpus, rounds=2, turn_seconds=0.1, contenders=few)


@dataclass
class Prepared:
    """A contender that is warm: its epoch, and a function that trains on one step of it."""

    work: np.ndarray  # (steps, 3): amounts that the time of each step, as run, may grow with
    cost_efficiency: float  # real cost of the steps as run
    places: list[int]  # the steps that can be run, in order
    run: Callable[[int], None]
    facts: dict[str, Any]
    turned: int = 0

    def turn(self, seconds: float) -> list[tuple[int, float]]:
        """Train for some seconds, at least one step; return the steps, and the seconds of each, its batch included."""
        done: list[tuple[int, float]] = []
        while not done or sum(took for _, took in done) < seconds:
            place = self.places[self.turned % len(self.places)]
            self.turned += 1
            begun = time.perf_counter()
            self.run(place)
            done.append((place, time.perf_counter() - begun))
        return done


def first_facts(
    prepared: list[Prepared], samples: list[Any], parameters: dict[str, Any], version: str
) -> dict[str, Any]:
    """Return a process's first result, when all its contenders are warm."""
    return {
        "contenders": [contender.facts for contender in prepared],
        "samples": len(samples),
        "parameter_count": sum(array.size for array in parameters.values()),
        "version": version,
    }


def answers(prepared: list[Prepared], forward: Callable[[], np.ndarray]) -> Callable[..., Any]:
    """Return the function that answers a process's requests."""

    def answer(question: str, *arguments: Any) -> Any:
        if question == "forward":
            return forward()
        number, seconds = arguments
        return prepared[number].turn(seconds)

    return answer


def make_batches(
    contender: Contender,
    samples: list[Any],
    lengths: LengthTable,
    model_config: TransformerConfig,
    corpus: corpora.Config,
    *,
    shares: int = 1,
) -> tuple[BucketBatcher, float]:
    """Make a contender's batcher; return it and the seconds of planning. Devices take ``shares`` of packed batches."""
    name, grouping = contender.batches.split("/")
    begun = time.perf_counter()
    policy = policies.make_policy(name, grouping, lengths, corpus, model_config, shares=shares)
    preparing = time.perf_counter() - begun
    return policies.make_batcher(policy, grouping, samples, lengths, corpus, model_config), preparing


def warmed(prepared: Prepared) -> Prepared:
    """Run two uncounted steps; return the facts that the parent needs."""
    for place in prepared.places[:2]:
        prepared.run(place)
    prepared.facts |= {
        "steps": len(prepared.work),
        "work": prepared.work.tolist(),
        "cost_efficiency": prepared.cost_efficiency,
    }
    return prepared
