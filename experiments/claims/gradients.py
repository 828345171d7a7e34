"""Claim 5.1 on gradients: is their noise less with less padding?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.claims.claim import Claim, Setting
from experiments.compare_measure import initial_model
from multimodal_pad import PaddedBatch
from multimodal_pad.training import cross_entropy

BATCHES = 12
SAME = 1e-4
"""Relative difference of two gradients that counts as rounding."""


def gradient_stability(setting: Setting, tick: Callable[[], None]) -> Claim:
    """5.1: steadier gradients."""
    claim = Claim(
        "5.1, gradients",
        "Gradient stability: less noise from less padding, so better convergence",
        f"The gradient of the untrained model on {BATCHES} random batches, for {setting.seeds} seeds of order and "
        "parameters, each batch under fixed and under exact padding: by the masked model, and by the same model "
        "without "
        "masks, which takes padding for data. Per seed: how far the two gradients of a batch are apart, and the "
        "noise, which is "
        "the variance over batches divided by the square of the mean, of exact over fixed padding.",
        "Holds if the noise under exact padding is lower for masked and unmasked models; in part if for one of them.",
    )
    apart: dict[str, list[float]] = {"masked": [], "unmasked": []}
    noise: dict[str, list[float]] = {"masked": [], "unmasked": []}
    norms: dict[str, list[float]] = {"masked": [], "unmasked": []}
    gradient_of = _gradient_function(setting)
    for seed in range(setting.seeds):
        batcher = setting.batcher("fixed/random", seed)
        _, parameters = nnx.split(initial_model(setting.model_config, seed))
        count = min(BATCHES, len(batcher.schedule(0)))
        found: dict[str, list[np.ndarray]] = {"masked": [], "unmasked fixed": [], "unmasked exact": []}
        for step in range(count):
            batch = batcher.batch(0, step)
            for name, masks in (
                ("masked", batch.masks),
                ("unmasked fixed", {m: np.ones_like(mask) for m, mask in batch.masks.items()}),
                # Up to the longest sample of the batch everything is taken for real, beyond it nothing: what a model
                # without masks makes of a batch that ends there.
                ("unmasked exact", {m: np.broadcast_to(mask.any(0), mask.shape) for m, mask in batch.masks.items()}),
            ):
                found[name].append(np.asarray(gradient_of(parameters, batch._replace(masks=masks))))
            tick()
        exact = _masked_exact(setting, gradient_of, parameters, seed)
        pairs = {
            "masked": (found["masked"], exact + found["masked"][len(exact) :]),
            "unmasked": (found["unmasked fixed"], found["unmasked exact"]),
        }
        for name, (fixed, own) in pairs.items():
            compared = len(exact) if name == "masked" else count
            apart[name].append(float(np.median([_relative(a, b) for a, b in zip(fixed[:compared], own, strict=False)])))
            noise[name].append(_noise(own) / _noise(fixed))
            norms[name].append(_norm_variance(own) / _norm_variance(fixed))
    for name in ("masked", "unmasked"):
        claim.add(f"gradients apart, {name}", apart[name], ".1e" if name == "masked" else ".0%")
        claim.add(f"noise, exact / fixed, {name}", noise[name], ".3f")
        claim.add(f"relative variance of the norm, exact / fixed, {name}", norms[name], ".3f")
    lower = {name: float(np.median(noise[name])) < 0.99 for name in noise}
    same = max(apart["masked"]) <= SAME
    return claim.conclude(
        all(lower.values()),
        any(lower.values()),
        (
            "A masked model's gradient does not depend on padding at all "
            f"({claim.text('gradients apart, masked')} apart, which is rounding), so there is no noise to reduce. "
            if same
            else "A masked model's gradient was changed by padding, which it should not be. "
        )
        + f"A model without masks sees another batch ({claim.text('gradients apart, unmasked')} apart); its noise "
        f"under exact padding is {claim.text('noise, exact / fixed, unmasked')} times that under fixed padding.",
    )


def _gradient_function(setting: Setting) -> Callable[[Any, PaddedBatch], jax.Array]:
    graphdef, _ = nnx.split(initial_model(setting.model_config, 0))

    @jax.jit
    def gradient_of(parameters: Any, batch: PaddedBatch) -> jax.Array:
        def loss(parameters: Any) -> jax.Array:
            outputs = nnx.merge(graphdef, parameters)(batch.features, batch.masks)
            return cross_entropy(outputs, batch.targets, batch.sample_mask)  # pyright: ignore[reportArgumentType]

        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(loss)(parameters))])

    return gradient_of


def _masked_exact(setting: Setting, gradient_of: Callable[..., Any], parameters: Any, seed: int) -> list[np.ndarray]:
    """The first batch at its own maxima: one per seed, since each is a program of its own."""
    batch = setting.batcher("exact/random", seed).batch(0, 0)
    return [np.asarray(gradient_of(parameters, batch))]


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def _noise(gradients: list[np.ndarray]) -> float:
    """Trace of the covariance over the squared norm of the mean."""
    stacked = np.stack(gradients)
    mean = stacked.mean(axis=0)
    return float(((stacked - mean) ** 2).sum() / (len(stacked) - 1) / (mean**2).sum())


def _norm_variance(gradients: list[np.ndarray]) -> float:
    """The variance of the norm over the square of its mean."""
    norms = np.array([np.linalg.norm(gradient) for gradient in gradients])
    return float(norms.var(ddof=1) / norms.mean() ** 2)
