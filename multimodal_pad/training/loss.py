"""Losses of outputs and targets: a mean is over what is real, never over the batch size or the padded length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from multimodal_pad.errors import TrainingError

Loss = Callable[[Any, Any, Any], jax.Array]
"""``(outputs, targets, mask) -> scalar``: a mean over the samples, or the positions, that are real.

The mask is that of the samples ``(B,)``, or of the positions of a modality, ``(B, L)`` padded and ``(N,)`` packed;
outputs and targets begin with its axes. Over several devices each computes the mean of its own rows, which then counts
by its number of real samples or positions.
"""


def cross_entropy(outputs: jax.Array, targets: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Average the softmax cross-entropy of logits against class numbers.

    Args:
        outputs: logits ``(B, K)``, or of positions ``(B, L, K)`` or ``(N, K)``; half precision is computed in float32.
        targets: class numbers, int ``(B,)``, ``(B, L)`` or ``(N,)``.
        mask: bool, as the targets; where it is False nothing counts, whatever outputs and targets are.

    Returns:
        The mean over what is real, float32 ``()``; 0 where there is nothing.

    Raises:
        TrainingError: outputs or targets don't fit the mask.

    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 3]), jnp.array([True, False])).round(3))
    1.3860000371932983
    """
    outputs, targets, mask = _checked(outputs, targets, mask)
    if targets.shape != outputs.shape[:-1]:
        raise TrainingError(
            f"got logits of shape {outputs.shape} and class numbers of shape {targets.shape}; class numbers have all "
            "axes but the last, which is of the classes"
        )
    return _mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets), mask)


def binary_cross_entropy(outputs: jax.Array, targets: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Average the sigmoid cross-entropy of K binary tasks at once, as in IEMOCAP.

    Args:
        outputs: logits ``(B, K)``, or of positions ``(B, L, K)`` or ``(N, K)``; half precision is computed in float32.
        targets: 0 or 1, as the outputs, or without the last axis where K is 1.
        mask: bool ``(B,)``, ``(B, L)`` or ``(N,)``; where it is False nothing counts, whatever outputs and targets are.

    Returns:
        The mean over what is real, float32 ``()``; 0 where there is nothing.

    Raises:
        TrainingError: outputs or targets don't fit the mask.

    >>> float(binary_cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 1, 0, 1]]), jnp.array([True])).round(3))
    0.6930000185966492
    """
    outputs, targets, mask = _checked(outputs, targets, mask)
    return _mean(optax.sigmoid_binary_cross_entropy(outputs, _as_many(targets, outputs)), mask)


def l1(outputs: jax.Array, targets: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Average the absolute errors.

    Args:
        outputs: ``(B, K)``, or of positions ``(B, L, K)`` or ``(N, K)``; half precision is computed in float32.
        targets: as the outputs, or without the last axis where K is 1.
        mask: bool ``(B,)``, ``(B, L)`` or ``(N,)``; where it is False nothing counts, whatever outputs and targets are.

    Returns:
        The mean over what is real, float32 ``()``; 0 where there is nothing.

    Raises:
        TrainingError: outputs or targets don't fit the mask.

    >>> float(l1(jnp.array([[1.0], [9.0]]), jnp.array([3.0, 0.0]), jnp.array([True, False])))
    2.0
    """
    outputs, targets, mask = _checked(outputs, targets, mask)
    return _mean(jnp.abs(outputs - _as_many(targets, outputs)), mask)


def _checked(outputs: Any, targets: Any, mask: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Arrays, with zeros where nothing is real.

    Raises:
        TrainingError: outputs or targets are no arrays, or don't begin with the axes of the mask.
    """
    mask = jnp.asarray(mask)
    arrays = []
    for name, given in (("outputs", outputs), ("targets", targets)):
        if not hasattr(given, "shape"):
            raise TrainingError(
                f"got {name} that are a {type(given).__name__}, and this loss takes arrays; give a loss, or a "
                "loss_fn(model, batch), that says what becomes of each"
            )
        array = jnp.asarray(given)
        if array.shape[: mask.ndim] != mask.shape:
            raise TrainingError(
                f"got {name} of shape {array.shape} and a mask of shape {mask.shape}; give {name} for each sample, or "
                "for each position where the targets are of positions"
            )
        arrays.append(jnp.where(mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim)), array, 0))
    outputs, targets = arrays
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), targets, mask


def _as_many(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """The targets in the shape of the outputs."""
    if targets.size != outputs.size:
        raise TrainingError(f"got outputs of shape {outputs.shape} and targets of shape {targets.shape}; give as many")
    return targets.reshape(outputs.shape)


def _mean(losses: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over what is real, of several losses each; 0, with zero gradient, where there is nothing."""
    each = losses.reshape(*mask.shape, -1).mean(axis=-1) if losses.ndim > mask.ndim else losses
    total = jnp.where(mask, each, 0).sum(dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(mask), 1)
