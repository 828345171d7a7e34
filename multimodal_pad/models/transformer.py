"""The masked multimodal transformer: MulT's crossmodal design for any number of modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Layout
from multimodal_pad.layouts.packed import PACKED, PackedBatch
from multimodal_pad.layouts.padded import PADDED, PaddedBatch
from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.lengths.samples import check_names
from multimodal_pad.models.attention import Precision, check_precision
from multimodal_pad.models.attention_choice import Implementation, select_implementation
from multimodal_pad.models.embedding import InputEmbedding, dense
from multimodal_pad.models.encoder import Encoders, dropout
from multimodal_pad.models.initializing import drawn_at_once, forked
from multimodal_pad.models.packed import PackedPositions
from multimodal_pad.models.padded import PaddedPositions
from multimodal_pad.models.positions import BatchPositions, Positions
from multimodal_pad.models.stretches import put_together, take_apart


@dataclass(frozen=True)
class ModalityConfig:
    """The input of one modality: exactly one of the two sizes, and a kernel.

    Attributes:
        feature_width: features per position, for arrays ``(B, L, F)`` or packed ``(N, F)``; for features of more
            axes their product.
        vocabulary_size: number of token ids, for arrays ``(B, L)`` or packed ``(N,)`` of ints.
        kernel_size: positions that the input convolution sees; odd. Features only.

    Raises:
        PaddingError: both sizes or neither, a size below 1, an even kernel, or one for token ids.

    >>> ModalityConfig(feature_width=74, kernel_size=3)
    ModalityConfig(feature_width=74, vocabulary_size=None, kernel_size=3)
    """

    feature_width: int | None = None
    vocabulary_size: int | None = None
    kernel_size: int = 1

    def __post_init__(self) -> None:
        sizes = (self.feature_width, self.vocabulary_size)
        if (sizes[0] is None) == (sizes[1] is None) or min(n for n in sizes if n is not None) < 1:
            raise PaddingError(
                f"got feature_width={sizes[0]} and vocabulary_size={sizes[1]}; give exactly one of them, at least 1"
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise PaddingError(f"got kernel_size={self.kernel_size}; it must be odd, so that the length is kept")
        if self.vocabulary_size is not None and self.kernel_size != 1:
            raise PaddingError(f"got kernel_size={self.kernel_size} for token ids; a kernel is for features")


@dataclass(frozen=True)
class TransformerConfig:
    """All options of the model, with their defaults.

    Attributes:
        modalities: the input of each modality, by name; at least one.
        num_outputs: classes, or 1 for regression.
        d_model: width of the crossmodal encoders.
        num_heads: attention heads; divides ``d_model``.
        crossmodal_layers: layers of each crossmodal encoder.
        memory_layers: layers of each memory; by default ``max(crossmodal_layers, 3)`` as in MulT.
        dropout_rate: on embeddings, residual branches and the head, in training.
        dtype: compute dtype, ``"float32"`` or ``"bfloat16"``; parameters, softmax statistics and
            the head stay in float32.
        attention: an implementation by name; by default the one that
            :func:`~multimodal_pad.models.select_implementation` chooses; ``print(model)`` shows which. ``"cudnn"``
            takes no packed batches.
        precision: of the products of float32 matrices: ``"default"``, ``"high"`` or ``"highest"``, as in
            :class:`jax.lax.Precision`; by default JAX's ``jax_default_matmul_precision``. It matters where
            the device multiplies float32 in less by default: in TF32 on an NVIDIA GPU, in bfloat16 on a TPU.

    Raises:
        LengthError: no modality, or one that is called ``"targets"`` or ``"position_targets"``.
        PaddingError: a number out of range, heads that don't divide ``d_model``, or an unknown name.

    >>> modalities = {"text": ModalityConfig(vocabulary_size=9000), "audio": ModalityConfig(feature_width=74)}
    >>> config = TransformerConfig(modalities, num_outputs=7, d_model=64)
    >>> config.memory_layers, config.memory_width, config.cost.modalities
    (4, 64, ('text', 'audio'))
    """

    modalities: Mapping[str, ModalityConfig]
    num_outputs: int
    d_model: int = 40
    num_heads: int = 8
    crossmodal_layers: int = 4
    memory_layers: int | None = None
    dropout_rate: float = 0.1
    dtype: str = "float32"
    attention: Implementation | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_names(tuple(self.modalities))
        for name in ("num_outputs", "d_model", "num_heads", "crossmodal_layers"):
            if getattr(self, name) < 1:
                raise PaddingError(f"got {name}={getattr(self, name)}; it must be at least 1")
        if self.memory_layers is None:
            object.__setattr__(self, "memory_layers", max(self.crossmodal_layers, 3))
        elif self.memory_layers < 1:
            raise PaddingError(f"got memory_layers={self.memory_layers}; it must be at least 1")
        if self.d_model % self.num_heads:
            raise PaddingError(f"got d_model={self.d_model} and num_heads={self.num_heads}; heads must divide it")
        if not 0 <= self.dropout_rate < 1:
            raise PaddingError(f"got dropout_rate={self.dropout_rate}; it must be in [0, 1)")
        if self.dtype not in ("float32", "bfloat16"):
            raise PaddingError(f"got dtype={self.dtype!r}; choose 'float32' or 'bfloat16'")
        if self.attention is not None and self.attention not in get_args(Implementation):
            raise PaddingError(f"got attention={self.attention!r}; choose one of {list(get_args(Implementation))}")
        check_precision(self.precision)

    def __hash__(self) -> int:
        values = {**vars(self), "modalities": tuple(self.modalities.items())}
        return hash(tuple(values.items()))

    @property
    def memory_width(self) -> int:
        """Width of the memories: the crossmodal results for one target, side by side."""
        return self.d_model * max(1, len(self.modalities) - 1)

    @property
    def cost(self) -> TransformerCost:
        """The cost model of this transformer; columns in the order of ``modalities``.

        Needs no device: where no attention is named, it assumes that scores are not kept.
        """
        return TransformerCost(
            tuple(self.modalities),
            d_model=self.d_model,
            crossmodal_layers=self.crossmodal_layers,
            memory_layers=self.memory_layers or 1,
            feature_widths={m: c.feature_width or 0 for m, c in self.modalities.items()},
            kernel_sizes={m: c.kernel_size for m, c in self.modalities.items()},
            num_heads=self.num_heads,
            keeps_scores=self.attention == "xla",
            itemsize=jnp.dtype(self.dtype).itemsize,
        )


class MultimodalTransformer(nnx.Module):
    """MulT (Tsai et al., ACL 2019) for M modalities, masked so that padding changes nothing.

    Each modality is embedded to ``d_model``. For each ordered pair (target, source) a crossmodal
    encoder lets the target attend to the source's embedding. The results for one target are
    concatenated and pass a self-attention memory; with one modality the memory reads the
    embedding. The mean of each memory over real positions is read out, and a residual two-layer
    head maps them to the outputs.

    Unlike MulT, no mask is causal, padding is masked everywhere, and the readout is a masked mean.
    It takes padded and packed batches with the same parameters. Outputs and gradients of a sample depend neither on
    the layout, nor on how far it was padded, nor on the values in the padding, nor on other samples (in a packed
    batch: as long as those are finite): in float32 to 1e-5, in bfloat16 to 5e-3. (On an NVIDIA GPU float32 needs
    ``precision="highest"`` for that, since JAX multiplies in TF32 there: 3e-3.) A missing modality contributes
    exactly zero and gets exactly zero gradient. Differentiate it in reverse mode (``jax.grad``, of any order);
    ``jax.jvp`` is not defined.

    With a ``dropout_rate`` above 0 the model holds a stream of random keys, forked off ``rngs.dropout`` as that of an
    ``nnx.Dropout``, and takes one key from it at each call in training mode. Like all of Flax NNX it is made in that
    mode: ``model.eval()`` turns dropout off, and ``model.train()`` on.

    The encoders of a kind share one program text and one stacked set of parameters, whatever the number of modalities:
    ``crossmodal.layers.query.kernel`` is ``(M (M - 1), layers, d, d)``, over the pairs (target, source) in the order
    of ``itertools.permutations(modalities, 2)``: all sources of the first target first. With one modality there are
    none, and ``crossmodal`` is None. ``memory.layers.query.kernel`` is ``(M, layers, w, w)``, in the order of the
    modalities.

    Args:
        config: all options of the model.
        rngs: draws the parameters, and keys for dropout where there is any.

    >>> from multimodal_pad import pack_samples, pad_samples
    >>> config = TransformerConfig({"text": ModalityConfig(vocabulary_size=9)}, num_outputs=3, d_model=8)
    >>> model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
    >>> model.eval()
    >>> padded = model(pad_samples([{"text": [1, 2]}, {"text": [3]}], pad_to={"text": 3}))
    >>> packed = model(pack_samples([{"text": [1, 2]}, {"text": [3]}], capacity={"text": 4}))
    >>> padded.shape, bool(jnp.allclose(padded, packed, atol=1e-5))
    ((2, 3), True)
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.deterministic = False
        streams = rngs
        names = tuple(config.modalities)
        width, layers = config.memory_width, config.memory_layers or 1
        readout = width * len(names)
        with drawn_at_once(self, rngs) as rngs:
            shared = {"dtype": jnp.dtype(config.dtype), "precision": config.precision, "rngs": rngs}
            encoders = partial(Encoders, dropout_rate=config.dropout_rate, **shared)
            self.embed = nnx.Dict(
                {
                    name: InputEmbedding(
                        config.d_model,
                        feature_width=modality.feature_width,
                        vocabulary_size=modality.vocabulary_size,
                        kernel_size=modality.kernel_size,
                        **shared,
                    )
                    for name, modality in config.modalities.items()
                }
            )
            numbers = range(len(names))
            pairs = tuple(permutations(numbers, 2))
            self.crossmodal = encoders(pairs, config.d_model, config.crossmodal_layers) if pairs else None
            self.memory = encoders(tuple((m, m) for m in numbers), width, layers)
            head = partial(dense, readout, precision=config.precision, rngs=rngs)
            self.head_expand = head(readout)
            self.head_contract = head(readout)
            self.head_output = head(config.num_outputs)
        if config.dropout_rate:  # after the parameters, so that these are the same at any rate
            self.rngs = forked(streams["dropout"])

    def __str__(self) -> str:
        """Describe the model in a few lines: its size, and which implementation of attention runs, and why."""
        config = self.config
        size = sum(int(x.size) for x in jax.tree.leaves(nnx.state(self, nnx.Param)))
        lines = [
            f"MultimodalTransformer of {', '.join(config.modalities)}: {size:,} parameters, {config.dtype}, "
            f"matrix products in {config.precision or jax.config.jax_default_matmul_precision or 'default'} precision"  # type: ignore[attr-defined]
        ]
        parts = {"crossmodal": config.d_model, "memory": config.memory_width}
        for part, width in parts.items() if len(config.modalities) > 1 else [("memory", config.memory_width)]:
            head = width // config.num_heads
            lines.append(f"{part} attention, {config.num_heads} heads of {head}: {self._chosen(head)}")
        return "\n".join(lines)

    def _chosen(self, head: int) -> str:
        """Say which implementation runs for heads of a width, and why; for packed batches too where that is another."""
        if self.config.attention is not None:
            return self.config.attention + (" (padded batches only)" if self.config.attention == "cudnn" else "")
        padded, packed = (select_implementation(self.config.dtype, head, packed=packed) for packed in (False, True))
        text = f"{padded.implementation} ({padded.reason})"
        if packed.implementation == padded.implementation:
            return text
        return f"{text}; for packed batches {packed.implementation} ({packed.reason})"

    def __call__(self, batch: PaddedBatch | PackedBatch) -> jax.Array:
        """Compute outputs ``(B, num_outputs)`` float32.

        Args:
            batch: its features ``{m: (B, L_m, *F_m)}``, or packed ``{m: (N_m, *F_m)}``, or such ints without ``F_m``
                for token ids, and its lengths are read.

        Raises:
            PaddingError: a batch of another layout, or for several devices, or an implementation of attention that
                can't serve here.
        """
        batch.layout.check_alone(batch)
        names, rate = tuple(self.config.modalities), self.config.dropout_rate
        keys = _Keys(None if self.deterministic or not rate else self.rngs())
        kind, longest = _positions_in(batch.layout), dict(batch.shape.lengths)
        modalities = [kind(jnp.asarray(batch.lengths[name]), longest[name]) for name in names]
        positions = BatchPositions(
            modalities,
            num_heads=self.config.num_heads,
            implementation=self.config.attention,
            precision=self.config.precision,
            tile_pairs=_pairs_of(batch, names),
        )
        embedded = put_together(
            [
                self.embed[name](jnp.asarray(batch.features[name]), modality)
                for name, modality in zip(names, modalities, strict=True)
            ]
        )
        embedded = dropout(embedded, rate, keys.next())
        crossed = self._crossed(embedded, positions, keys.next())
        memories = self.memory(crossed, None, positions, dropout_key=keys.next())
        # The scale and bias of the norm, applied after the mean: the same result, on one row per sample.
        norm = self.memory.norm
        readout = positions.means(memories) * norm.scale[...][None] + norm.bias[...][None]
        readout = jnp.where(positions.present[..., None], readout, 0).reshape(len(readout), -1)
        hidden = dropout(jax.nn.relu(self.head_expand(readout)), rate, keys.next())
        return self.head_output(readout + self.head_contract(hidden))

    def _crossed(self, embedded: jax.Array, positions: BatchPositions, key: jax.Array | None) -> jax.Array:
        """Return the memories' input ``(sum of N_m, memory_width)``: all crossmodal results for a target, joined."""
        if self.crossmodal is None:
            return embedded
        counts, others = positions.counts, len(positions.counts) - 1
        targets = [part for part in take_apart(embedded, counts) for _ in range(others)]
        encoded = self.crossmodal(put_together(targets), embedded, positions, dropout_key=key)
        norm = self.crossmodal.norm
        scale, bias = (x[...].reshape(len(counts), -1) for x in (norm.scale, norm.bias))
        beside = []
        for m, part in enumerate(take_apart(encoded, tuple(others * count for count in counts))):
            x = jnp.swapaxes(part.reshape(others, counts[m], -1), 0, 1).reshape(counts[m], -1)
            beside.append((x * scale[m][None] + bias[m][None]).astype(embedded.dtype))
        return put_together(beside)


