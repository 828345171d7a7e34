"""Policies by their name on the command line, such as ``planned_8/length``, and their batches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax

from experiments.lib.corpora import Config
from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    Policy,
    pad_samples,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.compiling import StepTable, plan_run
from multimodal_pad.models import TransformerConfig
from multimodal_pad.scheduling.groupings import GROUPINGS
from multimodal_pad.training import TrainStep

POLICIES: dict[str, Callable[[LengthTable], Policy]] = {
    "fixed": Fixed.longest,
    "exact": lambda lengths: Exact(lengths.modalities),
    "powers_of_two": lambda lengths: Ladder.powers_of_two(lengths, smallest=8),
    "multiples_of_64": lambda lengths: Ladder.multiples_of(lengths, 64),
    "quantiles_4": lambda lengths: Ladder.quantiles(lengths, 4),
}


def parse_policy(spec: str) -> tuple[str, str]:
    """Split ``"fixed"`` or ``"powers_of_two/length"`` into a policy's name and the grouping.

    >>> parse_policy("exact"), parse_policy("powers_of_two/length")
    (('exact', 'random'), ('powers_of_two', 'length'))
    >>> parse_policy("packed")
    ('packed', 'balanced')
    """
    if spec == "packed":
        return spec, "balanced"
    name, _, grouping = spec.partition("/")
    known = name in POLICIES or re.fullmatch(r"planned_(auto|[1-9]\d*)", name)
    if known and (grouping or "random") in GROUPINGS:
        return name, grouping or "random"
    raise PaddingError(
        f"got the policy {spec!r}; choose one of {[*POLICIES, 'planned_8', 'planned_auto']} (8 or any other number), "
        "with /random (the default) or /length behind it, or packed"
    )


def make_batcher(
    policy: Policy,
    grouping: str,
    samples: list[dict[str, Any]],
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
) -> BucketBatcher:
    """Make the batcher of a policy."""
    return BucketBatcher(
        samples,
        policy,
        batch_size=config.batch_size,
        lengths=lengths,
        grouping=policy.grouping or grouping,
        seed=config.seed,
        cost=policy.cost or model_config.cost,  # in seconds where the plan is for a device
    )


def make_policy(
    name: str,
    grouping: str,
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
    *,
    shares: int = 1,
) -> Policy:
    """Make the policy of a name; :func:`plan_for_device` makes ``planned_auto``.

    ``shares`` is the number of devices that take a part of each packed batch.
    """
    if name in POLICIES:
        return POLICIES[name](lengths)
    if name == "packed":
        options = {"cost": model_config.cost, "seed": config.seed, "tile_pairs": jax.default_backend() != "cpu"}
        return Packed(plan_packing(lengths, batch_size=config.batch_size, shares=shares, **options))
    plan = plan_shapes(
        lengths,
        max_shapes=int(name.removeprefix("planned_")),
        cost=model_config.cost,
        grouping=grouping,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return Planned(plan)


def plan_for_device(
    table: StepTable,
    step: TrainStep,
    grouping: str,
    samples: list[dict[str, Any]],
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
) -> Planned:
    """Make the policy ``planned_auto``: as many shapes as pay on this device; its programs stay in the table."""
    plan = plan_run(
        table,
        lengths,
        step.state,
        pad_samples(samples[:1], modalities=lengths.modalities),
        epochs=config.epochs,
        cost=model_config.cost,
        grouping=grouping,
        batch_size=config.batch_size,
        seed=config.seed,
        progress=False,
    )
    return Planned(plan)
