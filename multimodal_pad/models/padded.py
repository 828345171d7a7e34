"""Positions in the padded layout: a row for each sample."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.models.attention import Precision, masked_attention
from multimodal_pad.models.attention_choice import Implementation
from multimodal_pad.models.positions import Positions


class PaddedPositions(Positions):
    """The positions of one modality, row after row.

    Args:
        lengths: int ``(B,)``.
        longest: L, positions of a row.
    """

    packed: ClassVar[bool] = False

    def __init__(self, lengths: jax.Array, longest: int) -> None:
        self.lengths, self.longest, self.count = lengths.astype(jnp.int32), longest, len(lengths) * longest
        self._mask = jnp.arange(longest, dtype=jnp.int32)[None] < self.lengths[:, None]
        self.real = self._mask.reshape(-1, 1)

    @property
    def starts(self) -> jax.Array:
        """The first position of each row."""
        return jnp.arange(len(self.lengths), dtype=jnp.int32) * self.longest

    def of_sample(self, values: jax.Array) -> jax.Array:
        """Repeat each value for a whole row."""
        return jnp.broadcast_to(values[:, None], self._mask.shape).reshape(-1)

    def neighbours(self, x: jax.Array, kernel_size: int) -> jax.Array:
        """Put slices of rows side by side, between zeros; a row's padding is 0 already."""
        if kernel_size == 1:
            return x
        reach = kernel_size // 2
        x = jnp.pad(self._by_row(x), ((0, 0), (reach, reach), (0, 0)))
        beside = [x[:, i : i + self.longest] for i in range(kernel_size)]
        return jnp.concatenate(beside, axis=-1).reshape(self.count, -1)

    def plus_places(self, x: jax.Array, table: np.ndarray) -> jax.Array:
        """Add the table to each row."""
        return (self._by_row(x) + table[None]).reshape(x.shape)

    def mean(self, x: jax.Array) -> jax.Array:
        """Divide sums over rows by lengths."""
        total = jnp.where(self._mask[..., None], self._by_row(x), 0).sum(axis=1, dtype=jnp.float32)
        return total / jnp.maximum(self.lengths, 1)[:, None]

    def attend(
        self,
        source: Positions,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        implementation: Implementation,
        precision: Precision | None,
    ) -> jax.Array:
        """Attend by :func:`masked_attention`."""
        rows = len(self.lengths)
        query, key, value = (x.reshape(rows, -1, *x.shape[1:]) for x in (query, key, value))
        out = masked_attention(
            query,
            key,
            value,
            query_lengths=self.lengths,
            key_lengths=source.lengths,
            implementation=implementation,
            precision=precision,
        )
        return out.reshape(-1, *out.shape[2:])

    def _by_row(self, x: jax.Array) -> jax.Array:
        """Reshape ``(N, d)`` to ``(B, L, d)``."""
        return x.reshape(*self._mask.shape, -1)
