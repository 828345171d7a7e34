"""The parts of the transformer: positions, input embedding, pre-LN encoder with scanned layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad.models.attention import Precision, masked_attention
from multimodal_pad.models.attention_choice import Implementation
from multimodal_pad.models.initializing import drawn_at_once, embedding_normal, lecun_normal, ones, stacked, zeros


def sinusoidal_positions(length: int, width: int) -> np.ndarray:
    """``(length, width)`` float32: sine and cosine of the position (Vaswani et al. 2017, section 3.5).

    The first half holds the sines, the second the cosines. Position 0 is a sample's first real
    position, so that padding on the right never moves it.

    >>> sinusoidal_positions(2, 4).round(3).tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.8410000205039978, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    half = (width + 1) // 2
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(half) / max(1, half))
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table[:, :width].astype(np.float32)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity without a key or a rate."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class InputEmbedding(nnx.Module):
    """Features or token ids of one modality to width ``d_model``, with positions.

    Features pass a convolution of odd ``kernel_size`` that keeps the length and sees zeros beyond a
    sample's end, whatever the array holds there; token ids are looked up. The result is scaled by
    sqrt(d_model) before positions are added, as in MulT.

    Args:
        feature_width: features per position, or None for token ids.
        vocabulary_size: token ids run from 0 to vocabulary_size - 1; None for features.
        precision: of the product with float32 features, see
            :func:`~multimodal_pad.models.masked_attention`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        feature_width: int | None,
        vocabulary_size: int | None,
        kernel_size: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        precision: Precision | None = None,
    ) -> None:
        self.d_model = d_model
        self.is_tokens = vocabulary_size is not None
        with drawn_at_once(self, rngs) as rngs:
            if vocabulary_size is not None:
                self.project = nnx.Embed(
                    vocabulary_size, d_model, dtype=dtype, embedding_init=embedding_normal, rngs=rngs
                )
            else:
                # Neighbouring positions side by side: one matrix product instead of a convolution.
                self.kernel_size = kernel_size
                width = kernel_size * (feature_width or 0)
                self.project = dense(width, d_model, use_bias=False, dtype=dtype, precision=precision, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """``(B, L, F)`` or ``(B, L)`` and mask ``(B, L)`` to ``(B, L, d_model)``, 0 at padding."""
        real = mask[..., None]
        if self.is_tokens:
            x = jnp.where(mask, x, 0)
        else:
            x = _neighbours(jnp.where(real, x.reshape(*mask.shape, -1), 0), self.kernel_size)
        x = self.project(x) * np.sqrt(self.d_model).astype(np.float32)
        x = x + sinusoidal_positions(x.shape[1], self.d_model).astype(x.dtype)[None]
        return jnp.where(real, x, 0).astype(self.project.dtype)


def dense(inputs: int, outputs: int, **options: Any) -> nnx.Linear:
    """``nnx.Linear`` with our initializers."""
    return nnx.Linear(inputs, outputs, kernel_init=lecun_normal, bias_init=zeros, **options)


def _neighbours(x: jax.Array, kernel_size: int) -> jax.Array:
    """``(B, L, F)`` to ``(B, L, kernel_size * F)``: each position with those around it, 0 outside."""
    if kernel_size == 1:
        return x
    reach, length = kernel_size // 2, x.shape[1]
    x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return jnp.concatenate([x[:, i : i + length] for i in range(kernel_size)], axis=-1)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with scale and bias; in float32 within."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        with drawn_at_once(self, rngs) as rngs:
            self.scale = nnx.Param(ones(rngs.params(), (width,)))
            self.bias = nnx.Param(zeros(rngs.params(), (width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(N, d)`` to the same shape and dtype."""
        return _layer_norm(x, self.scale[...], self.bias[...])


