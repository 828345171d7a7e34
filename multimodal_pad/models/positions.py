"""The positions of a batch for embeddings and encoders, whatever the layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.models.attention import Precision
from multimodal_pad.models.attention_choice import Implementation, choose_implementation
from multimodal_pad.models.paired import Paired, paired_attentions
from multimodal_pad.models.stretches import put_together, take_apart
from multimodal_pad.models.tiled import Attention, Heads, tiled_attentions


class Positions(ABC):
    """The positions of one modality, one after the other on one axis: all that depends on the layout.

    Args:
        lengths: int ``(B,)``.
        longest: the bucket length or capacity of the modality in the batch shape. No sample is longer.

    Attributes:
        lengths: ``(B,)`` int32.
        longest: as given.
        count: N, positions on the axis.
        real: bool ``(N, 1)``.
    """

    packed: ClassVar[bool]
    """Whether samples share one sequence, which not every implementation of attention can separate."""

    lengths: jax.Array
    longest: int
    count: int
    real: jax.Array

    @property
    @abstractmethod
    def starts(self) -> jax.Array:
        """``(B,)`` int32: the first position of each sample."""

    @abstractmethod
    def of_sample(self, values: jax.Array) -> jax.Array:
        """Spread ``(B,)`` to ``(N,)``: the value of each position's sample; any value at padding."""

    @abstractmethod
    def neighbours(self, x: jax.Array, kernel_size: int) -> jax.Array:
        """Put each position's neighbours beside it: ``(N, F)``, 0 at padding, to ``(N, kernel_size * F)``.

        Neighbours outside of the sample are 0; at padding the result is any value.
        """

    @abstractmethod
    def plus_places(self, x: jax.Array, table: np.ndarray) -> jax.Array:
        """Add to ``x (N, d)`` the row of ``table (longest, d)`` for the place of each position in its sample."""

    @abstractmethod
    def mean(self, x: jax.Array) -> jax.Array:
        """Average ``x (N, d)`` over each sample's positions in float32, ``(B, d)``; 0 where there are none."""

    @abstractmethod
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
        """Let queries ``(N, H, D)`` attend to keys and values ``(N_source, H, D)`` of a source in the same layout."""

    @property
    def samples(self) -> jax.Array:
        """``(N,)`` int32: the sample of each position, by its place in the batch; -1 at padding."""
        return jnp.where(self.real[:, 0], self.of_sample(jnp.arange(len(self.lengths))), -1)

    def rows(self, x: jax.Array) -> jax.Array:
        """Reshape features as the batch holds them to ``(N, F)``, exactly 0 at padding, whatever it holds."""
        return jnp.where(self.real, x.reshape(self.count, -1), 0)


class BatchPositions:
    """The positions of all modalities of a batch.

    Encoders see one axis: the positions of each modality, of ``counts`` many, one modality after the other.

    Args:
        modalities: the positions of each.
        num_heads: of attention.
        implementation: of attention; by default the one that
            :func:`~multimodal_pad.models.select_implementation` names.
        precision: of the products of attention, see :func:`~multimodal_pad.models.masked_attention`.
        tile_pairs: of a packed batch that lists them ``(P, 2)``, by numbers of target and source.
    """

    def __init__(
        self,
        modalities: Sequence[Positions],
        *,
        num_heads: int,
        implementation: Implementation | None = None,
        precision: Precision | None = None,
        tile_pairs: Mapping[tuple[int, int], jax.Array] | None = None,
    ) -> None:
        self._modalities = tuple(modalities)
        self._num_heads = num_heads
        self._implementation: Implementation | None = implementation
        self._precision: Precision | None = precision
        self._tile_pairs = tile_pairs
        self.counts = tuple(modality.count for modality in self._modalities)

    def attend(self, inputs: Sequence[jax.Array], attentions: tuple[Attention, ...], width: int) -> jax.Array:
        """Compute all attentions of a stage.

        Args:
            inputs: arrays ``(N, columns)``.
            attentions: which columns of which positions attend to which; queries follow one another without a gap.
            width: columns of a query, a key, a value and a result.

        Returns:
            ``(N, width)``. At padding of the target, and where the source is missing, it is finite but meaningless.

        Raises:
            PaddingError: the implementation asked for can't serve here.
        """
        heads = Heads(self._num_heads, width // self._num_heads)
        packed = self._modalities[0].packed
        implementation = choose_implementation(self._implementation, inputs[0].dtype, heads.width, packed=packed)
        if implementation == "tiled":
            starts = tuple(modality.starts for modality in self._modalities)
            lengths = tuple(modality.lengths for modality in self._modalities)
            return tiled_attentions(attentions, heads, self._precision, tuple(inputs), starts, lengths)
        pieces = _pieces(inputs, attentions, width)
        read = [[pieces[place].reshape(-1, *heads) for place in (a.query, a.key, a.value)] for a in attentions]
        if self._tile_pairs is not None and implementation == "xla":
            of = [modality.samples for modality in self._modalities]
            paired = [
                Paired(query, key, value, of[a.target], of[a.source], self._tile_pairs[a.target, a.source])
                for a, (query, key, value) in zip(attentions, read, strict=True)
            ]
            results = paired_attentions(paired, self._precision)
        else:
            how: Any = {"implementation": implementation, "precision": self._precision}
            places = [(self._modalities[a.target], self._modalities[a.source]) for a in attentions]
            results = [target.attend(source, *x, **how) for (target, source), x in zip(places, read, strict=True)]
        return put_together([out.reshape(-1, width) for out in results])

    @property
    def present(self) -> jax.Array:
        """Which samples have which modality, bool ``(B, M)``."""
        return jnp.stack([modality.lengths for modality in self._modalities], axis=1) > 0

    def sources_present(self, pairs: Sequence[tuple[int, int]]) -> list[jax.Array]:
        """Return whether each position's sample has the source: bool ``(N_target, 1)`` per pair; any at padding."""
        return [
            self._modalities[target].of_sample(self._modalities[source].lengths > 0)[:, None]
            for target, source in pairs
        ]

    def means(self, x: jax.Array) -> jax.Array:
        """Average ``x (sum of N_m, d)`` over each sample's real positions, ``(B, M, d)`` float32; 0 where none is."""
        parts = zip(self._modalities, take_apart(x, self.counts), strict=True)
        return jnp.stack([modality.mean(part) for modality, part in parts], axis=1)


def _pieces(
    inputs: Sequence[jax.Array], attentions: tuple[Attention, ...], width: int
) -> Mapping[tuple[int, int, int], jax.Array]:
    """Return the places that attentions read, each ``(N_m, width)``."""
    pieces = {}
    for array, x in enumerate(inputs):
        starts = sorted({p.start for a in attentions for p in (a.query, a.key, a.value) if p.array == array})
        sizes = tuple(np.diff([*starts, len(x)]).tolist())
        for start, part in zip(starts, take_apart(x, sizes), strict=True):
            columns = jnp.split(part, part.shape[1] // width, axis=1)
            pieces |= {(array, start, width * i): column for i, column in enumerate(columns)}
    return pieces
