"""Attention for CPU: tile after tile, so that the scores stay in the cache, and only over real positions.

All attentions of a stage are one loop over their samples, and of a sample over tiles of its queries and keys: one
program text, whatever the number of attentions, the layout of the batch and its lengths. A loop for each attention,
over samples as long as their batch, was measured too: a step took as long at short lengths and 1.6 times as long at
long ones, and had 150 kernels more to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

TILE = 32
"""Positions of a tile of queries and of keys; 16, 64 and 128 of either were measured, and slower."""


class Place(NamedTuple):
    """The place of one attention's part in flat arrays: sample b begins at position ``start + starts[b]``.

    Attributes:
        array: which of the arrays.
        start: the first position of its modality.
        column: the first column.
    """

    array: int
    start: int = 0
    column: int = 0


class Attention(NamedTuple):
    """The places that one attention of several reads. Its result lies where its queries do.

    All attentions of a stage take their queries from one array, and their keys and values from one.

    Attributes:
        target: the modality that attends.
        source: the modality that is attended to.
        query: place in the inputs.
        key: place in the inputs.
        value: place in the inputs.
    """

    target: int
    source: int
    query: Place
    key: Place
    value: Place


class Heads(NamedTuple):
    """Sizes of the attentions of a stage.

    Attributes:
        num_heads: H.
        width: D, of a head.
    """

    num_heads: int
    width: int


Arrays = tuple[jax.Array, ...]
Attentions = tuple[Attention, ...]


def tiled_attentions(
    attentions: Attentions, heads: Heads, precision: str | None, inputs: Arrays, starts: Arrays, lengths: Arrays
) -> jax.Array:
    """Compute several attentions, each sample after sample and tile after tile.

    The softmax is taken online (Milakov and Gimelshein 2018), and the gradient written out (Dao et al. 2022,
    "FlashAttention", appendix B.4): it needs the result and the logarithm of the softmax's sums, and computes the
    scores again. A gradient of the gradient is that of the formula over all positions, whose scores are kept.

    Args:
        attentions: the places of each.
        heads: sizes.
        precision: of the products, as in :class:`jax.lax.Precision`.
        inputs: arrays ``(N, columns)``, finite, at padding too.
        starts: ``(B,)`` int32 of each modality: the first position of each sample on the modality's axis.
        lengths: ``(B,)`` int32 of each modality.

    Returns:
        ``(N, H * D)`` for the N positions of the queries' array: exactly 0 at padding and where the source is missing.
    """
    results: Any = _results(attentions, heads, precision, inputs, starts, lengths)
    return results[0]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _results(
    attentions: Attentions, heads: Heads, precision: str | None, inputs: Arrays, starts: Arrays, lengths: Arrays
) -> Arrays:
    """Return the results, and the logarithms of the softmax's sums ``(N, H)``, which have no gradient of their own."""
    # JAX would take what depends on the lengths alone out of the scan over the layers, and keep it for each tile.
    inputs, starts, lengths = jax.lax.optimization_barrier((inputs, starts, lengths))
    stage = _Stage(attentions, heads, inputs, starts, lengths)
    count, width = heads.num_heads, heads.width

    def attend(item: _Item, begin: jax.Array, results: Arrays) -> Arrays:
        rows, real = stage.queries(item, begin)
        query = stage.query(item, rows)

        def meet(state: Arrays) -> Arrays:
            key_begin, highest, total, out = state
            key_rows, key_real = stage.keys(item, key_begin)
            key, value = stage.key_value(item, key_rows)
            scores = jnp.where(key_real[None, None], wide_product(precision, "htd,hsd->hts", query, key), -jnp.inf)
            higher = jnp.maximum(highest, scores.max(axis=-1, keepdims=True))
            weights, earlier = jnp.exp(scores - higher), jnp.exp(highest - higher)
            total = total * earlier + weights.sum(axis=-1, keepdims=True)
            out = out * earlier + wide_product(precision, "hts,hsd->htd", weights.astype(value.dtype), value)
            return key_begin + stage.key_tile, higher, total, out

        shape = (count, stage.query_tile)
        # The least float, since the difference of -inf to itself is NaN.
        least = jnp.full((*shape, 1), jnp.finfo(jnp.float32).min)
        state = item.key, least, jnp.zeros((*shape, 1)), jnp.zeros((*shape, width))
        _, highest, total, out = jax.lax.while_loop(lambda state: state[0] < item.key_end, meet, state)
        found = out / total, highest + jnp.log(total)
        return tuple(_write(x, update, rows, real) for x, update in zip(results, found, strict=True))

    positions = len(inputs[stage.query_array])
    results = jnp.zeros((positions, count * width), inputs[0].dtype), jnp.zeros((positions, count), jnp.float32)
    return stage.each(attend, results)


