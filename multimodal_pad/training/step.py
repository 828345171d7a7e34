"""The train step: a tree of arrays by name in, and out, compiled per batch shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.training.loss import Loss
from multimodal_pad.training.state import (
    Arrays,
    TrainState,
    as_keys,
    as_numbers,
    check_kept,
    is_key,
    key_impls,
    rest_of,
    take_apart,
)


class StepMetrics(NamedTuple):
    """What a train step measures: scalars on the device.

    Attributes:
        loss: mean over the real samples.
        grad_norm: global norm of the gradient, before clipping.
        samples: number of real samples, int32.

    >>> metrics = StepMetrics(jnp.float32(0.5), grad_norm=jnp.float32(2.0), samples=jnp.int32(32))
    >>> f"loss {metrics.loss:.2f} over {metrics.samples} samples"  # waits for the device
    'loss 0.50 over 32 samples'
    """

    loss: jax.Array
    grad_norm: jax.Array
    samples: jax.Array


class Evaluated(NamedTuple):
    """What an evaluation step gives, of the whole batch, wherever its rows were computed.

    Attributes:
        outputs: ``(B, K)``.
        targets: those of the batch, ``(B, ...)``.
        sample_mask: bool ``(B,)``; False = the row only fills up the batch.
        loss: mean over the real samples, a scalar.

    >>> outputs, mask = jnp.array([[0.2, 0.8], [0.0, 0.0]]), jnp.array([True, False])
    >>> found = Evaluated(outputs, targets=jnp.array([1, 0]), sample_mask=mask, loss=jnp.float32(0.4))
    >>> np.asarray(found.outputs)[np.asarray(found.sample_mask)].argmax(axis=1).tolist()
    [1]
    """

    outputs: jax.Array
    targets: jax.Array
    sample_mask: jax.Array
    loss: jax.Array


class TrainStep:
    """The pure functions of training one model, over a tree of arrays by name.

    The model is taken apart once: what it is made of is closed over, and its arrays travel as a :class:`TrainState`,
    plain nested dicts by attribute name. The optimizer sees ``state.params``, so masks, labels and rates by name or by
    rank do what optax documents, and gets ``value``, ``grad`` and ``value_fn`` as extra arguments. A train step runs
    the model in training mode (``model.train()``) and keeps what it does to its dropout streams and batch statistics;
    an evaluation step runs it in evaluation mode (``model.eval()``).

    Args:
        model: takes a batch and gives outputs ``(B, K)``; it is read, not changed, and may be in either mode.
        optimizer: an optax transformation of ``state.params``.
        loss: weighted by ``sample_mask``.
        mesh: devices that share the rows of each batch; by default there is one. Each computes the loss of its own
            rows, and their sum is divided by the number of real samples on all of them. So is that of variables that
            are floats, such as batch statistics (give ``nnx.BatchNorm`` the mesh's axis as ``axis_name``, and it
            normalizes by the statistics of all rows); integers must come out alike on all. Every device draws dropout
            of its own, so that only without dropout results don't depend on the number of devices.

    Attributes:
        state: the initial state. A table that donates it takes it away: ``del step.state`` lets go of it.

    Raises:
        TrainingError: the model has no parameters.

    >>> from multimodal_pad.training import cross_entropy
    >>> class Model(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.head = nnx.Linear(3, 2, rngs=rngs)
    ...     def __call__(self, batch):
    ...         return self.head(batch.features["audio"].mean(axis=1))
    >>> step = TrainStep(Model(nnx.Rngs(0)), optax.adam(0.1), cross_entropy)
    >>> jax.tree.map(jnp.shape, step.state.params)
    {'head': {'bias': (2,), 'kernel': (3, 2)}}
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        *,
        mesh: Mesh | None = None,
    ) -> None:
        self._structure, *arrays = take_apart(model)
        self._optimizer, self._loss, self._mesh = optax.with_extra_args_support(optimizer), loss, mesh
        # Of arrays on the host no program is needed to copy them, and of the optimizer's state one for all of it:
        # made eagerly, each shape would be a program of its own.
        params, rest = jax.device_put(arrays)
        opt_state = jax.jit(self._init_optimizer)(params)
        self.state = TrainState(jax.device_put(np.zeros((), np.int32)), params, opt_state, rest)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Update once; donate ``state``.

        Raises:
            TrainingError: the batches have no targets, or the model or the optimizer changes a shape or dtype of the
                state (names it).
        """
        return self._on_mesh(self._train)(state, batch)

    def eval_step(self, state: TrainState, batch: Batch) -> Evaluated:
        """Compute outputs and loss in evaluation mode.

        Raises:
            TrainingError: the batches have no targets.
        """
        return self._on_mesh(self._evaluate)(state, batch)

    def model(self, state: TrainState) -> Any:
        """Make the model of a state, in evaluation mode: to evaluate, inspect or save. Compiles nothing."""
        return self._structure.model(state.params, state.rest)

    def _init_optimizer(self, params: Arrays) -> Any:
        opt_state = self._optimizer.init(params)
        self._impls = key_impls(opt_state)
        return as_numbers(opt_state)

    def _on_mesh(self, local: Callable[..., Any]) -> Callable[..., Any]:
        """The function of the rows on one device as one of the whole batch."""
        if self._mesh is None:
            return local
        # Spelt out per device, since the partitioner would gather the whole batch for a loop over its samples. Sums
        # over the devices are ours too (_combine), so there is no replication for JAX to check.
        specs = PartitionSpec(), PartitionSpec(self._mesh.axis_names)
        return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)

    def _sum(self, tree: Any) -> Any:
        """The sum over all devices."""
        return tree if self._mesh is None else jax.lax.psum(tree, self._mesh.axis_names)

    def _gather(self, x: jax.Array) -> jax.Array:
        """The rows of all devices."""
        return x if self._mesh is None else jax.lax.all_gather(x, self._mesh.axis_names, tiled=True)

    def _train(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        samples, share = self._share(batch)
        rest = self._structure.keys_of(state.rest)
        own = self._keys_of_device(rest)

        def objective(params: Arrays) -> tuple[jax.Array, Arrays]:
            model = self._structure.training(params, own)
            loss = self._batch_loss(model(batch), batch)
            return loss, rest_of(model)

        def measure(params: Arrays) -> tuple[jax.Array, Arrays, Arrays]:
            (loss, after), gradient = jax.value_and_grad(objective, has_aux=True)(params)
            return *self._combine((loss, gradient), share), after

        loss, gradient, after = measure(state.params)
        check_kept({"rest": rest}, {"rest": after})
        updates, opt_state = self._optimizer.update(
            gradient,
            as_keys(state.opt_state, self._impls),
            state.params,
            value=loss,
            grad=gradient,
            value_fn=_of_all(lambda params: self._combine(objective(params)[0], share), measure),
        )
        rest = as_numbers(self._carried(rest, after, share))
        params: Any = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, as_numbers(opt_state), rest)
        check_kept(state._asdict(), new._asdict())
        return new, StepMetrics(loss, optax.tree.norm(gradient), samples)

    def _evaluate(self, state: TrainState, batch: Batch) -> Evaluated:
        outputs = self._structure.evaluating(state.params, state.rest)(batch)
        loss = self._combine(self._batch_loss(outputs, batch), self._share(batch)[1])
        outputs, targets, mask = (self._gather(jnp.asarray(x)) for x in (outputs, batch.targets, batch.sample_mask))
        return Evaluated(outputs, targets, mask, loss)

    def _share(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The real samples on all devices, and the share of them that this device has.

        Raises:
            PaddingError: the batch is laid out for more devices than there are.
        """
        batch.layout.check_alone(batch)
        here = jnp.sum(batch.sample_mask)
        samples = self._sum(here)
        return samples, here / jnp.maximum(samples, 1)

    def _combine(self, means: Any, share: jax.Array) -> Any:
        """The means over all devices, of means over the real samples on each, which may be NaN where there are none."""
        if self._mesh is None:
            return means
        sums = self._sum(jax.tree.map(lambda x: jnp.where(share > 0, share * x, 0), means))
        return jax.tree.map(lambda x, total: total.astype(x.dtype), means, sums)

    def _keys_of_device(self, rest: Arrays) -> Arrays:
        """``rest`` with other random keys on each device."""
        if self._mesh is None:
            return rest
        index = jax.lax.axis_index(self._mesh.axis_names)
        return jax.tree.map(lambda x: _folded(x, index) if is_key(x) else x, rest)

    def _carried(self, before: Arrays, after: Arrays, share: jax.Array) -> Arrays:
        """What all devices made of ``rest``: the means of floats, and random keys as they were for all."""
        if self._mesh is None:
            return after
        was, (now, structure) = jax.tree.leaves(before), jax.tree.flatten(after)
        means = iter(self._combine([x for x in now if jnp.issubdtype(x.dtype, jnp.inexact)], share))
        kept = [
            old if is_key(old) else next(means) if jnp.issubdtype(new.dtype, jnp.inexact) else new
            for old, new in zip(was, now, strict=True)
        ]
        return jax.tree.unflatten(structure, kept)

    def _batch_loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        if batch.targets is None:
            raise TrainingError(f"the batches have no targets; give every sample its {TARGETS!r}")
        return self._loss(outputs, batch.targets, batch.sample_mask)


def _folded(keys: jax.Array, number: jax.Array) -> jax.Array:
    """Keys of any shape, with a number folded into each."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return fold(keys.reshape(-1), number).reshape(keys.shape)


def _of_all(value: Callable[[Arrays], jax.Array], measure: Callable[[Arrays], tuple[Any, ...]]) -> Any:
    """A function of the parameters with the gradient that is measured over all devices.

    JAX's own gradient of a sum over devices would be of what one of them adds to it.
    """
    function = jax.custom_vjp(value)
    function.defvjp(
        lambda params: measure(params)[:2],
        lambda gradient, scale: (jax.tree.map(lambda x: (scale * x).astype(x.dtype), gradient),),
    )
    return function
