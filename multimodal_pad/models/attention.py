"""Safe masked attention: one function, one implementation per backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from multimodal_pad.errors import PaddingError
from multimodal_pad.models.attention_choice import Implementation, check_implementation, select_implementation

Precision = Literal["default", "high", "highest"]
"""Of products of float32 matrices, as in :class:`jax.lax.Precision`; the other dtypes have but one."""

_WHOLE = 8
"""cuDNN gets sequences of a multiple of it: JAX refuses odd lengths, and cuDNN's gradient two lengths of 1. Its kernels
work on tiles of 64 or more, so that the added positions cost nothing."""


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
    """Scaled dot-product attention over the real positions only.

    ``softmax(q k^T / sqrt(D)) v`` (Vaswani et al. 2017, equation 1), where the softmax runs over
    positions below ``key_lengths``. What stands beyond the lengths, NaN and inf included, changes
    neither the result nor any gradient. Gradients are defined in reverse mode, of any order; ``mapped`` has no
    ``jax.jvp``.

    Args:
        query: ``(B, T, H, D)``.
        key: ``(B, S, H, D)``.
        value: ``(B, S, H, D)``.
        query_lengths: ``(B,)`` int: real positions of each query sequence.
        key_lengths: ``(B,)`` int: real positions of each key sequence; 0 = missing.
        implementation: by default the one that :func:`select_implementation` names for JAX's default device.
        precision: of the products of float32 matrices; by default what ``jax_default_matmul_precision`` says. On an
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
    if implementation is None:
        implementation = select_implementation(query.dtype, query.shape[-1]).implementation
    else:
        check_implementation(implementation, query.dtype, query.shape[-1])
    check_precision(precision)
    query_lengths, key_lengths = query_lengths.astype(jnp.int32), key_lengths.astype(jnp.int32)
    if implementation == "mapped":
        return _mapped(query, key, value, query_lengths, key_lengths, precision)
    query_real = _real(query, query_lengths)
    # Zeroing by `where` keeps padding out of the values and out of the gradients alike; a
    # multiplication would turn NaN * 0 into NaN.
    query = jnp.where(query_real, query, 0)
    key, value = (jnp.where(_real(x, key_lengths), x, 0) for x in (key, value))
    # A missing key sequence attends to one zero position, so that no softmax is over nothing.
    at_least_one = jnp.maximum(key_lengths, 1)
    if implementation == "cudnn":
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


def check_precision(precision: str | None) -> None:
    """Raise a PaddingError unless a precision is one of JAX's three, or left to JAX."""
    if precision is not None and precision not in get_args(Precision):
        raise PaddingError(f"got precision={precision!r}; choose one of {list(get_args(Precision))}, or None")


def _default_precision(precision: Precision | None) -> AbstractContextManager[object]:
    """JAX's setting while something is traced; what JAX's function takes no precision for takes it from there."""
    return nullcontext() if precision is None else jax.default_matmul_precision(precision)


def _lengthened(x: jax.Array, more: int) -> jax.Array:
    """``x (B, L, H, D)`` with so many zero positions behind it."""
    return jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))