@jax.custom_vjp
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """The gradient is spelt out, so that two numbers per row are kept for it and no copies of ``x``."""
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(wide - mean).mean(axis=-1, keepdims=True) + 1e-6)
    return ((wide - mean) * inverse * scale[None] + bias[None]).astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = saved
    gradient = gradient.astype(jnp.float32)
    normed, scaled = (x.astype(jnp.float32) - mean) * inverse, gradient * scale[None]
    along = (scaled * normed).mean(axis=-1, keepdims=True)
    to_x = inverse * (scaled - scaled.mean(axis=-1, keepdims=True) - normed * along)
    return to_x.astype(x.dtype), (gradient * normed).sum(axis=0), gradient.sum(axis=0)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class EncoderLayer(nnx.Module):
    """A pre-LN layer: attention and residual, then a ReLU feed-forward part of width 4d and residual.

    One layer norm serves target and source, and attention without a real key adds exactly zero.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        dropout_rate: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        precision: Precision | None = None,
    ) -> None:
        self.num_heads, self.dropout_rate = num_heads, dropout_rate
        self.precision: Precision | None = precision
        with drawn_at_once(self, rngs) as rngs:
            self.attention_norm = LayerNorm(width, rngs=rngs)
            make = partial(dense, dtype=dtype, precision=precision, rngs=rngs)
            self.query = make(width, width)
            self.key_value = make(width, 2 * width)
            self.output = make(width, width)
            self.feed_forward_norm = LayerNorm(width, rngs=rngs)
            self.expand = make(width, 4 * width)
            self.contract = make(4 * width, width)

    def __call__(
        self,
        x: jax.Array,
        source: jax.Array | None,
        lengths: jax.Array,
        source_lengths: jax.Array,
        implementation: Implementation | None,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        """``x (B * T, d)`` attends to ``source (B * S, d)``, or to itself where that is None."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        normed = self.attention_norm(x)
        normed_source = normed if source is None else self.attention_norm(source)
        rows = len(lengths)
        key, value = jnp.split(_heads(self.key_value(normed_source), rows, 2 * self.num_heads), 2, axis=2)
        attended = masked_attention(
            _heads(self.query(normed), rows, self.num_heads),
            key,
            value,
            query_lengths=lengths,
            key_lengths=source_lengths,
            implementation=implementation,
            precision=self.precision,
        )
        attended = self.output(attended.reshape(x.shape)).reshape(rows, -1, x.shape[1])
        attended = jnp.where((source_lengths > 0)[:, None, None], attended, 0).reshape(x.shape)
        x = x + dropout(attended, self.dropout_rate, keys[0])
        hidden = self.contract(jax.nn.relu(self.expand(self.feed_forward_norm(x))))
        return x + dropout(hidden, self.dropout_rate, keys[1])


def _heads(x: jax.Array, rows: int, count: int) -> jax.Array:
    """``(B * L, d)`` to ``(B, L, H, d / H)``."""
    return x.reshape(rows, -1, count, x.shape[1] // count)


_FEW = 2
"""Layers that are written out: up to two, they are traced a quarter faster than a scan, and compiled no slower."""


class Encoder(nnx.Module):
    """``num_layers`` encoder layers and a final layer norm; the layers are scanned.

    XLA compiles one layer whatever their number, so compile time does not grow with depth; one or
    two are written out. The parameters of the layers are stacked along their first axis.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_layers: int,
        *,
        dropout_rate: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        precision: Precision | None = None,
    ) -> None:
        self.num_layers = num_layers
        with drawn_at_once(self, rngs) as rngs:
            self.layers = EncoderLayer(
                width,
                num_heads,
                dropout_rate=dropout_rate,
                dtype=dtype,
                rngs=stacked(rngs, num_layers),
                precision=precision,
            )
            self.norm = LayerNorm(width, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        source: jax.Array | None = None,
        *,
        lengths: jax.Array,
        source_lengths: jax.Array | None = None,
        implementation: Implementation | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Encode ``x (B, T, d)``: attention to ``source (B, S, d)``, or to ``x`` itself.

        ``lengths`` and ``source_lengths`` are ``(B,)``. What is at padding positions of the result
        is finite and of no meaning.
        """
        source_lengths = lengths if source_lengths is None else source_lengths
        graphdef, stacked = nnx.split(self.layers)
        keys = None if dropout_key is None else jax.random.split(dropout_key, self.num_layers)

        # Positions of all samples in one axis: of three, XLA would copy activations to transpose them for the gradients
        # of the kernels.
        flat = x.reshape(-1, x.shape[-1])
        flat_source = None if source is None else source.reshape(-1, source.shape[-1])

        def body(flat: jax.Array, each: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, None]:
            layer = nnx.merge(graphdef, each[0])
            return layer(flat, flat_source, lengths, source_lengths, implementation, each[1]), None

        if self.num_layers <= _FEW:
            for layer in range(self.num_layers):
                flat, _ = body(flat, jax.tree.map(lambda x, layer=layer: x[layer], (stacked, keys)))
        else:
            flat, _ = jax.lax.scan(body, flat, (stacked, keys))
        return self.norm(flat).reshape(x.shape)
