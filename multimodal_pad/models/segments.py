"""Attention and means over the samples of a packed axis, each by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from multimodal_pad.layouts.segment_ids import segments_of, starts_of
from multimodal_pad.models.attention import Precision, check_precision, tiled_attention
from multimodal_pad.models.attention_choice import Implementation, choose_implementation
from multimodal_pad.models.paired import Paired, paired_attentions
from multimodal_pad.models.tiled import wide_product

BLOCK = 256
"""Queries whose scores are in memory at a time: with 8 heads and 16,000 keys 130 MB in float32."""


def segment_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_lengths: jax.Array,
    key_lengths: jax.Array,
    tile_pairs: jax.Array | None = None,
    implementation: Implementation | None = None,
    precision: Precision | None = None,
) -> jax.Array:
    """Compute scaled dot-product attention of samples that lie end to end, each to itself alone.

    :func:`masked_attention` in the packed layout: ``softmax(q k^T / sqrt(D)) v`` (Vaswani et al. 2017, equation 1),
    where the softmax of a query runs over the keys of its sample. Values behind the last sample, NaN and inf
    included, change neither the result nor any gradient, and neither do those of other samples, as long as they are
    finite. Gradients are defined in reverse mode, of any order; ``tiled`` has no ``jax.jvp``.

    Args:
        query: ``(N_t, H, D)``: the samples one after the other, then padding.
        key: ``(N_s, H, D)``: the same samples in the same order, then padding; for self-attention those of ``query``.
        value: ``(N_s, H, D)``.
        query_lengths: ``(B,)`` int: positions of each sample in ``query``; their sum is at most N_t.
        key_lengths: ``(B,)`` int: positions of each sample in ``key``, at most N_s together; 0 = missing.
        tile_pairs: ``(P, 2)`` int, ``batch.tile_pairs[target, source]``: the pairs for ``xla``, instead of all queries
            and keys. ``tiled`` needs none.
        implementation: ``"tiled"`` or ``"xla"``; by default the one that :func:`select_implementation` names for packed
            batches on JAX's default device.
        precision: of the products of float32 matrices; by default ``jax_default_matmul_precision``. On an
            NVIDIA GPU JAX multiplies in TF32 unless that, or this, is ``"highest"``.

    Returns:
        ``(N_t, H, D)`` in the dtype of ``query``; exactly 0 at query padding and where the key sequence is missing,
        with exactly 0 gradient there.

    Raises:
        PaddingError: an unknown implementation or precision, or ``cudnn``, which can't separate samples.

    >>> x = jnp.arange(4.0).reshape(4, 1, 1)  # samples of 2 and 1 positions, and one of padding
    >>> out = segment_attention(x * 0, x * 0, x, query_lengths=jnp.array([2, 1]), key_lengths=jnp.array([2, 1]))
    >>> out[:, 0, 0].tolist()
    [0.5, 0.5, 2.0, 0.0]
    """
    implementation = choose_implementation(implementation, query.dtype, query.shape[-1], packed=True)
    check_precision(precision)
    query_lengths, key_lengths = (jnp.asarray(x, jnp.int32) for x in (query_lengths, key_lengths))
    of_query, of_key = segments_of(query_lengths, len(query)), segments_of(key_lengths, len(key))
    # By `where`, as in `masked_attention`: a multiplication would turn NaN * 0 into NaN.
    query_real, key_real = ((segments < len(query_lengths))[:, None, None] for segments in (of_query, of_key))
    query = jnp.where(query_real, query, 0)
    key, value = (jnp.where(key_real, x, 0) for x in (key, value))
    if implementation == "tiled":
        starts = starts_of(query_lengths), starts_of(key_lengths)
        out = tiled_attention(query, key, value, starts, (query_lengths, key_lengths), precision)
    elif tile_pairs is not None:
        out = paired_attentions([Paired(query, key, value, of_query, of_key, tile_pairs)], precision)[0]
    else:
        out = _by_blocks(query, key, value, of_query, of_key, precision)
    return jnp.where(query_real & of_segment(key_lengths > 0, of_query)[:, None, None], out, 0)


def segment_mean(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Average each sample over its positions, for samples that lie end to end.

    Values behind the last sample, NaN and inf included, change neither the result nor any gradient.

    Args:
        x: ``(N, d)``, of any float dtype: the samples one after the other, then padding.
        lengths: ``(B,)`` int: positions of each sample.

    Returns:
        ``(B, d)`` float32, summed in float32; exactly 0 where a sample has no positions.

    >>> segment_mean(jnp.array([[1.0], [3.0], [5.0], [jnp.nan]]), jnp.array([2, 0, 1])).tolist()
    [[2.0], [0.0], [5.0]]
    """
    lengths = jnp.asarray(lengths, jnp.int32)
    segments = segments_of(lengths, len(x))
    # The segment id of padding, B, is beyond the sums, and so dropped. A product with a one-hot matrix was measured
    # too: on CPU it takes up to three times as long, and NaN of a sample would reach all others.
    total = jax.ops.segment_sum(
        x.astype(jnp.float32), segments, num_segments=len(lengths), indices_are_sorted=True, mode="drop"
    )
    return total / jnp.maximum(lengths, 1)[:, None]


def of_segment(values: jax.Array, segments: jax.Array) -> jax.Array:
    """Spread ``values (B,)`` of samples to ``(N,)``, by the sample of each position; at padding the last sample's."""
    return values.at[jnp.minimum(segments, len(values) - 1)].get(mode="promise_in_bounds")


def _by_blocks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    of_query: jax.Array,
    of_key: jax.Array,
    precision: Precision | None,
) -> jax.Array:
    """Attend from all queries to all keys, masked by segments; the gradient computes a block's scores again."""
    count, size = len(query), min(BLOCK, len(query))
    blocks = -(-count // size)
    more = blocks * size - count
    query = jnp.pad(query * query.shape[-1] ** -0.5, ((0, more), (0, 0), (0, 0)))
    of_query = jnp.pad(of_query, (0, more))

    @jax.checkpoint
    def attend(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        query, of_query = block
        together = (of_query[:, None] == of_key[None])[None]
        scores = wide_product(precision, "thd,shd->hts", query, key)
        # The least float, and not -inf: a softmax over nothing stays finite, and its result is thrown away.
        weights = jax.nn.softmax(jnp.where(together, scores, jnp.finfo(jnp.float32).min), axis=-1)
        return wide_product(precision, "hts,shd->thd", weights.astype(value.dtype), value).astype(query.dtype)

    parts = query.reshape(blocks, size, *query.shape[1:]), of_query.reshape(blocks, size)
    out = attend((parts[0][0], parts[1][0])) if blocks == 1 else jax.lax.map(attend, parts)
    return out.reshape(blocks * size, *query.shape[1:])[:count]
