"""A user's model in Equinox; its lines are not counted."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.jobs.nnx_models import real_mean


class Classifier(eqx.Module):
    """Means of both modalities, and a linear layer."""

    table: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        self.table = 0.1 * jax.random.normal(key, (40, 4))
        self.head = eqx.nn.Linear(8, 2, key=key)

    def __call__(self, batch: Any) -> Any:
        """Return logits ``(B, 2)``."""
        words = self.table[batch.features["text"]]
        pooled = [real_mean(words, batch.masks["text"]), real_mean(batch.features["audio"], batch.masks["audio"])]
        return jax.vmap(self.head)(jnp.concatenate(pooled, axis=1))
