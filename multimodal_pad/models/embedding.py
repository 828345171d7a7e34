"""Input embedding: features or token ids to the width of the model, with positions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad.models.attention import Precision
from multimodal_pad.models.initializing import drawn_at_once, embedding_normal, lecun_normal, zeros
from multimodal_pad.models.positions import Positions


def sinusoidal_positions(length: int, width: int) -> np.ndarray:
    """Return ``(length, width)`` float32: sine and cosine of the position (Vaswani et al. 2017, section 3.5).

    The first half holds the sines, the second the cosines. Position 0 is a sample's first real
    position, so that padding on the right never moves it.

    >>> sinusoidal_positions(2, 4).round(3).tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.8410000205039978, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    half = (width + 1) // 2
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(half) / max(1, half))
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table[:, :width].astype(np.float32)


class InputEmbedding(nnx.Module):
    """The embedding of one modality's features or token ids, to width ``d_model``, with positions.

    Features pass a convolution of odd ``kernel_size`` that keeps the length and sees zeros beyond a
    sample's end, whatever the array holds there; token ids are looked up. The result is scaled by
    sqrt(d_model) before positions are added, as in MulT.

    Args:
        feature_width: features per position, or None for token ids.
        vocabulary_size: token ids run from 0 to vocabulary_size - 1, and others become NaN; None for features.
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

    def __call__(self, x: jax.Array, positions: Positions) -> jax.Array:
        """Embed features or token ids, as the batch holds them, to ``(N, d_model)``, 0 at padding."""
        x = positions.rows(x)
        x = self.project(_ids(x[:, 0]) if self.is_tokens else positions.neighbours(x, self.kernel_size))
        x = x * np.sqrt(self.d_model).astype(np.float32)
        x = positions.plus_places(x, sinusoidal_positions(positions.longest, self.d_model).astype(x.dtype))
        return jnp.where(positions.real, x, 0).astype(self.project.dtype)


def _ids(x: jax.Array) -> jax.Array:
    """Make negative token ids too large: those become NaN in JAX, but negative ones would count from the end."""
    if not jnp.issubdtype(x.dtype, jnp.signedinteger):
        return x
    x = x.astype(jnp.promote_types(x.dtype, jnp.int32))
    return jnp.where(x < 0, jnp.iinfo(x.dtype).max, x)


def dense(inputs: int, outputs: int, **options: Any) -> nnx.Linear:
    """Make an ``nnx.Linear`` with our initializers."""
    return nnx.Linear(inputs, outputs, kernel_init=lecun_normal, bias_init=zeros, **options)
