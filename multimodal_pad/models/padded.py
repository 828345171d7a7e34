"""The padded layout as encoders see it: attention, and means over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.models.attention import Precision, masked_attention
from multimodal_pad.models.attention_choice import Implementation, check_implementation, select_implementation
from multimodal_pad.models.stretches import put_together, take_apart
from multimodal_pad.models.tiled import Attention, Heads, tiled_attentions


class PaddedPositions:
    """What only a layout knows of the positions of a batch.

    Encoders see one axis: the positions of each modality, of ``counts`` many, one modality after the other, and in each
    the samples one after the other.

    Args:
        masks: bool ``(B, L_m)`` of each modality, True = real.
        lengths: int ``(B,)`` of each modality.
        num_heads: of attention.
        implementation: of attention; by default the one that
            :func:`~multimodal_pad.models.select_implementation` names.
        precision: of the products of attention, see :func:`~multimodal_pad.models.masked_attention`.
    """

    def __init__(
        self,
        masks: Sequence[jax.Array],
        lengths: Sequence[jax.Array],
        *,
        num_heads: int,
        implementation: Implementation | None = None,
        precision: Precision | None = None,
    ) -> None:
        self._masks, self._lengths = tuple(masks), tuple(x.astype(jnp.int32) for x in lengths)
        self._num_heads = num_heads
        self._implementation: Implementation | None = implementation
        self._precision: Precision | None = precision
        self._rows = len(lengths[0])
        self._longest = tuple(mask.shape[1] for mask in masks)
        self.counts = tuple(self._rows * length for length in self._longest)

    def attend(self, inputs: Sequence[jax.Array], attentions: tuple[Attention, ...], width: int) -> jax.Array:
        """Do all attentions of a stage.

        Args:
            inputs: arrays ``(N, columns)``.
            attentions: which columns of which positions read which; queries follow one another without a gap.
            width: columns of a query, a key, a value and a result.

        Returns:
            ``(N, width)``. At padding of the target, and where the source is missing, it is finite and of no meaning.
        """
        head = width // self._num_heads
        if self._implementation is not None:
            check_implementation(self._implementation, inputs[0].dtype, head)
        implementation = self._implementation or select_implementation(inputs[0].dtype, head).implementation
        if implementation == "tiled":
            starts = tuple(jnp.arange(self._rows, dtype=jnp.int32) * longest for longest in self._longest)
            heads = Heads(self._num_heads, head)
            return tiled_attentions(attentions, heads, self._precision, tuple(inputs), starts, self._lengths)
        pieces = self._pieces(inputs, attentions, width)
        results = []
        for a in attentions:
            query, key, value = (
                pieces[place].reshape(self._rows, self._longest[m], self._num_heads, head)
                for place, m in ((a.query, a.target), (a.key, a.source), (a.value, a.source))
            )
            out = masked_attention(
                query,
                key,
                value,
                query_lengths=self._lengths[a.target],
                key_lengths=self._lengths[a.source],
                implementation=implementation,
                precision=self._precision,
            )
            results.append(out.reshape(-1, width))
        return put_together(results)

    def _pieces(
        self, inputs: Sequence[jax.Array], attentions: tuple[Attention, ...], width: int
    ) -> Mapping[tuple[int, int, int], jax.Array]:
        """What attentions read ``(N_m, width)``, by place."""
        pieces = {}
        for array, x in enumerate(inputs):
            starts = sorted({p.start for a in attentions for p in (a.query, a.key, a.value) if p.array == array})
            sizes = tuple(np.diff([*starts, len(x)]).tolist())
            for start, part in zip(starts, take_apart(x, sizes), strict=True):
                columns = jnp.split(part, part.shape[1] // width, axis=1)
                pieces |= {(array, start, width * i): column for i, column in enumerate(columns)}
        return pieces

    @property
    def present(self) -> jax.Array:
        """Bool ``(B, M)``: which samples have which modality."""
        return jnp.stack(self._lengths, axis=1) > 0

    def sources_present(self, pairs: Sequence[tuple[int, int]]) -> list[jax.Array]:
        """Bool ``(N_target, 1)`` of each pair: whether the sample of a position has the source."""
        return [
            jnp.broadcast_to((self._lengths[source] > 0)[:, None], self._masks[target].shape).reshape(-1, 1)
            for target, source in pairs
        ]

    def means(self, x: jax.Array) -> jax.Array:
        """Means of ``x (sum of N_m, d)`` over each sample's real positions, ``(B, M, d)`` float32; 0 where none is."""
        parts = zip(take_apart(x, self.counts), self._masks, strict=True)
        return jnp.stack([masked_mean(part.reshape(*mask.shape, -1), mask) for part, mask in parts], axis=1)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of ``x (B, L, d)`` over real positions in float32, ``(B, d)``; 0 where there are none."""
    total = jnp.where(mask[..., None], x, 0).sum(axis=1, dtype=jnp.float32)
    return total / jnp.maximum(mask.sum(axis=1), 1)[:, None]