_POSITIONS: Mapping[str, Callable[[jax.Array, int], Positions]] = {
    PADDED.name: PaddedPositions,
    PACKED.name: PackedPositions,
}


def _positions_in(layout: Layout) -> Callable[[jax.Array, int], Positions]:
    """Return the class of a modality's positions in a layout, which takes lengths and the batch shape's length."""
    if layout.name not in _POSITIONS:
        raise PaddingError(f"got a {layout.name} batch; the model takes these layouts: {', '.join(_POSITIONS)}")
    return _POSITIONS[layout.name]


def _pairs_of(batch: PaddedBatch | PackedBatch, names: Sequence[str]) -> dict[tuple[int, int], jax.Array] | None:
    """Return the pairs of tiles that a batch lists, by the numbers of its modalities."""
    if not isinstance(batch, PackedBatch) or batch.tile_pairs is None:
        return None
    return {(names.index(t), names.index(s)): jnp.asarray(x) for (t, s), x in batch.tile_pairs.items()}


class _Keys:
    """PRNG keys in a fixed order, or None for each where dropout is off."""

    def __init__(self, key: jax.Array | None) -> None:
        self._key, self._count = key, 0

    def next(self) -> jax.Array | None:
        self._count += 1
        return None if self._key is None else jax.random.fold_in(self._key, self._count)
