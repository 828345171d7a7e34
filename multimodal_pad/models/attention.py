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
    neither the result nor any gradient.

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
    query_real = _real(query, query_lengths)
    key_real = _real(key, key_lengths)
    # Zeroing by `where` keeps padding out of the values and out of the gradients alike; a
    # multiplication would turn NaN * 0 into NaN.
    query = jnp.where(query_real, query, 0)
    key = jnp.where(key_real, key, 0)
    value = jnp.where(key_real, value, 0)
    # A missing key sequence attends to one zero position, so that no softmax is over nothing.
    some_keys = jnp.maximum(key_lengths, 1)
    if implementation == "mapped":
        out = _mapped(query, key, value, some_keys)
    else:
        out = jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=jnp.maximum(query_lengths, 1) if implementation == "cudnn" else None,
            key_value_seq_lengths=some_keys,
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


def _mapped(query: jax.Array, key: jax.Array, value: jax.Array, key_lengths: jax.Array) -> jax.Array:
    """One sample at a time, so that the scores stay in the cache; they are recomputed for the gradient."""
    return jax.lax.map(jax.checkpoint(_attend_sample), (query, key, value, key_lengths))


def _attend_sample(arguments: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """Attention of one sample; the softmax is normalised after the product with ``value``."""
    query, key, value, key_length = arguments
    scale = query.shape[-1] ** -0.5
    scores = jnp.einsum("thd,shd->hts", query * scale, key, preferred_element_type=jnp.float32)
    scores = jnp.where(jnp.arange(key.shape[0]) < key_length, scores, -jnp.inf)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    mixed = jnp.einsum("hts,shd->htd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    mixed = mixed / weights.sum(axis=-1, keepdims=True)
    return jnp.swapaxes(mixed, 0, 1).astype(query.dtype)
