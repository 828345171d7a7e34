"""The packed layout: the samples of a batch end to end, on one axis per modality, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError
from multimodal_pad.layouts.arrays import LayingOut, aligned_empty, array_lengths, laid_out, taken_together
from multimodal_pad.layouts.layout import Batch, BatchShape, Layout, named_layout
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import TARGETS, Sample


class PackedBatch(NamedTuple):
    """B samples end to end on one axis per modality. A NamedTuple of arrays, so ``jax.jit`` takes it as it is.

    Attributes:
        features: ``{m: (N_m, *F_m)}`` in the dtype of the samples: one sample after the other, in the same order in
            each modality, then padding. N_m is the capacity.
        lengths: ``{m: (B,)}`` int32: positions of each sample; 0 = the modality is missing, or the sample only fills
            up the batch.
        targets: ``(B, ...)``, or None where the samples have none. Zeros where a sample only fills up.
        sample_mask: ``(B,)`` bool; False = an empty sample that only fills up the batch.
        ids: int32 ``(B,)``: the numbers of the samples, -1 where one only fills up; None where they were not
            asked for.

    >>> batch = pack_samples([{"text": [5, 6, 7]}, {"text": [8]}], capacity={"text": 6})
    >>> batch.features["text"].tolist(), batch.lengths["text"].tolist(), batch.starts["text"].tolist()
    ([5, 6, 7, 8, 0, 0], [3, 1], [0, 3])
    >>> batch.segment_ids["text"].tolist(), batch.positions["text"].tolist()
    ([0, 0, 0, 1, 2, 2], [0, 1, 2, 0, 0, 0])
    """

    features: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    targets: np.ndarray | None
    sample_mask: np.ndarray
    ids: np.ndarray | None = None

    @property
    def starts(self) -> dict[str, np.ndarray]:
        """``{m: (B,)}`` int32: the first position of each sample, in NumPy or inside of a jitted function."""
        return {name: starts_of(x) for name, x in self.lengths.items()}

    @property
    def segment_ids(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` int32: the sample of each position, by its place in the batch; B at padding."""
        return {name: segments_of(x, len(self.features[name])) for name, x in self.lengths.items()}

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` int32: the place of each position in its sample; 0 at padding."""
        return {name: places_of(x, len(self.features[name])) for name, x in self.lengths.items()}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` bool, True = real: made of the lengths, in NumPy or inside of a jitted function."""
        return {name: np.arange(len(x), dtype=np.int32) < self.lengths[name].sum() for name, x in self.features.items()}

    @property
    def layout(self) -> Layout:
        """The packed one."""
        return PACKED

    @property
    def shape(self) -> BatchShape:
        """The batch shape, with the modalities in the order of their names."""
        return BatchShape.of(self.sample_mask.shape[0], {m: len(x) for m, x in self.features.items()}, PACKED)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the batch, which is what goes to the device."""
        arrays = [*self.features.values(), *self.lengths.values(), self.targets, self.sample_mask, self.ids]
        return sum(x.nbytes for x in arrays if x is not None)


