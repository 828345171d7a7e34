"""Safe masked attention: one function, one implementation per backend."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend

from multimodal_pad.errors import PaddingError

Implementation = Literal["mapped", "cudnn", "xla"]


def select_implementation(platform: str, dtype: jnp.dtype, head_dim: int) -> Implementation:
    """The implementation meant for a backend.

    ``mapped`` on CPU; ``cudnn`` on an NVIDIA GPU where dtype (bfloat16, float16) and head width (a
    multiple of 8, up to 128) allow; ``xla`` elsewhere.

    >>> [select_implementation(platform, jnp.dtype("bfloat16"), 64) for platform in ("cpu", "cuda", "tpu")]
    ['mapped', 'cudnn', 'xla']
    """
    if platform == "cpu":
        return "mapped"
    if platform in ("gpu", "cuda") and jnp.dtype(dtype).itemsize == 2 and head_dim % 8 == 0 and head_dim <= 128:
        return "cudnn"
    return "xla"


def masked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_lengths: jax.Array,
    key_lengths: jax.Array,
    implementation: Implementation | None = None,
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
        implementation: by default the one meant for JAX's default backend.

    Returns:
        ``(B, T, H, D)`` in the dtype of ``query``; exactly 0 at query padding and where the key
        sequence is missing, with exactly 0 gradient there.

    Raises:
        PaddingError: an unknown implementation.

    >>> x = jnp.ones((1, 2, 1, 4))
    >>> out = masked_attention(x, x, x, query_lengths=jnp.array([1]), key_lengths=jnp.array([2]))
    >>> out[0, :, 0, 0].tolist()
    [1.0, 0.0]
    """
    if implementation is None:
        implementation = select_implementation(_platform(), query.dtype, query.shape[-1])
    if implementation not in get_args(Implementation):
        raise PaddingError(f"got implementation={implementation!r}; choose one of {list(get_args(Implementation))}")
    query_lengths, key_lengths = query_lengths.astype(jnp.int32), key_lengths.astype(jnp.int32)
    if implementation == "mapped":
        return _mapped(query, key, value, query_lengths, key_lengths)
    query_real = _real(query, query_lengths)
    key_real = _real(key, key_lengths)
    # Zeroing by `where` keeps padding out of the values and out of the gradients alike; a
    # multiplication would turn NaN * 0 into NaN.
    query = jnp.where(query_real, query, 0)
    key = jnp.where(key_real, key, 0)
    value = jnp.where(key_real, value, 0)
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=jnp.maximum(query_lengths, 1) if implementation == "cudnn" else None,
        # A missing key sequence attends to one zero position, so that no softmax is over nothing.
        key_value_seq_lengths=jnp.maximum(key_lengths, 1),
        implementation=implementation,
    )
    return jnp.where(query_real & (key_lengths > 0)[:, None, None, None], out, 0)


def _platform() -> str:
    """JAX's default backend, with AMD's GPUs told from NVIDIA's (JAX calls both ``gpu``)."""
    name = jax.default_backend()
    return "rocm" if name == "gpu" and "rocm" in get_backend().platform_version.lower() else name


def _real(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Bool ``(B, L, 1, 1)``: which positions of ``x (B, L, H, D)`` are real."""
    return (jnp.arange(x.shape[1])[None, :] < lengths[:, None])[..., None, None]


@jax.custom_vjp
def _mapped(
    query: jax.Array, key: jax.Array, value: jax.Array, query_lengths: jax.Array, key_lengths: jax.Array
) -> jax.Array:
    """One sample at a time, so that the scores stay in the cache; they are computed again for the gradient.

    That gradient is spelt out (Dao et al. 2022, "FlashAttention", appendix B.4): of a sample it needs its result and
    the log of its softmax's sums, where JAX would keep a mask and a maximum for each score.
    """
    return _mapped_forward(query, key, value, query_lengths, key_lengths)[0]


_Arrays = tuple[jax.Array, ...]


def _mapped_forward(*arguments: jax.Array) -> tuple[jax.Array, _Arrays]:
    # What depends on the lengths alone, JAX would take out of the scan over the layers, and keep a mask for each score.
    out, log_totals = jax.lax.map(_attend_sample, jax.lax.optimization_barrier(arguments))
    return out, (*arguments, out, log_totals)


def _mapped_backward(saved: _Arrays, gradient: jax.Array) -> tuple[jax.Array | None, ...]:
    return *jax.lax.map(_attend_sample_backward, (*saved, gradient)), None, None


_mapped.defvjp(_mapped_forward, _mapped_backward)


def _attend_sample(sample: _Arrays) -> tuple[jax.Array, jax.Array]:
    """Attention of one sample ``(T, H, D)``, and the log of the sums ``(H, T, 1)``; normalised after the product."""
    query, key, value, query_length, key_length = sample
    scores = _scores(_real_heads(query, query_length), _real_heads(key, key_length), key_length)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    mixed = _product("hts,hsd->htd", weights.astype(value.dtype), _real_heads(value, key_length)) / total
    out = jnp.where(_attends(query, query_length, key_length), jnp.swapaxes(mixed, 0, 1), 0)
    return out.astype(query.dtype), highest + jnp.log(total)


def _attend_sample_backward(sample: _Arrays) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of query, key and value of one sample."""
    query, key, value, query_length, key_length, out, log_total, gradient = sample
    dtype = query.dtype
    gradient = jnp.where(_attends(query, query_length, key_length), gradient, 0)
    inner = jnp.sum(gradient.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).T[..., None]
    query, gradient = _real_heads(query, query_length), jnp.swapaxes(gradient, 0, 1)
    key, value = _real_heads(key, key_length), _real_heads(value, key_length)
    weights = jnp.exp(_scores(query, key, key_length) - log_total)
    from_scores = (weights * (_product("htd,hsd->hts", gradient, value) - inner)).astype(dtype)
    scale = query.shape[-1] ** -0.5
    to_query = _product("hts,hsd->htd", from_scores, key) * scale
    to_key = _product("hts,htd->hsd", from_scores, query) * scale
    to_value = _product("hts,htd->hsd", weights.astype(dtype), gradient)
    return (
        _real_positions(to_query, query_length, dtype),
        _real_positions(to_key, key_length, dtype),
        _real_positions(to_value, key_length, dtype),
    )


def _scores(query: jax.Array, key: jax.Array, key_length: jax.Array) -> jax.Array:
    """``(H, T, S)`` float32, -inf at padding of the keys; a missing key sequence counts as one position."""
    scores = _product("htd,hsd->hts", query * query.shape[-1] ** -0.5, key)
    return jnp.where(jnp.arange(key.shape[1]) < jnp.maximum(key_length, 1), scores, -jnp.inf)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _real_heads(x: jax.Array, length: jax.Array) -> jax.Array:
    """``(L, H, D)`` to ``(H, L, D)``, 0 at padding."""
    return jnp.swapaxes(jnp.where((jnp.arange(x.shape[0]) < length)[:, None, None], x, 0), 0, 1)


def _real_positions(x: jax.Array, length: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """``(H, L, D)`` to ``(L, H, D)``, 0 at padding."""
    return jnp.swapaxes(jnp.where((jnp.arange(x.shape[1]) < length)[:, None], x, 0), 0, 1).astype(dtype)


def _attends(query: jax.Array, query_length: jax.Array, key_length: jax.Array) -> jax.Array:
    """Bool ``(T, 1, 1)``: which positions are real and have something to attend to."""
    return ((jnp.arange(query.shape[0]) < query_length) & (key_length > 0))[:, None, None]
