"""Losses, weighted by ``sample_mask``: a mean is over real samples, never over the batch size."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

Loss = Callable[[jax.Array, ArrayLike, ArrayLike], jax.Array]
"""``(outputs (B, K), targets (B, ...), sample_mask (B,)) -> scalar``: a mean over the real samples.

Over several devices each computes the mean of its own rows, which then counts by its number of real samples.
"""


def cross_entropy(outputs: jax.Array, targets: ArrayLike, sample_mask: ArrayLike) -> jax.Array:
    """Average the softmax cross-entropy of logits against class numbers.

    Args:
        outputs: logits ``(B, K)``.
        targets: class numbers, int ``(B,)``.
        sample_mask: bool ``(B,)``; rows where it is False count for nothing.

    Returns:
        The mean over the real samples, float32 ``()``; 0 where there are none.

    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 3]), jnp.array([True, False])).round(3))
    1.3860000371932983
    """
    targets = jnp.where(sample_mask, targets, 0)
    return _mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets), sample_mask)


def binary_cross_entropy(outputs: jax.Array, targets: ArrayLike, sample_mask: ArrayLike) -> jax.Array:
    """Average the sigmoid cross-entropy of K binary tasks at once, as in IEMOCAP.

    Args:
        outputs: logits ``(B, K)``.
        targets: 0 or 1, ``(B, K)``.
        sample_mask: bool ``(B,)``; rows where it is False count for nothing.

    Returns:
        The mean over the real samples, float32 ``()``; 0 where there are none.

    >>> float(binary_cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 1, 0, 1]]), jnp.array([True])).round(3))
    0.6930000185966492
    """
    targets = jnp.where(jnp.asarray(sample_mask)[:, None], jnp.asarray(targets), 0)
    return _mean(optax.sigmoid_binary_cross_entropy(outputs, targets).mean(axis=1), sample_mask)


def l1(outputs: jax.Array, targets: ArrayLike, sample_mask: ArrayLike) -> jax.Array:
    """Average the absolute errors.

    Args:
        outputs: ``(B, K)``.
        targets: ``(B, K)``, or ``(B,)`` where K is 1.
        sample_mask: bool ``(B,)``; rows where it is False count for nothing.

    Returns:
        The mean over the real samples, float32 ``()``; 0 where there are none.

    >>> float(l1(jnp.array([[1.0], [9.0]]), jnp.array([3.0, 0.0]), jnp.array([True, False])))
    2.0
    """
    real = jnp.asarray(sample_mask)[:, None]
    errors = jnp.abs(outputs - jnp.where(real, jnp.asarray(targets).reshape(outputs.shape), 0))
    return _mean(errors.mean(axis=1), sample_mask)


def _mean(losses: jax.Array, sample_mask: ArrayLike) -> jax.Array:
    """Mean over real rows; 0, with zero gradient, where there are none."""
    total = jnp.where(sample_mask, losses, 0).sum(dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(sample_mask), 1)