def _real(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Bool ``(B, L, 1, 1)``: which positions of ``x (B, L, H, D)`` are real."""
    return (jnp.arange(x.shape[1])[None, :] < lengths[:, None])[..., None, None]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _mapped(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_lengths: jax.Array,
    key_lengths: jax.Array,
    precision: Precision | None,
) -> jax.Array:
    """One sample at a time, so that the scores stay in the cache; they are computed again for the gradient.

    That gradient is spelt out (Dao et al. 2022, "FlashAttention", appendix B.4): of a sample it needs its result and
    the log of its softmax's sums, where JAX would keep a mask and a maximum for each score.
    """
    return _mapped_forward(query, key, value, query_lengths, key_lengths, precision)[0]


_Arrays = tuple[jax.Array, ...]


def _mapped_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_lengths: jax.Array,
    key_lengths: jax.Array,
    precision: Precision | None,
) -> tuple[jax.Array, _Arrays]:
    arguments = query, key, value, query_lengths, key_lengths
    # What depends on the lengths alone, JAX would take out of the scan over the layers, and keep a mask for each score.
    out, log_totals = jax.lax.map(partial(_attend_sample, precision), jax.lax.optimization_barrier(arguments))
    return out, (*arguments, out, log_totals)


def _mapped_backward(precision: Precision | None, saved: _Arrays, gradient: jax.Array) -> tuple[jax.Array | None, ...]:
    return *jax.lax.map(partial(_attend_sample_backward, precision), (*saved, gradient)), None, None


_mapped.defvjp(_mapped_forward, _mapped_backward)


def _attend_sample(precision: Precision | None, sample: _Arrays) -> tuple[jax.Array, jax.Array]:
    """Attention of one sample ``(T, H, D)``, and the log of the sums ``(H, T, 1)``; normalised after the product."""
    query, key, value, query_length, key_length = sample
    product = partial(_product, precision)
    scores = _scores(product, _real_heads(query, query_length), _real_heads(key, key_length), key_length)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    mixed = product("hts,hsd->htd", weights.astype(value.dtype), _real_heads(value, key_length)) / total
    out = jnp.where(_attends(query, query_length, key_length), jnp.swapaxes(mixed, 0, 1), 0)
    return out.astype(query.dtype), highest + jnp.log(total)


def _attend_sample_backward(precision: Precision | None, sample: _Arrays) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of query, key and value of one sample."""
    query, key, value, query_length, key_length, out, log_total, gradient = sample
    dtype, product = query.dtype, partial(_product, precision)
    gradient = jnp.where(_attends(query, query_length, key_length), gradient, 0)
    inner = jnp.sum(gradient.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).T[..., None]
    query, gradient = _real_heads(query, query_length), jnp.swapaxes(gradient, 0, 1)
    key, value = _real_heads(key, key_length), _real_heads(value, key_length)
    weights = jnp.exp(_scores(product, query, key, key_length) - log_total)
    from_scores = (weights * (product("htd,hsd->hts", gradient, value) - inner)).astype(dtype)
    scale = query.shape[-1] ** -0.5
    to_query = product("hts,hsd->htd", from_scores, key) * scale
    to_key = product("hts,htd->hsd", from_scores, query) * scale
    to_value = product("hts,htd->hsd", weights.astype(dtype), gradient)
    return (
        _real_positions(to_query, query_length, dtype),
        _real_positions(to_key, key_length, dtype),
        _real_positions(to_value, key_length, dtype),
    )


def _scores(product: Callable[..., jax.Array], query: jax.Array, key: jax.Array, key_length: jax.Array) -> jax.Array:
    """``(H, T, S)`` float32, -inf at padding of the keys; a missing key sequence counts as one position."""
    scores = product("htd,hsd->hts", query * query.shape[-1] ** -0.5, key)
    return jnp.where(jnp.arange(key.shape[1]) < jnp.maximum(key_length, 1), scores, -jnp.inf)


def _product(precision: Precision | None, spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=jnp.float32)


def _real_heads(x: jax.Array, length: jax.Array) -> jax.Array:
    """``(L, H, D)`` to ``(H, L, D)``, 0 at padding."""
    return jnp.swapaxes(jnp.where((jnp.arange(x.shape[0]) < length)[:, None, None], x, 0), 0, 1)


def _real_positions(x: jax.Array, length: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """``(H, L, D)`` to ``(L, H, D)``, 0 at padding."""
    return jnp.swapaxes(jnp.where((jnp.arange(x.shape[1]) < length)[:, None], x, 0), 0, 1).astype(dtype)


def _attends(query: jax.Array, query_length: jax.Array, key_length: jax.Array) -> jax.Array:
    """Bool ``(T, 1, 1)``: which positions are real and have something to attend to."""
    return ((jnp.arange(query.shape[0]) < query_length) & (key_length > 0))[:, None, None]
