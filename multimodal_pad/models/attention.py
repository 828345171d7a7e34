"""Safe masked attention: one function, one implementation per backend."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from multimodal_pad.errors import PaddingError
from multimodal_pad.models.attention_choice import Implementation, choose_implementation
from multimodal_pad.models.tiled import Attention, Heads, Place, tiled_attentions

Precision = Literal["default", "high", "highest"]
"""JAX's precision of products of float32 matrices, see :class:`jax.lax.Precision`; other dtypes have only one."""

_WHOLE = 8
"""Lengths for cuDNN are multiples of it: JAX refuses odd lengths, and cuDNN's gradient two lengths of 1. Its kernels
work on tiles of 64 or more, so the added positions take no time."""


def masked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_lengths: jax.Array,
    key_lengths: jax.Array,
    implementation: Implementation | None = None,
    precision: Precision | None = None,
) -> jax.Array:
    """Compute scaled dot-product attention over the real positions only.

    ``softmax(q k^T / sqrt(D)) v`` (Vaswani et al. 2017, equation 1), where the softmax runs over
    positions below ``key_lengths``. Values beyond the lengths, NaN and inf included, change
    neither the result nor any gradient. Gradients are defined in reverse mode, of any order; ``tiled`` has no
    ``jax.jvp``.

    Args:
        query: ``(B, T, H, D)``.
        key: ``(B, S, H, D)``.
        value: ``(B, S, H, D)``.
        query_lengths: ``(B,)`` int: real positions of each query sequence.
        key_lengths: ``(B,)`` int: real positions of each key sequence; 0 = missing.
        implementation: by default the one that :func:`select_implementation` names for JAX's default device.
        precision: of the products of float32 matrices; by default ``jax_default_matmul_precision``. On an
            NVIDIA GPU JAX multiplies in TF32 unless that, or this, is ``"highest"``.

    Returns:
        ``(B, T, H, D)`` in the dtype of ``query``; exactly 0 at query padding and where the key
        sequence is missing, with exactly 0 gradient there.

    Raises:
        PaddingError: an unknown implementation or precision, or ``cudnn`` for a dtype or head width that it does not
            take.

    >>> x = jnp.ones((1, 2, 1, 4))
    >>> out = masked_attention(x, x, x, query_lengths=jnp.array([1]), key_lengths=jnp.array([2]))
    >>> out[0, :, 0, 0].tolist()
    [1.0, 0.0]
    """
    implementation = choose_implementation(implementation, query.dtype, query.shape[-1])
    check_precision(precision)
    query_lengths, key_lengths = query_lengths.astype(jnp.int32), key_lengths.astype(jnp.int32)
    query_real = _real(query, query_lengths)
    # Zeroing by `where` keeps padding out of the values and out of the gradients alike; a
    # multiplication would turn NaN * 0 into NaN.
    query = jnp.where(query_real, query, 0)
    key, value = (jnp.where(_real(x, key_lengths), x, 0) for x in (key, value))
    # A missing key sequence attends to one zero position, so that no softmax is over nothing.
    at_least_one = jnp.maximum(key_lengths, 1)
    if implementation == "tiled":
        starts = tuple(jnp.arange(len(x), dtype=jnp.int32) * x.shape[1] for x in (query, key))
        flat_query, flat_key, flat_value = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
        lengths = query_lengths, key_lengths
        out = tiled_attention(flat_query, flat_key, flat_value, starts, lengths, precision).reshape(query.shape)
    elif implementation == "cudnn":
        length = query.shape[1]
        query, key, value = (_lengthened(x, -x.shape[1] % _WHOLE) for x in (query, key, value))
        out = jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=jnp.maximum(query_lengths, 1),
            key_value_seq_lengths=at_least_one,
            implementation="cudnn",
        )[:, :length]
    else:
        with _default_precision(precision):
            out = jax.nn.dot_product_attention(
                query, key, value, key_value_seq_lengths=at_least_one, implementation="xla"
            )
    return jnp.where(query_real & (key_lengths > 0)[:, None, None, None], out, 0)


def tiled_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    starts: tuple[jax.Array, ...],
    lengths: tuple[jax.Array, ...],
    precision: Precision | None,
) -> jax.Array:
    """Compute attention of queries ``(N_t, H, D)`` to keys ``(N_s, H, D)``, finite, at padding too.

    ``starts`` and ``lengths``, int32 ``(B,)`` of queries and of keys, say where each sample lies.
    """
    count, width = query.shape[1:]
    rows = [x.reshape(len(x), -1) for x in (query, key, value)]
    return tiled_attentions(
        (Attention(0, 1, Place(0), Place(1), Place(1, column=count * width)),),
        Heads(count, width),
        precision,
        (rows[0], jnp.concatenate(rows[1:], axis=1)),
        starts,
        lengths,
    ).reshape(query.shape)


def check_precision(precision: str | None) -> None:
    """Raise a PaddingError unless a precision is one of JAX's three, or left to JAX."""
    if precision is not None and precision not in get_args(Precision):
        raise PaddingError(f"got precision={precision!r}; choose one of {list(get_args(Precision))}, or None")


def _default_precision(precision: Precision | None) -> AbstractContextManager[object]:
    """Set JAX's precision while something is traced, for JAX's functions that have no option for it."""
    return nullcontext() if precision is None else jax.default_matmul_precision(precision)


def _lengthened(x: jax.Array, more: int) -> jax.Array:
    """Return ``x (B, L, H, D)`` with so many zero positions behind it."""
    return jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))


def _real(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Return which positions of ``x (B, L, H, D)`` are real: bool ``(B, L, 1, 1)``."""
    return (jnp.arange(x.shape[1])[None, :] < lengths[:, None])[..., None, None]
