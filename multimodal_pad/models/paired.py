"""Attention for GPU and TPU in packed batches: tile by tile, over the pairs of tiles that the batch lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.layouts.tile_pairs import NONE, TILE, tiles_of
from multimodal_pad.models.tiled import wide_product


class Paired(NamedTuple):
    """One attention of several.

    Attributes:
        query: ``(N_t, H, D)``, finite.
        key: ``(N_s, H, D)``, finite.
        value: ``(N_s, H, D)``, finite.
        of_query: ``(N_t,)`` int: the sample of each position; at padding a number that no key has.
        of_key: ``(N_s,)`` int.
        pairs: ``(P, 2)`` int: tiles of queries, ascending, and of keys; -1 where an entry is not used.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    of_query: jax.Array
    of_key: jax.Array
    pairs: jax.Array


def paired_attentions(attentions: Sequence[Paired], precision: str | None) -> list[jax.Array]:
    """Compute several attentions as one: ``(N_t, H, D)`` each, 0 where a query meets no key of its sample."""
    sizes = [(tiles_of(len(a.query)), tiles_of(len(a.key))) for a in attentions]
    together = Paired(
        query=_in_tiles([a.query for a in attentions]),
        key=_in_tiles([a.key for a in attentions]),
        value=_in_tiles([a.value for a in attentions]),
        of_query=_in_tiles([a.of_query for a in attentions]),
        of_key=_in_tiles([a.of_key for a in attentions]),
        pairs=_side_by_side([a.pairs for a in attentions], sizes),
    )
    out = _attend(together, precision)
    ends = np.cumsum([queries for queries, _ in sizes])
    parts = jnp.split(out, ends[:-1].tolist())
    return [part.reshape(-1, *a.query.shape[1:])[: len(a.query)] for part, a in zip(parts, attentions, strict=True)]


def _attend(a: Paired, precision: str | None) -> jax.Array:
    """Compute attention of arrays in tiles, ``(tiles, T, ...)``.

    A pair of tiles gives the weights of its keys and their sum, against the largest score of each query over all of its
    pairs; sums over the pairs of a tile of queries put them together (Dao et al. 2022, "FlashAttention", section
    3.1, all blocks at once). For the gradient the scores are computed again.
    """
    of_tile, source = a.pairs[:, 0], jnp.maximum(a.pairs[:, 1], 0)
    used = (a.pairs[:, 1] != NONE)[:, None, None]
    together = (used & (a.of_query[of_tile][:, :, None] == a.of_key[source][:, None, :]))[:, None]

    def over_pairs(combine: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        return combine(x, of_tile, len(a.query), indices_are_sorted=True)

    @jax.checkpoint
    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        scores = wide_product(precision, "pthd,pshd->phts", query[of_tile], key[source])
        # The least float, and not -inf, whose difference to itself is NaN.
        scores = jnp.where(together, scores, jnp.finfo(jnp.float32).min)
        highest = over_pairs(jax.ops.segment_max, jax.lax.stop_gradient(scores.max(axis=-1)))
        weights = jnp.where(together, jnp.exp(scores - highest[of_tile][..., None]), 0)
        total = jnp.swapaxes(over_pairs(jax.ops.segment_sum, weights.sum(axis=-1)), 1, 2)[..., None]
        found = wide_product(precision, "phts,pshd->pthd", weights.astype(value.dtype), value[source])
        return jnp.where(total > 0, over_pairs(jax.ops.segment_sum, found) / jnp.where(total > 0, total, 1), 0)

    return attend(a.query * a.query.shape[-1] ** -0.5, a.key, a.value).astype(a.query.dtype)


def _in_tiles(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return arrays ``(N, ...)`` one after the other as ``(tiles, T, ...)``, each filled up with 0, or no sample."""
    parts = []
    for x in arrays:
        behind = ((0, tiles_of(len(x)) * TILE - len(x)), *((0, 0) for _ in x.shape[1:]))
        parts.append(jnp.pad(x, behind, constant_values=NONE if jnp.issubdtype(x.dtype, jnp.integer) else 0))
    return jnp.concatenate(parts).reshape(-1, TILE, *arrays[0].shape[1:])


def _side_by_side(pairs: Sequence[jax.Array], sizes: Sequence[tuple[int, int]]) -> jax.Array:
    """Return all pairs of tiles, numbered for attentions whose tiles lie one after the other."""
    parts, query, key = [], 0, 0
    for some, (queries, keys) in zip(pairs, sizes, strict=True):
        source = jnp.where(some[:, 1] == NONE, NONE, some[:, 1] + key)
        parts.append(jnp.stack([some[:, 0] + query, source], axis=1))
        query, key = query + queries, key + keys
    return jnp.concatenate(parts)
