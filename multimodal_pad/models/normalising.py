"""Layer normalisation whose scale and bias are applied where that takes least time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from multimodal_pad.models.initializing import drawn_at_once, ones, zeros


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with scale and bias; in float32 within."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        with drawn_at_once(self, rngs) as rngs:
            self.scale = nnx.Param(ones(rngs.params(), (width,)))
            self.bias = nnx.Param(zeros(rngs.params(), (width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise ``(N, d)`` to the same shape and dtype; ``(G, N, d)`` where scale and bias are ``(G, d)``."""
        return (standardised(x) * self.scale[...][..., None, :] + self.bias[...][..., None, :]).astype(x.dtype)


@jax.custom_vjp
def standardised(x: jax.Array) -> jax.Array:
    """Subtract from ``x (..., d)`` its mean over the last axis, and divide by its standard deviation.

    The gradient is written out, so that it keeps the result, which the next product keeps too, and no copy of ``x``.
    """
    return _forward(x)[0]


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-6)
    result = (centred * inverse).astype(x.dtype)
    return result, (result, inverse)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    result, inverse = saved[0].astype(jnp.float32), saved[1]
    wide = gradient.astype(jnp.float32)
    along = (wide * result).mean(axis=-1, keepdims=True)
    return ((inverse * (wide - wide.mean(axis=-1, keepdims=True) - result * along)).astype(gradient.dtype),)


standardised.defvjp(_forward, _backward)
