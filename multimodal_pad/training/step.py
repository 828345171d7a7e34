"""The train step: a few flat leaves in, a few flat leaves out, compiled per batch shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh, PartitionSpec

from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.padded import PaddedBatch
from multimodal_pad.lengths.samples import TARGETS
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


class Evaluated(NamedTuple):
    """What an evaluation step gives, of the whole batch, wherever its rows were computed.

    Attributes:
        outputs: ``(B, K)``.
        targets: those of the batch.
        sample_mask: bool ``(B,)``.
        loss: mean over the real samples.
    """

    outputs: jax.Array
    targets: jax.Array
    sample_mask: jax.Array
    loss: jax.Array


class TrainStep:
    """The pure functions of training one model, over a flat list of arrays.

    A call of a compiled step costs time per leaf and per level of structure, and an optimizer costs
    compile time per leaf. So the model is split once, its structure is closed over, and all its
    parameters travel as one vector, which is also all that the optimizer sees: elementwise
    transformations and global norms mean the same there, transformations by name or by layer don't.

    Args:
        model: takes ``(batch, dropout_key=...)``; it is read, not changed.
        optimizer: an optax transformation of one vector.
        loss: weighted by ``sample_mask``.
        seed: of dropout.
        mesh: devices that share the rows of each batch; by default there is one. Each computes the loss of its own
            rows, and their sum is divided by the number of real samples on all of them. Every device draws
            dropout of its own, so that only without dropout results don't depend on the number of devices.

    Attributes:
        leaves: the initial state.

    Raises:
        TrainingError: the model holds state other than parameters, or the batches have no targets.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        *,
        seed: int = 0,
        mesh: Mesh | None = None,
    ) -> None:
        self._graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise TrainingError(
                "the model holds state other than parameters, which a step would not update; keep statistics and "
                f"random streams out of it (dropout keys come with each call): {list(nnx.to_flat_state(rest).paths)}"
            )
        self._rest = rest
        arrays, self._parameter_structure = jax.tree.flatten(parameters)
        self._parameters = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
        # Put together on the host: on the device every shape would be a program of its own, and so would the whole.
        dtype = jnp.result_type(*(x.dtype for x in arrays))
        vector = jnp.asarray(np.concatenate([np.ravel(x).astype(dtype) for x in arrays]))
        state = (vector, optimizer.init(vector), jnp.zeros((), jnp.int32))
        self._optimizer, self._loss, self._seed, self._mesh = optimizer, loss, seed, mesh
        leaves, self._structure = jax.tree.flatten(state)
        # Copies, so that donating the state does not take the arrays of the caller's model away.
        self.leaves: list[jax.Array] = [jnp.array(leaf, copy=True) for leaf in leaves]

    def train_step(self, leaves: list[jax.Array], batch: PaddedBatch) -> tuple[list[jax.Array], StepMetrics]:
        """One update; donate ``leaves``."""
        return self._on_mesh(self._train)(leaves, batch)

    def eval_step(self, leaves: list[jax.Array], batch: PaddedBatch) -> Evaluated:
        """Outputs and loss, without dropout."""
        return self._on_mesh(self._evaluate)(leaves, batch)

    def _on_mesh(self, local: Callable[..., Any]) -> Callable[..., Any]:
        """The function of the rows on one device as one of the whole batch."""
        if self._mesh is None:
            return local
        # Spelt out per device, since the partitioner would gather the whole batch for a loop over its samples. Sums
        # over the devices are ours too (_sum), so there is no replication for JAX to check.
        specs = PartitionSpec(), PartitionSpec(self._mesh.axis_names)
        return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)

    def _sum(self, x: jax.Array) -> jax.Array:
        """The sum over all devices."""
        return x if self._mesh is None else jax.lax.psum(x, self._mesh.axis_names)

    def _gather(self, x: jax.Array) -> jax.Array:
        """The rows of all devices."""
        return x if self._mesh is None else jax.lax.all_gather(x, self._mesh.axis_names, tiled=True)

    def _train(self, leaves: list[jax.Array], batch: PaddedBatch) -> tuple[list[jax.Array], StepMetrics]:
        vector, opt_state, count = jax.tree.unflatten(self._structure, leaves)
        key = jax.random.fold_in(jax.random.key(self._seed), count)
        if self._mesh is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(self._mesh.axis_names))
        samples, share = self._share(batch)

        def objective(vector: jax.Array) -> jax.Array:
            outputs = self._merge(vector)(batch, dropout_key=key)
            return self._batch_loss(outputs, batch)

        loss, gradient = jax.value_and_grad(objective)(vector)
        loss, gradient = self._combine(loss, share), self._combine(gradient, share)
        updates, opt_state = self._optimizer.update(gradient, opt_state, vector)
        metrics = StepMetrics(loss, jnp.linalg.norm(gradient), samples)
        vector = optax.apply_updates(vector, updates)
        return jax.tree.leaves((vector, opt_state, count + 1)), metrics

    def _evaluate(self, leaves: list[jax.Array], batch: PaddedBatch) -> Evaluated:
        outputs = self.model(leaves)(batch)
        loss = self._combine(self._batch_loss(outputs, batch), self._share(batch)[1])
        outputs, targets, mask = (self._gather(jnp.asarray(x)) for x in (outputs, batch.targets, batch.sample_mask))
        return Evaluated(outputs, targets, mask, loss)

    def _share(self, batch: PaddedBatch) -> tuple[jax.Array, jax.Array]:
        """The real samples on all devices, and the share of them that this device has."""
        here = jnp.sum(batch.sample_mask)
        samples = self._sum(here)
        return samples, here / jnp.maximum(samples, 1)

    def _combine(self, mean: jax.Array, share: jax.Array) -> jax.Array:
        """The mean over all devices, of means over the real samples on each, which may be NaN where there are none."""
        return mean if self._mesh is None else self._sum(jnp.where(share > 0, share * mean, 0))

    def model(self, leaves: Sequence[jax.Array | np.ndarray]) -> Any:
        """The model with the parameters in ``leaves``: to evaluate, inspect or save. Compiles nothing."""
        return self._merge(jax.tree.unflatten(self._structure, leaves)[0])

    def _batch_loss(self, outputs: jax.Array, batch: PaddedBatch) -> jax.Array:
        if batch.targets is None:
            raise TrainingError(f"the batches have no targets; give every sample its {TARGETS!r}")
        return self._loss(outputs, batch.targets, batch.sample_mask)

    def _merge(self, vector: jax.Array | np.ndarray) -> Any:
        """The model with the parameters in a vector, which is taken apart on the host unless it is traced."""
        vector = vector if isinstance(vector, Tracer) else np.asarray(vector)
        pieces = (jnp if isinstance(vector, Tracer) else np).split(
            vector, np.cumsum([x.size for x in self._parameters])[:-1]
        )
        arrays = [piece.reshape(x.shape).astype(x.dtype) for piece, x in zip(pieces, self._parameters, strict=True)]
        if not isinstance(vector, Tracer):
            arrays = jax.device_put(arrays)
        return nnx.merge(self._graphdef, jax.tree.unflatten(self._parameter_structure, arrays), self._rest)
