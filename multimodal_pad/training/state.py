"""The train state: arrays of numbers by name, which optax, Orbax and NumPy take as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad.errors import TrainingError
from multimodal_pad.training.model_kinds import check_is_nnx

Arrays = dict[Any, Any]
"""Nested dicts of arrays: their keys are the names of the attributes (numbers in an ``nnx.List``) from the model on."""


class TrainState(NamedTuple):
    """The argument and result of a train step. Random keys are held as their data, so all of it is numbers.

    Attributes:
        step: updates so far, int32.
        params: the ``nnx.Param`` of the model: nested dicts by attribute name, as ``params["head"]["kernel"]``.
        opt_state: the optimizer's state for ``params``.
        rest: all other variables of the model, by name too: dropout streams, batch statistics.

    >>> import optax
    >>> params = {"head": {"kernel": np.zeros((3, 2), np.float32)}}
    >>> state = TrainState(np.int32(0), params, optax.sgd(0.1).init(params), rest={})
    >>> [(jax.tree_util.keystr(path), x.shape) for path, x in jax.tree_util.tree_leaves_with_path(state)]
    [('.step', ()), (".params['head']['kernel']", (3, 2))]
    """

    step: Any
    params: Arrays
    opt_state: Any
    rest: Arrays


@dataclass(frozen=True)
class Structure:
    """All of a model but its arrays, in training mode and in evaluation mode.

    Attributes:
        train: graph of the model in training mode.
        evaluate: graph of the model in evaluation mode.
        impls: the generators of its random keys, see :func:`key_impls`.
    """

    train: Any
    evaluate: Any
    impls: list[Any]

    def keys_of(self, rest: Arrays) -> Arrays:
        """Return ``rest`` with random keys in place of their data."""
        return as_keys(rest, self.impls)

    def training(self, params: Arrays, rest: Arrays) -> Any:
        """Return the model in training mode, with these arrays and keys."""
        return nnx.merge(self.train, params, rest)

    def evaluating(self, params: Arrays, rest: Arrays) -> Any:
        """Return the model in evaluation mode, with these arrays; random keys as their data."""
        return nnx.merge(self.evaluate, params, self.keys_of(rest))

    def model(self, params: Arrays, rest: Arrays) -> Any:
        """Return the model in evaluation mode, with copies of these arrays on the default device. Compiles nothing."""
        return self.evaluating(*jax.device_put(host_copies((params, rest))))


def take_apart(model: nnx.Module) -> tuple[Structure, Arrays, Arrays]:
    """Take a model apart: its structure, and copies of its parameters and of all other variables as NumPy arrays.

    Args:
        model: is read, not changed; it may be in either mode.

    Raises:
        TrainingError: it is no NNX module (the error names its kind), or has no parameters.
    """
    check_is_nnx(model)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = _pure(params), _pure(rest)
    if not params:
        raise TrainingError(f"got a {type(model).__name__} without parameters; make them nnx.Param")
    other = nnx.merge(graphdef, params, rest)  # since train() and eval() set attributes
    other.train()
    train = nnx.graphdef(other)
    other.eval()
    structure = Structure(train, nnx.graphdef(other), key_impls(rest))
    return structure, host_copies(params), host_copies(as_numbers(rest))


def rest_of(model: Any) -> Arrays:
    """Return all variables of a model but its parameters, by name."""
    return _pure(nnx.state(model, nnx.Not(nnx.Param)))


def is_key(x: Any) -> bool:
    """Return whether an array is of random keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_impls(tree: Any) -> list[Any]:
    """Return the generator of each leaf that is a random key, None for all others."""
    return [jax.random.key_impl(x) if is_key(x) else None for x in jax.tree.leaves(tree)]


def as_numbers(tree: Any) -> Any:
    """Return the tree with random keys replaced by their data."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def as_keys(tree: Any, impls: list[Any]) -> Any:
    """Undo :func:`as_numbers`; ``impls`` are the :func:`key_impls`."""
    leaves, structure = jax.tree.flatten(tree)
    keys = [
        x if impl is None else jax.random.wrap_key_data(x, impl=impl) for x, impl in zip(leaves, impls, strict=True)
    ]
    return jax.tree.unflatten(structure, keys)


def host_copies(tree: Any) -> Any:
    """Copy arrays to the host. On CPU a view would be of the buffer that the next step may write into."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def compiled_for_state(function: Callable[[TrainState], Any], state: TrainState) -> Callable[[TrainState], Any]:
    """Compile the function now for states like this one, where they lie, so that calling it compiles nothing."""
    sharding = getattr(state.step, "sharding", None)
    spread = {"in_shardings": sharding, "out_shardings": sharding} if sharding is not None else {}
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    return jax.jit(function, **spread).lower(structs).compile()


def check_kept(before: Any, after: Any, by: str = "a step") -> None:
    """Check that a step, or another function, keeps the names, shapes and dtypes of the arrays that it is given.

    Raises:
        TrainingError: names the first array that differs.
    """
    was, now = (
        {
            jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}"
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (before, after)
    )
    for name in [*was, *now]:
        if was.get(name) != now.get(name):
            raise TrainingError(
                f"{by} gives {now.get(name, 'nothing')} at state{name} and takes {was.get(name, 'nothing')}; make "
                "every variable when the model or the optimizer's state is made, with the shape and the dtype that it "
                "keeps"
            )


def _pure(state: Any) -> Arrays:
    return nnx.to_pure_dict(state, lambda x: x.get_raw_value() if isinstance(x, nnx.Variable) else x)
