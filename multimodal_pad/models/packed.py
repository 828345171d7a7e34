"""Positions in the packed layout: the samples end to end."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.layouts.segment_ids import places_of, segments_of, starts_of
from multimodal_pad.models.attention import Precision
from multimodal_pad.models.attention_choice import Implementation
from multimodal_pad.models.positions import Positions
from multimodal_pad.models.segments import of_segment, segment_attention, segment_mean


class PackedPositions(Positions):
    """The positions of one modality, sample after sample, padding behind the last one.

    Args:
        lengths: int ``(B,)``.
        longest: N, the capacity, which a single sample may fill.
    """

    packed: ClassVar[bool] = True

    def __init__(self, lengths: jax.Array, longest: int) -> None:
        self.lengths, self.longest, self.count = lengths.astype(jnp.int32), longest, longest
        self._segments = segments_of(self.lengths, longest)
        self._places = places_of(self.lengths, longest)
        self.real = (self._segments < len(lengths))[:, None]

    @property
    def starts(self) -> jax.Array:
        """The first position of each sample."""
        return starts_of(self.lengths)

    def of_sample(self, values: jax.Array) -> jax.Array:
        """Return the values by segment; at padding that of the last sample."""
        return of_segment(values, self._segments)

    def neighbours(self, x: jax.Array, kernel_size: int) -> jax.Array:
        """Put slices of the axis side by side, 0 where they reach into another sample."""
        if kernel_size == 1:
            return x
        reach, lengths = kernel_size // 2, self.of_sample(self.lengths)
        x = jnp.pad(x, ((reach, reach), (0, 0)))
        beside = []
        for i in range(kernel_size):
            place = self._places + (i - reach)
            inside = (place >= 0) & (place < lengths)
            beside.append(jnp.where(inside[:, None], x[i : i + self.count], 0))
        return jnp.concatenate(beside, axis=-1)

    def plus_places(self, x: jax.Array, table: np.ndarray) -> jax.Array:
        """Add rows of the table, gathered by place."""
        return x + jnp.asarray(table).at[self._places].get(mode="promise_in_bounds")

    def mean(self, x: jax.Array) -> jax.Array:
        """Average by :func:`segment_mean`."""
        return segment_mean(x, self.lengths)

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
        """Attend by :func:`segment_attention`."""
        return segment_attention(
            query,
            key,
            value,
            query_lengths=self.lengths,
            key_lengths=source.lengths,
            implementation=implementation,
            precision=precision,
        )
