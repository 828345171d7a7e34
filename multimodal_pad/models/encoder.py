"""Pre-LN encoders side by side: one set of parameters and one program text for all encoders of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad.models.attention import Precision
from multimodal_pad.models.initializing import drawn_at_once, lecun_normal, stacked, zeros
from multimodal_pad.models.normalising import LayerNorm, standardised
from multimodal_pad.models.positions import BatchPositions
from multimodal_pad.models.stretches import Sizes, permuted, put_together, take_apart
from multimodal_pad.models.tiled import Attention, Place

Pairs = tuple[tuple[int, int], ...]
"""Target and source of each encoder, as numbers of modalities, in the order of the targets."""


Weights = tuple[jax.Array, jax.Array]
"""Kernels ``(P, d, e)`` and biases ``(P, e)`` of P encoders."""


class Dense(nnx.Module):
    """Kernel ``(inputs, outputs)`` and bias of a dense layer; stacked where ``rngs`` are."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(lecun_normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(zeros(rngs.params(), (outputs,)))


class EncoderLayers(nnx.Module):
    """A layer of several encoders: attention and residual, then a ReLU feed-forward part of width 4d and residual.

    One layer norm serves target and source, and attention to a missing source adds exactly zero.
    """

    def __init__(
        self,
        pairs: Pairs,
        width: int,
        *,
        dropout_rate: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        precision: Precision | None = None,
    ) -> None:
        self.pairs, self.width, self.dropout_rate, self.dtype = pairs, width, dropout_rate, dtype
        self.precision: Precision | None = precision
        with drawn_at_once(self, rngs) as rngs:
            dense = partial(Dense, rngs=rngs)
            self.attention_norm = LayerNorm(width, rngs=rngs)
            self.query = dense(width, width)
            self.key_value = dense(width, 2 * width)
            self.output = dense(width, width)
            self.feed_forward_norm = LayerNorm(width, rngs=rngs)
            self.expand = dense(width, 4 * width)
            self.contract = dense(4 * width, width)

    def __call__(
        self, x: jax.Array, sources: jax.Array | None, positions: BatchPositions, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Let ``x (N, d)``, the targets' positions of all encoders, attend to standardised sources, or to itself."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        counts = positions.counts
        sizes = tuple(counts[target] for target, _ in self.pairs)
        attended = self._attend(standardised(x), sources, positions, sizes)
        present = positions.sources_present(self.pairs)
        attended = self._products(attended, [self._weights(self.output)], sizes, present)
        x = x + dropout(attended, self.dropout_rate, keys[0])
        inward, outward = self._weights(self.expand, self.feed_forward_norm), self._weights(self.contract)
        hidden = self._products(standardised(x), [inward, outward], sizes)
        return x + dropout(hidden, self.dropout_rate, keys[1])

    def _attend(
        self, normed: jax.Array, sources: jax.Array | None, positions: BatchPositions, sizes: Sizes
    ) -> jax.Array:
        """Return the targets' attention to their sources, ``(N, d)``."""
        query, key_value = (self._weights(x, self.attention_norm) for x in (self.query, self.key_value))
        starts = np.cumsum([0, *sizes]).tolist()
        if sources is None:
            kernel, bias = (jnp.concatenate(x, axis=-1) for x in zip(query, key_value, strict=True))
            inputs = [self._products(normed, [(kernel, bias)], sizes)]
            places = [[Place(0, start, part * self.width) for part in range(3)] for start in starts[:-1]]
        else:
            # One product for all readers of a source; its columns are keys and values of one reader after the other.
            counts = positions.counts
            by_source = sorted(range(len(self.pairs)), key=lambda i: self.pairs[i][::-1])
            readers = len(self.pairs) // len(counts)
            kernel, bias = (_beside(x, tuple(by_source), readers) for x in key_value)
            inputs = [self._products(normed, [query], sizes), self._products(sources, [(kernel, bias)], counts)]
            first = np.cumsum([0, *counts]).tolist()
            places = []
            for i, (_, source) in enumerate(self.pairs):
                column = 2 * self.width * (by_source.index(i) % readers)
                keys = [Place(1, first[source], column + part * self.width) for part in range(2)]
                places.append([Place(0, starts[i]), *keys])
        attentions = tuple(Attention(*pair, *place) for pair, place in zip(self.pairs, places, strict=True))
        return positions.attend(inputs, attentions, self.width)

    def _weights(self, dense: Dense, norm: LayerNorm | None = None) -> Weights:
        """Return kernels ``(P, d, e)`` and biases ``(P, e)``, with the scale and bias of the norm before them inside.

        ``(n * scale + bias) W + c = n (scale * W) + (bias W + c)``: so no part of the norm is computed per position,
        and its gradients are sums over a kernel and not over positions.
        """
        kernel, bias = dense.kernel[...], dense.bias[...]
        if norm is not None:
            bias = bias + jnp.einsum("pd,pde->pe", norm.bias[...], kernel, precision=self.precision)
            kernel = norm.scale[...][..., None] * kernel
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def _products(
        self, x: jax.Array, weights: Sequence[Weights], sizes: Sizes, kept: Sequence[jax.Array] | None = None
    ) -> jax.Array:
        """Pass ``x (N, d)`` through dense layers, ReLU between them; neighbours of one size are one batched product.

        ``kept``, bool ``(size, 1)`` for each stretch, is False where the result is to be 0.
        """
        groups = [(size, len(list(same))) for size, same in groupby(sizes)]
        counts = tuple(count for _, count in groups)
        each = [[take_apart(w, counts) for w in dense] for dense in weights]
        results, first = [], 0
        for i, part in enumerate(take_apart(x, tuple(size * count for size, count in groups))):
            size, count = groups[i]
            y = part.reshape(count, size, -1)
            for layer, (kernels, biases) in enumerate(each):
                y = jax.nn.relu(y) if layer else y
                y = jnp.einsum("gnd,gde->gne", y, kernels[i], precision=self.precision) + biases[i][:, None]
            if kept is not None:
                y = jnp.where(jnp.stack(kept[first : first + count]), y, 0)
            results.append(y.reshape(count * size, -1))
            first += count
        return put_together(results)


def _beside(x: jax.Array, order: tuple[int, ...], readers: int) -> jax.Array:
    """Reshape ``(P, ..., e)`` of each encoder to ``(P / readers, ..., readers * e)``, in this order."""
    x = permuted(x, order).reshape(-1, readers, *x.shape[1:])
    return jnp.moveaxis(x, 1, -2).reshape(len(x), *x.shape[2:-1], -1)


_FEW = 2
"""Most layers to write out: up to two are traced a quarter faster than a scan, and compile no slower."""


class Encoders(nnx.Module):
    """Encoders side by side, one for each pair of a target and a source: ``num_layers`` layers, then a layer norm.

    All encoders have one program text, and so have the layers, where there are more than two: those are scanned. The
    first axis of each parameter is that of the pairs; the second, of those in ``layers``, is that of the layers.

    Args:
        pairs: target and source of each encoder.
        width: d.
        num_layers: layers of each encoder.
    """

    def __init__(
        self,
        pairs: Pairs,
        width: int,
        num_layers: int,
        *,
        dropout_rate: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        precision: Precision | None = None,
    ) -> None:
        self.num_layers = num_layers
        with drawn_at_once(self, rngs) as rngs:
            encoders = stacked(rngs, len(pairs))
            self.layers = EncoderLayers(
                pairs,
                width,
                dropout_rate=dropout_rate,
                dtype=dtype,
                rngs=stacked(encoders, num_layers),
                precision=precision,
            )
            self.norm = LayerNorm(width, rngs=encoders)

    def __call__(
        self,
        x: jax.Array,
        sources: jax.Array | None,
        positions: BatchPositions,
        *,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Encode ``x``, but for the scale and bias of the final norm, which the caller adds where they cost least.

        Args:
            x: ``(N, d)``: for each pair, one after the other, the positions of its target.
            sources: ``(sum of N_m, d)``: the positions of each modality; None = each attends to itself.
            positions: of the batch.
            dropout_key: a PRNG key turns dropout on.

        Returns:
            ``(N, d)``, finite but meaningless at padding.
        """
        graphdef, parameters = nnx.split(self.layers)
        parameters = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), parameters)
        keys = None if dropout_key is None else jax.random.split(dropout_key, self.num_layers)
        sources = None if sources is None else standardised(sources)

        def body(x: jax.Array, each: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, None]:
            return nnx.merge(graphdef, each[0])(x, sources, positions, each[1]), None

        if self.num_layers <= _FEW:
            for layer in range(self.num_layers):
                x, _ = body(x, jax.tree.map(lambda x, layer=layer: x[layer], (parameters, keys)))
        else:
            x, _ = jax.lax.scan(body, x, (parameters, keys))
        return standardised(x)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Apply inverted dropout; the identity without a key or a rate."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