@dataclass(frozen=True)
class PackedLayout(Layout):
    """All samples of a batch end to end, on one axis per modality that holds its capacity of positions.

    The lengths of its batch shapes are capacities.
    """

    name: str = "packed"
    splits: bool = False  # where a share's samples end on the axis, no array says
    end_to_end: bool = True

    def lay_out(
        self,
        arrays: Mapping[str, list[np.ndarray]],
        samples: Sequence[Sample],
        shape: BatchShape,
        **options: Unpack[LayingOut],
    ) -> PackedBatch:
        """Copy the samples end to end."""
        capacities, numbers = dict(shape.lengths), options["numbers"]

        def place(name: str, column: list[np.ndarray], lengths: np.ndarray, value: Any) -> np.ndarray:
            _check_fits(lengths, name, capacities, numbers)
            return _pack(column, capacities[name], value)

        return PackedBatch(*laid_out(arrays, samples, shape.batch_size, place, options))

    def take_apart(self, batch: Batch) -> list[dict[str, Any]]:
        """Cut the axes where samples begin and end."""
        features = {m: np.asarray(x) for m, x in batch.features.items()}
        lengths = {m: np.asarray(x) for m, x in batch.lengths.items()}
        starts = {m: starts_of(x) for m, x in lengths.items()}
        targets = None if batch.targets is None else np.asarray(batch.targets)
        samples = []
        for i in np.flatnonzero(np.asarray(batch.sample_mask)):
            sample: dict[str, Any] = {m: x[starts[m][i] : starts[m][i] + lengths[m][i]] for m, x in features.items()}
            if targets is not None:
                sample[TARGETS] = targets[i]
            samples.append(sample)
        return samples

    def struct(self, example: Batch, shape: BatchShape, like: Callable[..., Any]) -> PackedBatch:
        """Arrays of ``(capacity, ...)`` and ``(B, ...)``; the example is packed, too."""
        count, capacities = shape.batch_size, dict(shape.lengths)
        return PackedBatch(
            {m: like(x, capacities[m]) for m, x in example.features.items()},
            {m: like(x, count) for m, x in example.lengths.items()},
            None if example.targets is None else like(example.targets, count),
            like(example.sample_mask, count),
            None if example.ids is None else like(example.ids, count),
        )

    def full_lengths(self, shape: BatchShape) -> dict[str, np.ndarray]:
        """As even as can be."""
        count = shape.batch_size
        return {m: (n // count + (np.arange(count) < n % count)).astype(np.int32) for m, n in shape.lengths}

    def positions(self, batch_sizes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The capacities."""
        del batch_sizes
        return lengths

    def price(self, batch_sizes: np.ndarray, lengths: np.ndarray, cost: Cost) -> np.ndarray:
        """What samples of equal lengths cost that fill it; where a cost grows faster than lengths, others cost more."""
        return batch_sizes * np.asarray(cost(lengths / batch_sizes[:, None]), np.float64)

    def paid(
        self, batch_sizes: np.ndarray, lengths: np.ndarray, real: np.ndarray, costs: np.ndarray, cost: Cost
    ) -> np.ndarray:
        """The samples' own costs, and what samples of equal lengths cost in the positions that hold nothing."""
        return costs + self.price(batch_sizes, lengths - real, cost)

    def share(self, shape: BatchShape, count: int) -> BatchShape:
        """A run of the samples, and as large a part of the capacities."""
        uneven = [f"{name!r} has {n} positions" for name, n in shape.lengths if n % count]
        if shape.batch_size % count or uneven:
            what = f"a batch of {shape.batch_size} samples" if shape.batch_size % count else uneven[0]
            raise PaddingError(
                f"got {what} to share out over {count}; plan with shares={count} (or a multiple), and a batch size "
                f"that {count} divides"
            )
        shares = tuple((name, n // count) for name, n in shape.lengths)
        return shape._replace(batch_size=shape.batch_size // count, lengths=shares)

    def describe(self, shape: BatchShape) -> str:
        """Samples in (capacities)."""
        return f"{shape.batch_size} packed in (" + ", ".join(f"{m} {n}" for m, n in shape.lengths) + ")"


PACKED = named_layout(PackedLayout())


def pack_samples(
    samples: Sequence[Sample],
    *,
    capacity: Mapping[str, int] | None = None,
    batch_size: int | None = None,
    modalities: Sequence[str] | None = None,
    pad_value: float | Mapping[str, float] = 0,
    check_finite: bool = False,
    ids: Sequence[int] | None = None,
    with_ids: bool = False,
) -> PackedBatch:
    """Lay samples end to end on one axis per modality, and say how long each is.

    Args:
        samples: at least one ``{modality: (length, *feature_shape), "targets": ...}``; a modality that is missing in a
            sample is an array of length 0.
        capacity: positions of each modality's axis, at least the sum of the lengths and at least 1. By default that
            sum, or 1 where the modality is missing in every sample.
        batch_size: samples of the batch; empty ones fill it up. By default ``len(samples)``.
        modalities: which keys to pack, in which order; by default those of the first sample.
        pad_value: what stands behind the last sample, for all modalities or per modality.
        check_finite: look for NaN and inf in float features (reads every value once more).
        ids: the numbers of the samples, which errors give; by default their places in ``samples``.
        with_ids: whether the batch holds the numbers too.

    Returns:
        A batch in freshly allocated, 64-byte-aligned buffers, which share nothing with ``samples``.

    Raises:
        SampleError: as :func:`~multimodal_pad.pad_samples`; for more positions than the capacity too.

    >>> batch = pack_samples([{"text": [5, 6, 7], "audio": [0.5]}, {"text": [8], "audio": []}], batch_size=3)
    >>> batch.features["text"].tolist(), batch.lengths["audio"].tolist(), batch.sample_mask.tolist()
    ([5, 6, 7, 8], [1, 0, 0], [True, True, False])
    """
    arrays, count, numbers = taken_together(samples, batch_size, modalities, ids)
    if capacity is None:
        capacity = {name: max(1, sum(map(len, column))) for name, column in arrays.items()}
    shape = BatchShape.of(count, capacity, PACKED)
    return PACKED.lay_out(
        arrays, samples, shape, pad_value=pad_value, check_finite=check_finite, numbers=numbers, with_ids=with_ids
    )


def unpack(batch: Batch) -> list[dict[str, Any]]:
    """Undo :func:`pack_samples`: give the real samples of a batch.

    Args:
        batch: in the packed layout; of NumPy or JAX arrays.

    Returns:
        One dict per sample whose ``sample_mask`` is True, with views of the batch's arrays, and ``"targets"`` where the
        batch has them.

    >>> unpack(pack_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=4))[1]["text"].tolist()
    [7]
    """
    return PACKED.take_apart(batch)


def starts_of(lengths: Any) -> Any:
    """``(B,)`` int32: the first position of each sample; like the others below, of NumPy or JAX arrays."""
    return lengths.cumsum(dtype=np.int32) - lengths


def segments_of(lengths: Any, count: int) -> Any:
    """``(N,)`` int32: the sample of each of ``count`` positions, by how many samples end before it; B at padding."""
    ends = lengths.cumsum(dtype=np.int32)
    return (np.arange(count, dtype=np.int32)[:, None] >= ends[None, :]).sum(axis=1, dtype=np.int32)


def places_of(lengths: Any, count: int) -> Any:
    """``(N,)`` int32: the place of each of ``count`` positions in its sample; 0 at padding."""
    segments = segments_of(lengths, count)
    places = np.arange(count, dtype=np.int32) - starts_of(lengths)[segments.clip(0, len(lengths) - 1)]
    return places * (segments < len(lengths))


def _pack(arrays: list[np.ndarray], capacity: int, value: Any) -> np.ndarray:
    """One call that writes every byte once: the samples, and the padding behind them."""
    first = arrays[0]
    out = aligned_empty((capacity, *first.shape[1:]), first.dtype)
    padding = np.full((capacity - int(array_lengths(arrays).sum()), *first.shape[1:]), value, first.dtype)
    np.concatenate([*arrays, padding], out=out, casting="no")
    return out


def _check_fits(lengths: np.ndarray, name: str, capacities: Mapping[str, int], numbers: Sequence[int]) -> None:
    """Raise a SampleError that says how many positions do not fit."""
    if name not in capacities:
        raise SampleError(f"capacity has no {name!r}, only {sorted(capacities)}; give one per modality")
    total = int(lengths.sum())
    if capacities[name] < max(1, total):
        longest = int(lengths.argmax())
        raise SampleError(
            f"{name!r}: {total} positions of {len(numbers)} samples do not fit a capacity of {capacities[name]} "
            f"(the longest, sample {numbers[longest]}, has {lengths[longest]}); give at least {max(1, total)}"
        )
