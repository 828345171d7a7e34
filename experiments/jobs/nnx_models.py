"""A user's models and losses in Flax NNX; their lines are not counted."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx


def real_mean(x: Any, mask: Any) -> Any:
    """Compute the mean over the real positions of each sample."""
    total = jnp.where(mask[..., None], x, 0).sum(axis=1)
    return total / jnp.maximum(mask.sum(axis=1), 1)[:, None]


class Classifier(nnx.Module):
    """Means of both modalities, and a linear layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.head = nnx.Embed(40, 4, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, batch: Any) -> Any:
        """Return logits ``(B, 2)``."""
        words, frames = self.embed(batch.features["text"]), batch.features["audio"]
        pooled = [real_mean(words, batch.masks["text"]), real_mean(frames, batch.masks["audio"])]
        return self.head(jnp.concatenate(pooled, axis=1))


class FrameClassifier(nnx.Module):
    """A linear layer for each audio frame."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, batch: Any) -> Any:
        """Return logits ``(B, L, 2)``."""
        return self.head(batch.features["audio"])


class TwoTowers(nnx.Module):
    """A vector of each modality."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.head = nnx.Embed(40, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, batch: Any) -> Any:
        """Return two vectors per sample, each ``(B, 4)``."""
        words = real_mean(self.embed(batch.features["text"]), batch.masks["text"])
        return words, self.head(real_mean(batch.features["audio"], batch.masks["audio"]))


def masked_mean(losses: Any, mask: Any) -> Any:
    """Compute the mean over real samples or positions."""
    return jnp.where(mask, losses, 0).sum() / jnp.maximum(mask.sum(), 1)


def classify(model: Any, batch: Any) -> Any:
    """Compute the cross-entropy over real samples."""
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch), batch.targets)
    return masked_mean(losses, batch.sample_mask)


def contrast(model: Any, batch: Any) -> Any:
    """Compute InfoNCE: find each sample's audio among that of the batch."""
    words, frames = model(batch)
    logits = jnp.where(batch.sample_mask[None, :], words @ frames.T, -1e9)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(len(logits)))
    return masked_mean(losses, batch.sample_mask)
