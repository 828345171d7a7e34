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
        outputs: logits ``(B, K)``, or of positions ``(B, L, K)`` or ``(N, K)``, K at least 2; half precision is
            computed in float32.
        targets: class numbers from 0 to K - 1, int (or bool: 0 and 1) ``(B,)``, ``(B, L)`` or ``(N,)``. No number
            stands for "ignore" (as -100 does elsewhere): what is to be left out is False in the mask.
        mask: bool, as the targets; where it is False nothing counts, whatever outputs and targets are.

    Returns:
        The mean over what is real, float32 ``()``; 0 where there is nothing, and NaN where a class number that counts
        is out of range.

    Raises:
        TrainingError: outputs or targets don't fit the mask, targets that are no class numbers (such as floats or
            one-hot rows), or a single output.

    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 3]), jnp.array([True, False])).round(3))
    1.3860000371932983
    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 4]), jnp.array([True, True])))
    nan
    """
    _check_class_numbers(outputs, targets)
    outputs, targets, mask = _checked(outputs, targets, mask)
    if targets.shape != outputs.shape[:-1]:
        raise TrainingError(
            f"got logits of shape {outputs.shape} and class numbers of shape {targets.shape}; class numbers have all "
            "axes but the last, which is of the classes"
        )
    count = outputs.shape[-1]
    inside = (targets >= 0) & (targets < count)
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.where(inside, targets, 0))
    return _mean(jnp.where(inside, losses, jnp.nan), mask)  # JAX's indices would wrap: -1 is the last class


def binary_cross_entropy(outputs: jax.Array, targets: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Average the sigmoid cross-entropy of K binary tasks at once, as in IEMOCAP.

    Args:
        outputs: logits ``(B, K)``, or of positions ``(B, L, K)`` or ``(N, K)``; half precision is computed in float32.
        targets: 0 or 1, int, bool or float (a probability), as the outputs, or without the last axis where K is 1.
        mask: bool ``(B,)``, ``(B, L)`` or ``(N,)``; where it is False nothing counts, whatever outputs and targets are.

    Returns:
        The mean over what is real, float32 ``()``; 0 where there is nothing, and NaN where a target that counts is not
        from 0 to 1.

    Raises:
        TrainingError: outputs or targets don't fit the mask.

    >>> float(binary_cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 1, 0, 1]]), jnp.array([True])).round(3))
    0.6930000185966492
    """
    outputs, targets, mask = _checked(outputs, targets, mask)
    targets = _as_many(targets, outputs).astype(outputs.dtype)
    inside = (targets >= 0) & (targets <= 1)
    return _mean(jnp.where(inside, optax.sigmoid_binary_cross_entropy(outputs, targets), jnp.nan), mask)


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


def _check_class_numbers(outputs: Any, targets: Any) -> None:
    """Raise a TrainingError that says what to hand in where targets are no class numbers for these outputs."""
    if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in (outputs, targets)):
        return  # _checked raises for it
    got = f"got targets of dtype {targets.dtype} and shape {targets.shape} for outputs of shape {outputs.shape}"
    takes = f"cross_entropy takes class numbers, an int for each of {outputs.shape[:-1]}"
    if outputs.ndim and outputs.shape[-1] == 1 and targets.shape in (outputs.shape, outputs.shape[:-1]):
        raise TrainingError(
            f"{got}, and the cross-entropy of a single output is always 0; give loss=l1 for regression, "
            "loss=binary_cross_entropy for one yes or no, or a model with an output for each class"
        )
    if outputs.ndim and targets.shape == outputs.shape:
        raise TrainingError(
            f"{got}; {takes}. Of one-hot rows give the number, int(np.argmax(row)), and where several labels can hold "
            "at once loss=binary_cross_entropy"
        )
    if targets.shape == (*outputs.shape[:-1], 1):
        raise TrainingError(f"{got}; {takes}. Give a number and no array of one: int(label[0]), or labels[..., 0]")
    if not (jnp.issubdtype(targets.dtype, jnp.integer) or targets.dtype == bool):
        raise TrainingError(
            f"{got}; {takes}. Give np.int32(label), or where targets are values to be met loss=l1 and a model with one "
            "output for each"
        )


def _checked(outputs: Any, targets: Any, mask: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Convert outputs, targets and mask to arrays, with zeros where nothing is real.

    Raises:
        TrainingError: outputs or targets are no arrays, or don't begin with the axes of the mask.
    """
    mask = jnp.asarray(mask)
    arrays = []
    for name, given in (("outputs", outputs), ("targets", targets)):
        if not hasattr(given, "shape"):
            raise TrainingError(
                f"got {name} that are a {type(given).__name__}, and this loss takes arrays; give a loss, or a "
                "loss_fn(model, batch), that combines the parts"
            )
        array = jnp.asarray(given)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TrainingError(f"got {name} of dtype {array.dtype}, and this loss takes real numbers; give those")
        if array.shape[: mask.ndim] != mask.shape:
            raise TrainingError(
                f"got {name} of shape {array.shape} and a mask of shape {mask.shape}; give {name} for each sample, or "
                "for each position where the targets are of positions"
            )
        arrays.append(jnp.where(mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim)), array, 0))
    outputs, targets = arrays
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), targets, mask


def _as_many(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Return the targets in the shape of the outputs."""
    if targets.size != outputs.size:
        each = f"{outputs.shape[-1]} targets" if outputs.shape[-1:] != (1,) else "one target"
        raise TrainingError(
            f"got outputs of shape {outputs.shape} and targets of dtype {targets.dtype} and shape {targets.shape}; "
            f"give {each} for each of {outputs.shape[:-1]} (for class numbers there is loss=cross_entropy), or a model "
            "with as many outputs as there are targets"
        )
    return targets.reshape(outputs.shape)


def _mean(losses: jax.Array, mask: jax.Array) -> jax.Array:
    """Average over what is real, several losses each; 0, with zero gradient, where there is nothing."""
    each = losses.reshape(*mask.shape, -1).mean(axis=-1) if losses.ndim > mask.ndim else losses
    total = jnp.where(mask, each, 0).sum(dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(mask), 1)
