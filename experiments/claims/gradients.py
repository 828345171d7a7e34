"""Claim 5.1 on gradients: is their noise less with less padding?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.claims.claim import Claim, Setting, judge
from experiments.lib.measure import initial_model
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
        f"Gradients of the untrained model, {setting.seeds} seeds of order and parameters. The masked model: how far "
        "the gradients of one random batch per seed are apart under fixed and under exact padding. The same model "
        f"without masks, which takes padding for data: the same for {BATCHES} random batches per seed, and their "
        "noise, which is the variance over batches divided by the square of the mean, under exact over fixed "
        "padding. The variance of the norm over these batches, divided by the square of its mean: masked (under fixed "
        "padding, since padding changes nothing), and without masks under both.",
        f"Holds if padding changes the masked model's gradients (by more than {SAME:g}) and the noise of the model "
        "without masks is lower under exact padding; in part if the latter alone.",
    )
    found: dict[str, list[float]] = {"masked": [], "unmasked": [], "noise": []}
    norms: dict[str, list[float]] = {"masked": [], "no masks, fixed": [], "no masks, exact": []}
    gradient_of = _gradient_function(setting)
    for seed in range(setting.seeds):
        fixed, exact = (setting.batcher(policy, seed) for policy in ("fixed/random", "exact/random"))
        _, parameters = nnx.split(initial_model(setting.model_config, seed))
        found["masked"].append(_relative(*(gradient_of(parameters, batcher.batch(0, 0)) for batcher in (fixed, exact))))
        with_masks, at_fixed, at_exact = [], [], []
        for step in range(min(BATCHES, len(fixed.schedule(0)))):
            batch = fixed.batch(0, step)
            everything = {m: np.full_like(n, batch.features[m].shape[1]) for m, n in batch.lengths.items()}
            # Up to the longest sample of the batch everything is taken for real, beyond it nothing: what a model
            # without masks makes of a batch that ends there.
            to_longest = {m: np.full_like(n, max(1, n.max())) for m, n in batch.lengths.items()}
            with_masks.append(gradient_of(parameters, batch))
            at_fixed.append(gradient_of(parameters, batch._replace(lengths=everything)))
            at_exact.append(gradient_of(parameters, batch._replace(lengths=to_longest)))
            tick()
        found["unmasked"].append(float(np.median(list(map(_relative, at_fixed, at_exact)))))
        found["noise"].append(_noise(at_exact) / _noise(at_fixed))
        for name, gradients in zip(norms, (with_masks, at_fixed, at_exact), strict=True):
            norms[name].append(_norm_variance(gradients))
    masked = claim.add("gradients apart, masked", found["masked"], ".1e")
    claim.add("gradients apart, unmasked", found["unmasked"], ".0%")
    noise = claim.add("noise, exact / fixed, unmasked", found["noise"], ".3f")
    for name, variances in norms.items():
        claim.add(f"relative variance of the norm, {name}", variances, ".3f")
    lower, changed = float(np.median(noise)) < 1, bool(masked.max() > SAME)
    return claim.conclude(
        judge(lower and changed, lower),
        (
            f"Padding changed the masked model's gradient ({claim.text('gradients apart, masked')}), as it should not. "
            if changed
            else "A masked model's gradient does not depend on padding at all "
            f"({claim.text('gradients apart, masked')} apart, which is rounding), so there is no noise to reduce. "
        )
        + f"A model without masks sees another batch ({claim.text('gradients apart, unmasked')} apart); its noise "
        f"under exact padding is {claim.text('noise, exact / fixed, unmasked')} times that under fixed padding. The "
        "norm of the gradient varies over batches by "
        + ", ".join(f"{claim.text(f'relative variance of the norm, {name}')} ({name})" for name in norms)
        + ".",
    )


def _gradient_function(setting: Setting) -> Callable[[Any, PaddedBatch], np.ndarray]:
    graphdef, _ = nnx.split(initial_model(setting.model_config, 0))

    @jax.jit
    def compiled(parameters: Any, batch: PaddedBatch) -> jax.Array:
        def loss(parameters: Any) -> jax.Array:
            outputs = nnx.merge(graphdef, parameters)(batch)
            return cross_entropy(outputs, batch.targets, batch.sample_mask)  # pyright: ignore[reportArgumentType]

        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(loss)(parameters))])

    return lambda parameters, batch: np.asarray(compiled(parameters, batch))


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def _noise(gradients: list[np.ndarray]) -> float:
    """Trace of the covariance over the squared norm of the mean."""
    stacked = np.stack(gradients)
    mean = stacked.mean(axis=0)
    return float(((stacked - mean) ** 2).sum() / (len(stacked) - 1) / (mean**2).sum())


def _norm_variance(gradients: list[np.ndarray]) -> float:
    """Return the variance of the norm over the square of its mean."""
    norms = np.array([np.linalg.norm(gradient) for gradient in gradients])
    return float(norms.var(ddof=1) / norms.mean() ** 2)
