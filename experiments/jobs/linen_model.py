"""A user's model in Flax Linen; its lines are not counted."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen

from experiments.jobs.nnx_models import real_mean


class Classifier(linen.Module):
    """Means of both modalities, and a linear layer."""

    @linen.compact
    def __call__(self, batch: Any) -> Any:
        """Return logits ``(B, 2)``."""
        words = linen.Embed(40, 4)(batch.features["text"])
        pooled = [real_mean(words, batch.masks["text"]), real_mean(batch.features["audio"], batch.masks["audio"])]
        return linen.Dense(2)(jnp.concatenate(pooled, axis=1))
