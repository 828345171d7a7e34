"""Stretches of one long axis: taken apart and put together.

Encoders keep the positions of all encoders of a kind in one array, so that work per position is one
kernel for all of them; only products with weights, and sums over positions, go stretch by stretch. The gradient
of taking apart is putting together and the other way round, where JAX would add up padded arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Sizes = tuple[int, ...]


def take_apart(x: jax.Array, sizes: Sizes) -> list[jax.Array]:
    """Cut ``x (N, ...)`` into consecutive stretches along its first axis.

    >>> [part.tolist() for part in take_apart(jnp.arange(5.0), (2, 3))]
    [[0.0, 1.0], [2.0, 3.0, 4.0]]
    """
    return _take_apart(x, sizes)


def put_together(parts: Sequence[jax.Array]) -> jax.Array:
    """Join the parts one after the other along their first axis.

    >>> put_together([jnp.arange(2.0), jnp.arange(1.0)]).tolist()
    [0.0, 1.0, 0.0]
    """
    return _put_together(list(parts))


def permuted(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    """Return ``x[order]`` along the first axis, where no index is doubled or left out.

    >>> permuted(jnp.array([5.0, 6.0, 7.0]), (2, 0, 1)).tolist()
    [7.0, 5.0, 6.0]
    """
    return _permuted(x, order)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _take_apart(x: jax.Array, sizes: Sizes) -> list[jax.Array]:
    ends = np.cumsum(sizes).tolist()
    return [jax.lax.slice_in_dim(x, end - size, end) for size, end in zip(sizes, ends, strict=True)]


@jax.custom_vjp
def _put_together(parts: list[jax.Array]) -> jax.Array:
    return jnp.concatenate(parts)


_take_apart.defvjp(lambda x, sizes: (_take_apart(x, sizes), None), lambda _sizes, _, parts: (_put_together(parts),))
_put_together.defvjp(
    lambda parts: (_put_together(parts), tuple(len(part) for part in parts)),
    lambda sizes, gradient: (_take_apart(gradient, sizes),),
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _permuted(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(x).at[np.array(order, np.int32)].get(mode="promise_in_bounds")


_permuted.defvjp(
    lambda x, order: (_permuted(x, order), None),
    lambda order, _, gradient: (_permuted(gradient, tuple(np.argsort(order).tolist())),),
)