def _results_forward(
    attentions: Attentions, heads: Heads, precision: str | None, inputs: Arrays, starts: Arrays, lengths: Arrays
) -> tuple[Arrays, tuple[Arrays, Arrays, Arrays, Arrays]]:
    results: Any = _results(attentions, heads, precision, inputs, starts, lengths)
    return results, (inputs, starts, lengths, results)


def _results_backward(
    attentions: Attentions,
    heads: Heads,
    precision: str | None,
    saved: tuple[Arrays, Arrays, Arrays, Arrays],
    gradient: Arrays,
) -> tuple[Arrays, None, None]:
    return _to_inputs(attentions, heads, precision, *saved, gradient[0]), None, None


_results.defvjp(_results_forward, _results_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _to_inputs(
    attentions: Attentions,
    heads: Heads,
    precision: str | None,
    inputs: Arrays,
    starts: Arrays,
    lengths: Arrays,
    results: Arrays,
    gradient: jax.Array,
) -> Arrays:
    """Compute the gradients of the inputs."""
    stage = _Stage(attentions, heads, inputs, starts, lengths)
    out, sums = results
    count, width, scale = heads.num_heads, heads.width, heads.width**-0.5
    inner = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).reshape(-1, count, width).sum(axis=-1)
    product = partial(wide_product, precision)

    def attend(item: _Item, begin: jax.Array, to_inputs: Arrays) -> Arrays:
        rows, real = stage.queries(item, begin)
        query = stage.query(item, rows)
        to_out, total, inside = (
            _rows(x, rows, stage.query_tile, count, x.shape[1] // count) for x in (gradient, sums, inner)
        )

        def meet(state: tuple[jax.Array, jax.Array, Arrays]) -> tuple[jax.Array, jax.Array, Arrays]:
            key_begin, to_query, to_inputs = state
            key_rows, key_real = stage.keys(item, key_begin)
            key, value = stage.key_value(item, key_rows)
            # Keys first: two of the three products over these arrays are then along their rows.
            weights = jnp.exp(product("hsd,htd->hst", key, query) - jnp.swapaxes(total, 1, 2))
            weights = jnp.where((key_real[:, None] & real[None])[None], weights, 0)
            from_scores = (weights * (product("hsd,htd->hst", value, to_out) - jnp.swapaxes(inside, 1, 2))).astype(
                query.dtype
            )
            turned = jax.lax.optimization_barrier(jnp.swapaxes(from_scores, 1, 2))
            to_query = to_query + product("hts,hsd->htd", turned, key)
            to_key = product("hst,htd->hsd", from_scores, query)
            to_value = product("hst,htd->hsd", weights.astype(query.dtype), to_out)
            at = stage.key_array
            added = _add(to_inputs[at], to_key, key_rows, item.key_column)
            added = _add(added, to_value, key_rows, item.value_column)
            return key_begin + stage.key_tile, to_query, (*to_inputs[:at], added, *to_inputs[at + 1 :])

        state = item.key, jnp.zeros((count, stage.query_tile, width)), to_inputs
        _, to_query, to_inputs = jax.lax.while_loop(lambda state: state[0] < item.key_end, meet, state)
        at, to_query = stage.query_array, jnp.where(real[None, :, None], to_query * scale, 0)
        return (*to_inputs[:at], _add(to_inputs[at], to_query, rows, item.query_column), *to_inputs[at + 1 :])

    return stage.each(attend, tuple(jnp.zeros_like(x) for x in inputs))


def _to_inputs_forward(
    attentions: Attentions, heads: Heads, precision: str | None, *given: Any
) -> tuple[Arrays, tuple[Any, ...]]:
    inputs, starts, lengths, _, gradient = given
    return _to_inputs(attentions, heads, precision, *given), (inputs, starts, lengths, gradient)


def _to_inputs_backward(
    attentions: Attentions, heads: Heads, precision: str | None, saved: tuple[Any, ...], gradient: Arrays
) -> tuple[Any, ...]:
    """Differentiate the formula as it stands: results follow from the inputs, so their own gradient is None."""
    inputs, starts, lengths, to_out = saved

    def to_inputs(inputs: Arrays, to_out: jax.Array) -> Arrays:
        _, pull = jax.vjp(lambda inputs: _formula(attentions, heads, precision, inputs, starts, lengths), inputs)
        return pull(to_out)[0]

    to_inputs, to_gradient = jax.vjp(to_inputs, inputs, to_out)[1](gradient)
    return to_inputs, None, None, None, to_gradient


_to_inputs.defvjp(_to_inputs_forward, _to_inputs_backward)


class _Item(NamedTuple):
    """One sample of one attention: where its queries and its keys begin and end, and their columns."""

    query: jax.Array
    query_end: jax.Array
    key: jax.Array
    key_end: jax.Array
    query_column: jax.Array
    key_column: jax.Array
    value_column: jax.Array


class _Stage:
    """The attentions of a stage as one list of samples, and the reading of their tiles."""

    def __init__(self, attentions: Attentions, heads: Heads, inputs: Arrays, starts: Arrays, lengths: Arrays) -> None:
        self.query_array, self.key_array = attentions[0].query.array, attentions[0].key.array
        self._heads, self._inputs = heads, inputs
        self.query_tile, self.key_tile = (min(TILE, len(inputs[at])) for at in (self.query_array, self.key_array))
        samples = len(lengths[0])
        self._items = _Item(
            *(jnp.concatenate(x) for x in zip(*(_places(a, starts, lengths) for a in attentions), strict=True)),
            *(
                jnp.repeat(jnp.array([place.column for place in places], jnp.int32), samples)
                for places in zip(*((a.query, a.key, a.value) for a in attentions), strict=True)
            ),
        )

    def each(self, attend: Callable[[_Item, jax.Array, Arrays], Arrays], results: Arrays) -> Arrays:
        """Return ``results`` after ``attend(item, begin, results)`` for the first position of each tile of queries."""

        def one(i: jax.Array, results: Arrays) -> Arrays:
            item = _Item(*(jax.lax.dynamic_index_in_dim(x, i, keepdims=False) for x in self._items))

            def tile(state: tuple[jax.Array, Arrays]) -> tuple[jax.Array, Arrays]:
                return state[0] + self.query_tile, attend(item, *state)

            return jax.lax.while_loop(lambda state: state[0] < item.query_end, tile, (item.query, results))[1]

        return jax.lax.fori_loop(0, len(self._items.query), one, results)

    def queries(self, item: _Item, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the first row of the tile of queries that begins there, and which rows belong to it: ``(T,)``."""
        return _window(begin, item.query_end, self.query_tile, len(self._inputs[self.query_array]))

    def keys(self, item: _Item, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the same for a tile of keys: ``(S,)``."""
        return _window(begin, item.key_end, self.key_tile, len(self._inputs[self.key_array]))

    def query(self, item: _Item, row: jax.Array) -> jax.Array:
        """Return the queries ``(H, T, D)`` of a tile, scaled."""
        heads = self._heads
        query = _rows(
            self._inputs[self.query_array], row, self.query_tile, heads.num_heads, heads.width, item.query_column
        )
        return query * heads.width**-0.5

    def key_value(self, item: _Item, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return keys and values ``(H, S, D)`` of a tile."""
        heads, x = self._heads, self._inputs[self.key_array]
        key, value = (
            _rows(x, row, self.key_tile, heads.num_heads, heads.width, column)
            for column in (item.key_column, item.value_column)
        )
        return key, value


def _places(a: Attention, starts: Arrays, lengths: Arrays) -> Arrays:
    """Return where queries and keys of samples begin and end, ``(B,)``; no queries where there are no keys."""
    query, key = a.query.start + starts[a.target], a.key.start + starts[a.source]
    queries = jnp.where(lengths[a.source] > 0, lengths[a.target], 0)
    return query, query + queries, key, key + lengths[a.source]


def _window(begin: jax.Array, end: jax.Array, size: int, total: int) -> tuple[jax.Array, jax.Array]:
    """Return the first of ``size`` rows from ``begin`` on, and which of them lie between begin and end.

    At the end of an array a window begins earlier; its other rows belong to another tile, or to none.
    """
    row = jnp.minimum(begin, total - size)
    at = row + jnp.arange(size)
    return row, (at >= begin) & (at < end)


def _rows(x: jax.Array, row: jax.Array, size: int, count: int, width: int, column: jax.Array | int = 0) -> jax.Array:
    """Return rows of ``x (N, columns)`` with heads first: ``(count, size, width)``."""
    rows = jax.lax.dynamic_slice(x, (row, column), (size, count * width))
    return jnp.swapaxes(rows.reshape(size, count, width), 0, 1)


def _flat(update: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Reshape ``(H, T, D)`` to rows ``(T, H * D)``."""
    return jnp.swapaxes(update, 0, 1).reshape(update.shape[1], -1).astype(dtype)


def _write(x: jax.Array, update: jax.Array, row: jax.Array, real: jax.Array) -> jax.Array:
    """Return ``x`` with ``update (H, T, D)`` from ``row`` on, where ``real``."""
    update = _flat(update, x.dtype)
    there = jax.lax.dynamic_slice(x, (row, 0), update.shape)
    return jax.lax.dynamic_update_slice(x, jnp.where(real[:, None], update, there), (row, 0))


def _add(x: jax.Array, update: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Return ``x`` with ``update (H, T, D)`` added from ``row`` and ``column`` on."""
    update = _flat(update, x.dtype)
    there = jax.lax.dynamic_slice(x, (row, column), update.shape)
    return jax.lax.dynamic_update_slice(x, there + update, (row, column))


def _formula(
    attentions: Attentions, heads: Heads, precision: str | None, inputs: Arrays, starts: Arrays, lengths: Arrays
) -> jax.Array:
    """Compute :func:`tiled_attentions` by the formula as it stands: all queries of an attention against all keys."""
    out = jnp.zeros((len(inputs[attentions[0].query.array]), heads.num_heads * heads.width), inputs[0].dtype)
    product = partial(wide_product, precision)
    for a in attentions:
        begin, end, key_begin, key_end = _places(a, starts, lengths)
        of_query = _sample_of(len(inputs[a.query.array]), begin, end)
        of_key = _sample_of(len(inputs[a.key.array]), key_begin, key_end)
        query, key, value = (
            _rows(inputs[p.array], jnp.int32(0), len(inputs[p.array]), heads.num_heads, heads.width, p.column)
            for p in (a.query, a.key, a.value)
        )
        together = ((of_query[:, None] == of_key[None]) & (of_key >= 0)[None])[None]
        scores = product("htd,hsd->hts", query * heads.width**-0.5, key)
        weights = jax.nn.softmax(jnp.where(together, scores, jnp.finfo(jnp.float32).min), axis=-1)
        found = product("hts,hsd->htd", jnp.where(together, weights, 0).astype(value.dtype), value)
        out = out + _flat(found, out.dtype)
    return out


def _sample_of(count: int, begins: jax.Array, ends: jax.Array) -> jax.Array:
    """Return the number of each position's sample, ``(count,)`` int32, -1 at padding."""
    at = jnp.arange(count)[:, None]
    inside = (at >= begins[None]) & (at < ends[None])
    return jnp.where(inside.any(axis=1), inside.argmax(axis=1), -1)


def wide_product(precision: str | None, spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute ``einsum`` in float32, whatever the dtype of its arrays."""
    return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=jnp.float32)
