"""The train step: a few flat leaves in, a few flat leaves out, compiled per batch shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from multimodal_pad.errors import TrainingError
from multimodal_pad.lengths import TARGETS
from multimodal_pad.padding import PaddedBatch
from multimodal_pad.training.loss import Loss


class StepMetrics(NamedTuple):
    """What a train step measures: scalars on the device.

    Attributes:
        loss: mean over the real samples.
        grad_norm: global norm of the gradient, before clipping.
        samples: number of real samples.
    """

    loss: jax.Array
    grad_norm: jax.Array
    samples: jax.Array


class TrainStep:
    """The pure functions of training one model, over a flat list of arrays.

    A call of a compiled step costs time per leaf and per level of structure, and an optimizer costs
    compile time per leaf. So the model is split once, its structure is closed over, and all its
    parameters travel as one vector, which is also all that the optimizer sees: elementwise
    transformations and global norms mean the same there, transformations by name or by layer don't.

    Args:
        model: takes ``(features, masks, dropout_key=...)``; it is read, not changed.
        optimizer: an optax transformation of one vector.
        loss: weighted by ``sample_mask``.
        seed: of dropout.

    Attributes:
        leaves: the initial state.

    Raises:
        TrainingError: the model holds state other than parameters, or the batches have no targets.
    """

    def __init__(
        self, model: nnx.Module, optimizer: optax.GradientTransformation, loss: Loss, *, seed: int = 0
    ) -> None:
        self._graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise TrainingError(
                "the model holds state other than parameters, which a step would not update; keep statistics and "
                f"random streams out of it (dropout keys come with each call): {list(nnx.to_flat_state(rest).paths)}"
            )
        self._rest = rest
        self._parameters = jax.eval_shape(lambda: parameters)
        vector, self._unravel = ravel_pytree(parameters)
        state = (vector, optimizer.init(vector), jnp.zeros((), jnp.int32))
        self._optimizer, self._loss, self._seed = optimizer, loss, seed
        leaves, self._structure = jax.tree.flatten(state)
        # Copies, so that donating the state does not take the arrays of the caller's model away.
        self.leaves: list[jax.Array] = [jnp.array(leaf, copy=True) for leaf in leaves]

    def train_step(self, leaves: list[jax.Array], batch: PaddedBatch) -> tuple[list[jax.Array], StepMetrics]:
        """One update; donate ``leaves``."""
        vector, opt_state, count = jax.tree.unflatten(self._structure, leaves)
        key = jax.random.fold_in(jax.random.key(self._seed), count)

        def objective(vector: jax.Array) -> jax.Array:
            outputs = self._merge(vector)(batch.features, batch.masks, dropout_key=key)
            return self._batch_loss(outputs, batch)

        loss, gradient = jax.value_and_grad(objective)(vector)
        updates, opt_state = self._optimizer.update(gradient, opt_state, vector)
        metrics = StepMetrics(loss, jnp.linalg.norm(gradient), batch.sample_mask.sum())
        vector = optax.apply_updates(vector, updates)
        return jax.tree.leaves((vector, opt_state, count + 1)), metrics

    def eval_step(self, leaves: list[jax.Array], batch: PaddedBatch) -> tuple[jax.Array, jax.Array]:
        """Outputs ``(B, K)`` and the loss, without dropout."""
        outputs = self.model(leaves)(batch.features, batch.masks)
        return outputs, self._batch_loss(outputs, batch)

    def model(self, leaves: list[jax.Array] | list[np.ndarray]) -> Any:
        """The model with the parameters in ``leaves``: to evaluate, inspect or save. Compiles nothing."""
        vector = jax.tree.unflatten(self._structure, leaves)[0]
        if isinstance(vector, Tracer):
            return self._merge(vector)
        # Taken apart on the host: on the device every parameter would be a program of its own.
        flat, structure = jax.tree.flatten(self._parameters)
        pieces = np.split(np.asarray(vector), np.cumsum([x.size for x in flat])[:-1])
        arrays = [piece.reshape(x.shape).astype(x.dtype) for piece, x in zip(pieces, flat, strict=True)]
        parameters = jax.tree.unflatten(structure, jax.device_put(arrays))
        return nnx.merge(self._graphdef, parameters, self._rest)

    def _batch_loss(self, outputs: jax.Array, batch: PaddedBatch) -> jax.Array:
        if batch.targets is None:
            raise TrainingError(f"the batches have no targets; give every sample its {TARGETS!r}")
        return self._loss(outputs, batch.targets, batch.sample_mask)

    def _merge(self, vector: jax.Array) -> Any:
        return nnx.merge(self._graphdef, self._unravel(vector), self._rest)
