"""The train step: a tree of arrays by name in, and out, compiled per batch shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from multimodal_pad.errors import TrainingError
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.training.loss import Loss
from multimodal_pad.training.measured import Evaluated, StepMetrics
from multimodal_pad.training.objective import LossFn, Objective, WeightFn, wanted
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

EvalParams = Callable[[Any, Arrays], Arrays]
"""``(opt_state, params) -> params``: the parameters to evaluate of a state that is being trained."""


class TrainStep:
    """The pure functions of training one model, over a tree of arrays by name.

    The model is taken apart once: its structure is closed over, and its arrays travel as a :class:`TrainState`,
    plain nested dicts by attribute name. The optimizer sees ``state.params``, so masks, labels and rates by name or by
    rank do what optax documents, and gets ``value``, ``grad`` and ``value_fn`` as extra arguments. A train step runs
    the model in training mode (``model.train()``) and keeps the changes to its dropout streams and batch statistics;
    an evaluation step runs it in evaluation mode (``model.eval()``).

    Args:
        model: an ``nnx.Module`` that takes a batch and gives what the loss takes; it is read, not changed, and may be
            in either mode.
        optimizer: an optax transformation of ``state.params``, or an ``optax.MultiSteps``.
        loss: ``(outputs, targets, mask) -> mean``, where ``targets`` and ``mask`` are those of the samples, or where
            these have none those of the positions of the one modality that has; by default
            :func:`~multimodal_pad.training.cross_entropy`.
        loss_fn: in place of it, ``(model, batch) -> loss`` or ``-> (loss, {name: scalar})``, as in Flax's examples. All
            are means over what is real in the batch: over several devices each is computed of the rows of one of them,
            and counts by the weight of these. With a parameter ``rngs`` it gets an ``nnx.Rngs``, another one in each
            step and on each device, and in every evaluation step that of step 0.
        weight_fn: ``batch -> scalar``: the divisor of the mean; by default the number of real samples, and with
            ``loss`` and targets of positions that of real positions.
        eval_params: ``(opt_state, params) -> params``: the parameters to evaluate instead of those that are trained,
            such as an average that the optimizer keeps.
        with_outputs: whether evaluation steps give outputs and targets with a ``loss_fn`` too: those of
            ``model(batch)``.
        seed: of ``rngs``; it is part of the program.
        mesh: devices that share the rows of each batch; by default there is one. Each computes the loss of its own
            rows, and their mean by weight is the batch's. Variables that are floats, such as batch statistics, are
            averaged by numbers of samples (give ``nnx.BatchNorm`` the mesh's axis as ``axis_name``, and it normalizes
            by the statistics of all rows); integers must come out alike on all. Every device draws its own dropout, so
            that results depend on the number of devices where there is some. A loss that compares rows, such as a
            contrastive one, sees those of its device, unless it gathers what it compares (``jax.lax.all_gather(x,
            "data", tiled=True)``); its ``weight_fn`` then counts what was gathered.

    Attributes:
        state: the initial state. A table that donates it takes it away: ``del step.state`` lets go of it.

    Raises:
        TrainingError: the model is no NNX module or has no parameters, or both ``loss`` and ``loss_fn`` are given.

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
        optimizer: optax.GradientTransformation | optax.MultiSteps,
        loss: Loss | None = None,
        *,
        loss_fn: LossFn | None = None,
        weight_fn: WeightFn | None = None,
        eval_params: EvalParams | None = None,
        with_outputs: bool = False,
        seed: int = 0,
        mesh: Mesh | None = None,
    ) -> None:
        check_whole("seed", seed, 0, TrainingError, most=None)
        self._objective = Objective(loss, loss_fn, weight_fn)
        self._eval_params, self._with_outputs, self._seed = eval_params, with_outputs, seed
        self._structure, *arrays = take_apart(model)
        self._optimizer, self._mesh = _with_extra_args(optimizer), mesh
        # Arrays on the host need no program to be copied, and the optimizer's state needs one for all of it:
        # made eagerly, each shape would be a program of its own.
        params, rest = jax.device_put(arrays)
        opt_state = jax.jit(self._init_optimizer)(params)
        self.state = TrainState(jax.device_put(np.zeros((), np.int32)), params, opt_state, rest)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Update once; donate ``state``.

        Raises:
            TrainingError: the batches have no targets that the loss could take, the loss is no scalar, metrics are no
                scalars by name, or the model or the optimizer changes a shape or dtype of the state (names it).
        """
        return self._on_mesh(self._train)(state, batch)

    def eval_step(self, state: TrainState, batch: Batch) -> Evaluated:
        """Compute outputs and loss in evaluation mode.

        Raises:
            TrainingError: as :meth:`train_step`, or ``eval_params`` gives other parameters than the model's.
        """
        return self._on_mesh(self._evaluate)(state, batch)

    def model(self, state: TrainState) -> Any:
        """Make the model of a state, in evaluation mode: to evaluate, inspect or save. Compiles nothing.

        It has the parameters of the state as they are: with ``eval_params`` give it :meth:`evaluated`.
        """
        return self._structure.model(state.params, state.rest)

    def evaluated(self, state: TrainState) -> TrainState:
        """Return the state with the parameters that are evaluated.

        Raises:
            TrainingError: ``eval_params`` gives other names, shapes or dtypes than the parameters have.
        """
        if self._eval_params is None:
            return state
        params = self._eval_params(as_keys(state.opt_state, self._impls), state.params)
        check_kept({"params": state.params}, {"params": params}, "eval_params")
        return state._replace(params=params)

    def _init_optimizer(self, params: Arrays) -> Any:
        opt_state = self._optimizer.init(params)
        self._impls = key_impls(opt_state)
        return as_numbers(opt_state)

    def _on_mesh(self, local: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function of the rows on one device one of the whole batch."""
        if self._mesh is None:
            return local
        # Written out per device, since the partitioner would gather the whole batch for a loop over its samples. Sums
        # over the devices are ours too (_combine), so there is no replication for JAX to check.
        specs = PartitionSpec(), PartitionSpec(self._mesh.axis_names)
        return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)

    def _sum(self, tree: Any) -> Any:
        """Return the sum over all devices."""
        return tree if self._mesh is None else jax.lax.psum(tree, self._mesh.axis_names)

    def _gather(self, x: jax.Array) -> jax.Array:
        """Return the rows of all devices."""
        return x if self._mesh is None else jax.lax.all_gather(x, self._mesh.axis_names, tiled=True)

    def _train(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        (samples, of_samples), (weight, share) = self._weights(batch)
        rest = self._structure.keys_of(state.rest)
        own, key = self._keys_of_device(rest), self._key(state.step)

        def objective(params: Arrays) -> tuple[jax.Array, tuple[dict[str, jax.Array], Arrays]]:
            model = self._structure.training(params, own)
            loss, metrics = self._objective(model, batch, key)
            return loss, (metrics, rest_of(model))

        def measure(params: Arrays) -> tuple[jax.Array, Arrays, dict[str, jax.Array], Arrays]:
            (loss, (metrics, after)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
            return *self._combine((loss, gradient, metrics), share), after

        loss, gradient, metrics, after = measure(state.params)
        check_kept({"rest": rest}, {"rest": after})
        updates, opt_state = self._optimizer.update(
            gradient,
            as_keys(state.opt_state, self._impls),
            state.params,
            value=loss,
            grad=gradient,
            value_fn=_of_all(lambda params: self._combine(objective(params)[0], share), measure),
        )
        rest = as_numbers(self._carried(rest, after, of_samples))
        params: Any = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, as_numbers(opt_state), rest)
        check_kept(state._asdict(), new._asdict())
        return new, StepMetrics(loss, optax.tree.norm(gradient), samples, weight, metrics)

    def _evaluate(self, state: TrainState, batch: Batch) -> Evaluated:
        _, (weight, share) = self._weights(batch)
        model = self._structure.evaluating(self.evaluated(state).params, state.rest)
        targets, mask, outputs = None, batch.sample_mask, None
        if self._objective.loss is not None:
            outputs = model(batch)
            loss, metrics = self._objective.of_outputs(outputs, batch), {}
        else:
            outputs = model(batch) if self._with_outputs else None
            loss, metrics = self._objective(model, batch, self._key(0))
        if outputs is not None:
            targets, mask = wanted(batch)
            _check_outputs(outputs, mask)
        loss, metrics = self._combine((loss, metrics), share)
        outputs, targets, mask = jax.tree.map(lambda x: self._gather(jnp.asarray(x)), (outputs, targets, mask))
        return Evaluated(outputs, targets, mask, loss, weight, metrics)

    def _weights(self, batch: Batch) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        """Return the real samples on all devices and this one's share of them, and the loss's weight in the same way.

        Raises:
            PaddingError: the batch is laid out for more devices than there are.
        """
        batch.layout.check_alone(batch)
        return self._share(jnp.sum(batch.sample_mask)), self._share(self._objective.weight(batch))

    def _share(self, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the sum over all devices, and this one's part of it, from 0 to 1."""
        total = self._sum(here)
        return total, jnp.where(total > 0, here / jnp.where(total > 0, total, 1), 0)

    def _key(self, step: Any) -> jax.Array | None:
        """Return the key of a step's random numbers on this device; None where the loss takes none."""
        if not self._objective.takes_rngs:
            return None
        key = jax.random.fold_in(jax.random.key(self._seed), step)
        if self._mesh is None or self._mesh.size == 1:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(self._mesh.axis_names))

    def _combine(self, means: Any, share: jax.Array) -> Any:
        """Average means over all devices; a mean may be NaN where its share is 0."""
        if self._mesh is None:
            return means
        sums = self._sum(jax.tree.map(lambda x: jnp.where(share > 0, share * x, 0), means))
        return jax.tree.map(lambda x, total: total.astype(x.dtype), means, sums)

    def _keys_of_device(self, rest: Arrays) -> Arrays:
        """Return ``rest`` with other random keys on each device."""
        if self._mesh is None:
            return rest
        index = jax.lax.axis_index(self._mesh.axis_names)
        return jax.tree.map(lambda x: _folded(x, index) if is_key(x) else x, rest)

    def _carried(self, before: Arrays, after: Arrays, share: jax.Array) -> Arrays:
        """Combine the devices' ``rest``: means of floats, and random keys as they were for all."""
        if self._mesh is None:
            return after
        was, (now, structure) = jax.tree.leaves(before), jax.tree.flatten(after)
        means = iter(self._combine([x for x in now if jnp.issubdtype(x.dtype, jnp.inexact)], share))
        kept = [
            old if is_key(old) else next(means) if jnp.issubdtype(new.dtype, jnp.inexact) else new
            for old, new in zip(was, now, strict=True)
        ]
        return jax.tree.unflatten(structure, kept)


def _with_extra_args(optimizer: optax.GradientTransformation | optax.MultiSteps) -> Any:
    """Return the optimizer with ``update(..., **extra_args)``."""
    if isinstance(optimizer, optax.MultiSteps):  # optax itself would take it for one without extra arguments
        update: Any = optimizer.update
        return optax.GradientTransformationExtraArgs(optimizer.init, update)
    return optax.with_extra_args_support(optimizer)


def _check_outputs(outputs: Any, mask: jax.Array) -> None:
    """Raise a TrainingError unless all arrays of the outputs begin with the axes of the mask."""
    for path, x in jax.tree_util.tree_leaves_with_path(outputs):
        if jnp.shape(x)[: mask.ndim] != mask.shape:
            raise TrainingError(
                f"the model gives outputs{jax.tree_util.keystr(path)} of shape {jnp.shape(x)}, and the targets are of "
                f"{mask.shape}; outputs begin with the same axes"
            )


def _folded(keys: jax.Array, number: jax.Array) -> jax.Array:
    """Return keys of any shape, with a number folded into each."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return fold(keys.reshape(-1), number).reshape(keys.shape)


def _of_all(value: Callable[[Arrays], jax.Array], measure: Callable[[Arrays], tuple[Any, ...]]) -> Any:
    """Return a function of the parameters with the gradient that is measured over all devices.

    JAX's own gradient of a sum over devices would be that of one device's part.
    """
    function = jax.custom_vjp(value)
    function.defvjp(
        lambda params: measure(params)[:2],
        lambda gradient, scale: (jax.tree.map(lambda x: (scale * x).astype(x.dtype), gradient),),
    )
    return function
