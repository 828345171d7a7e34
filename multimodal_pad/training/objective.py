"""The objective of a step: a loss of model and batch, the divisor of its mean, and metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import BatchOfLayout
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS
from multimodal_pad.training.loss import Loss, cross_entropy

LossFn = Callable[..., Any]
"""``(model, batch) -> loss``, or ``-> (loss, metrics)`` with a dict of scalars, all means over what is real in the
batch; where it has a parameter named ``rngs``, that gets an ``nnx.Rngs``."""

WeightFn = Callable[[BatchOfLayout], Any]
"""``batch -> scalar``: the divisor of a loss's mean, such as the number of real positions of a batch."""


class Objective:
    """A loss of outputs and targets, or of model and batch, as one function of model and batch.

    Args:
        loss: of outputs, targets and mask; :func:`~multimodal_pad.training.cross_entropy` where none is given.
        loss_fn: of model and batch, in place of it.
        weight_fn: the divisor of the mean; by default the number of real samples, or with ``loss`` and targets of
            positions that of real positions.

    Raises:
        TrainingError: both are given, or a ``loss_fn`` that doesn't take model and batch.

    >>> objective = Objective(loss_fn=lambda model, batch: (model(batch), {"one": 1}))
    >>> loss, metrics = objective(lambda batch: 0.5 * batch, 3.0, None)
    >>> float(loss), float(metrics["one"])
    (1.5, 1.0)
    """

    def __init__(
        self, loss: Loss | None = None, loss_fn: LossFn | None = None, weight_fn: WeightFn | None = None
    ) -> None:
        if loss is not None and loss_fn is not None:
            raise TrainingError(
                "got loss and loss_fn; give one of them: loss(outputs, targets, mask), or loss_fn(model, batch), which "
                "calls the model itself"
            )
        self.loss = None if loss_fn is not None else loss or cross_entropy
        self._loss_fn, self._weight_fn = loss_fn, weight_fn
        self.takes_rngs = loss_fn is not None and _takes_rngs(loss_fn)

    def __call__(self, model: Any, batch: BatchOfLayout, key: jax.Array | None) -> tuple[jax.Array, dict[str, Any]]:
        """Return the loss, a scalar of at least float32, and metrics, scalars.

        Args:
            model: in either mode.
            batch: the rows of one device.
            key: of random numbers, where :attr:`takes_rngs`.

        Raises:
            TrainingError: the loss is no scalar, metrics are no scalars by name, or there are no targets to take.
        """
        if self._loss_fn is None:
            return self.of_outputs(model(batch), batch), {}
        # Made here, since NNX lets random streams advance only in the transformation that they were made in.
        given = {"rngs": nnx.Rngs(key)} if self.takes_rngs else {}
        found = self._loss_fn(model, batch, **given)
        loss, metrics = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
        return _checked_loss(loss, "loss_fn"), _checked_metrics(metrics)

    def of_outputs(self, outputs: Any, batch: BatchOfLayout) -> jax.Array:
        """Return the loss of outputs that exist already; with ``loss`` only."""
        if self.loss is None:
            raise TrainingError("got a loss_fn, which calls the model itself; give a loss of outputs and targets")
        return _checked_loss(self.loss(outputs, *wanted(batch)), "loss")

    def weight(self, batch: BatchOfLayout) -> jax.Array:
        """Return the divisor of the mean, float32.

        Raises:
            TrainingError: ``weight_fn`` gives no scalar.
        """
        if self._weight_fn is not None:
            weight = self._weight_fn(batch)
            if jnp.shape(weight) != ():
                raise TrainingError(
                    f"weight_fn gives {_describe(weight)}; it is to give one number, what the loss's mean was divided "
                    "by"
                )
            return jnp.asarray(weight, jnp.float32)
        mask = wanted(batch)[1] if self.loss is not None else batch.sample_mask
        return jnp.sum(jnp.asarray(mask), dtype=jnp.float32)


def wanted(batch: BatchOfLayout) -> tuple[Any, Any]:
    """Return the targets of a batch, an array or a dict, and the mask of what has one: of samples, or of positions.

    Raises:
        TrainingError: there are none, or those of several modalities' positions.
    """
    if batch.targets is not None:
        return batch.targets, batch.sample_mask
    found = batch.position_targets or {}
    if len(found) != 1:
        raise TrainingError(
            f"the batches have targets for the positions of {sorted(found)}; give loss_fn(model, batch), which "
            "combines them"
            if found
            else f"the batches have no targets; give every sample its {TARGETS!r} or {POSITION_TARGETS!r}, or a "
            "loss_fn(model, batch) that needs none, without metrics="
        )
    ((name, targets),) = found.items()
    return targets, batch.masks[name]


def _takes_rngs(loss_fn: LossFn) -> bool:
    """Return whether it has a parameter ``rngs``.

    Raises:
        TrainingError: it doesn't take model and batch.
    """
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # built-in functions have no signature
        return False
    takes = "rngs" in signature.parameters
    try:
        signature.bind(None, None, **({"rngs": None} if takes else {}))
    except TypeError as error:
        raise TrainingError(
            f"got a loss_fn that takes {signature} ({error}); it is to take (model, batch), and rngs where it needs "
            "random numbers. For a loss of outputs, targets and mask there is loss="
        ) from None
    return takes


def _checked_loss(loss: Any, name: str) -> jax.Array:
    if not hasattr(loss, "dtype") and not isinstance(loss, float | int):
        raise TrainingError(
            f"{name} gives {_describe(loss)}; it is to give a loss, or loss_fn a loss and a dict of metrics"
        )
    loss = jnp.asarray(loss)
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TrainingError(
            f"{name} gives a loss of shape {loss.shape} and dtype {loss.dtype}; it is to be one float: the mean over "
            "what is real in the batch"
        )
    return loss.astype(jnp.promote_types(loss.dtype, jnp.float32))


def _checked_metrics(metrics: Any) -> dict[str, jax.Array]:
    if not isinstance(metrics, dict):
        raise TrainingError(
            f"loss_fn gives a loss and {_describe(metrics)}; it is to give (loss, metrics), a dict of scalars by name"
        )
    for name, value in metrics.items():
        if not isinstance(name, str) or name == "loss" or jnp.ndim(value) != 0:
            raise TrainingError(
                f"loss_fn gives the metric {name!r}, {_describe(value)}; metrics are scalars by name, and the name "
                "'loss' is the loss's own"
            )
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def _describe(value: Any) -> str:
    return f"an array of shape {value.shape}" if hasattr(value, "shape") else f"a {type(value).__name__}"
