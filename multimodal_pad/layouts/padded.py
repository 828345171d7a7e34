"""The padded layout, Algorithm 1: a row per sample, as long as the longest of a modality, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError
from multimodal_pad.layouts.arrays import LayingOut, laid_out, taken_together
from multimodal_pad.layouts.buffers import aligned_empty
from multimodal_pad.layouts.fitting import Shapes, check_plan, fit_samples
from multimodal_pad.layouts.layout import Batch, BatchShape, Layout, named_layout
from multimodal_pad.layouts.targets import give_targets_back
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.lengths.trees import Tree, leaves_of, map_of_modalities, map_tree


class PaddedBatch(NamedTuple):
    """B rows of padded samples. A NamedTuple of arrays, so ``jax.jit`` takes it as it is.

    Attributes:
        features: ``{m: (B, L_m, *F_m)}`` in the dtype of the samples.
        lengths: ``{m: (B,)}`` int32: real positions, which come first; 0 = the modality is missing, or the row only
            fills up the batch. Lengths never come from values: an all-zero frame inside a sample is data.
        targets: ``(B, ...)``, or a dict of such arrays; None where the samples have none. Rows of padding hold zeros.
        sample_mask: ``(B,)`` bool; False = the row only fills up the batch.
        ids: int32 ``(B,)``: the numbers of the samples, -1 where a row only fills up; None where they were
            not asked for.
        position_targets: ``{m: (B, L_m, ...)}``, a target for each position of a modality, or dicts of such arrays;
            None where the samples have none. Zeros in the padding.

    >>> batch = pad_samples([{"text": [5, 6, 7]}, {"text": [8]}])
    >>> batch.lengths["text"].tolist(), batch.masks["text"].tolist()
    ([3, 1], [[True, True, True], [True, False, False]])
    """

    features: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    targets: Tree
    sample_mask: np.ndarray
    ids: np.ndarray | None = None
    position_targets: dict[str, Tree] | None = None

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """``{m: (B, L_m)}`` bool, True = real: made of the lengths, in NumPy or inside of a jitted function."""
        return {
            name: np.arange(x.shape[1], dtype=np.int32)[None, :] < self.lengths[name][:, None]
            for name, x in self.features.items()
        }

    @property
    def layout(self) -> Layout:
        """The padded layout."""
        return PADDED

    @property
    def shape(self) -> BatchShape:
        """The batch shape, with the modalities in the order of their names."""
        lengths = tuple((m, x.shape[1]) for m, x in sorted(self.features.items()))
        return BatchShape(self.sample_mask.shape[0], lengths, PADDED)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the batch, which is what goes to the device."""
        return sum(x.nbytes for field in self for x in leaves_of(field))


@dataclass(frozen=True)
class PaddedLayout(Layout):
    """A row for each sample, padded on the right to the bucket length of each modality."""

    name: str = "padded"

    def lay_out(
        self,
        arrays: Mapping[str, list[np.ndarray]],
        samples: Sequence[Sample],
        shape: BatchShape,
        **options: Unpack[LayingOut],
    ) -> PaddedBatch:
        """Pad the samples."""
        padded, rows, numbers = dict(shape.lengths), shape.batch_size, options["numbers"]

        def place(name: str, column: list[np.ndarray], lengths: np.ndarray, value: Any) -> np.ndarray:
            _check_fits(lengths, name, padded, numbers)
            return _pad(column, rows, padded[name], value)

        return PaddedBatch(**laid_out(arrays, samples, rows, place, options))

    def take_apart(self, batch: Batch) -> list[dict[str, Any]]:
        """Cut each row to its real positions."""
        features = {m: np.asarray(x) for m, x in batch.features.items()}
        lengths = {m: np.asarray(x).tolist() for m, x in batch.lengths.items()}
        rows = np.flatnonzero(np.asarray(batch.sample_mask)).tolist()

        def cut(m: str, x: np.ndarray, row: int) -> np.ndarray:
            return x[row, : lengths[m][row]]

        samples: list[dict[str, Any]] = [{m: cut(m, x, row) for m, x in features.items()} for row in rows]
        give_targets_back(samples, batch, rows, cut)
        return samples

    def struct(self, example: Batch, shape: BatchShape, like: Callable[..., Any]) -> PaddedBatch:
        """Return arrays of ``(rows, bucket length, ...)``."""
        rows, lengths = shape.batch_size, dict(shape.lengths)
        return PaddedBatch(
            {m: like(x, rows, lengths[m]) for m, x in example.features.items()},
            {m: like(x, rows) for m, x in example.lengths.items()},
            map_tree(lambda x: like(x, rows), example.targets),
            like(example.sample_mask, rows),
            None if example.ids is None else like(example.ids, rows),
            map_of_modalities(lambda m, x: like(x, rows, lengths[m]), example.position_targets),
        )

    def full_lengths(self, shape: BatchShape) -> dict[str, np.ndarray]:
        """Return the bucket length for every row."""
        return {name: np.full(shape.batch_size, length, np.int32) for name, length in shape.lengths}

    def positions(self, batch_sizes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return rows times bucket lengths."""
        return batch_sizes[:, None] * lengths

    def price(self, batch_sizes: np.ndarray, lengths: np.ndarray, cost: Cost) -> np.ndarray:
        """Return rows times the cost of a row."""
        return batch_sizes * np.asarray(cost(lengths), np.float64)

    def share(self, shape: BatchShape, count: int) -> BatchShape:
        """Return the shape of a run of the rows, at the same bucket lengths."""
        if shape.batch_size % count:
            raise PaddingError(
                f"got batches of {shape.batch_size} rows for {count} shards; give a number of rows that {count} "
                f"divides, such as BatchBudget(..., multiple={count}) for a budget"
            )
        return shape._replace(batch_size=shape.batch_size // count)

    def describe(self, shape: BatchShape) -> str:
        """Describe a shape as rows x (bucket lengths)."""
        return f"{shape.batch_size} x (" + ", ".join(f"{m} {n}" for m, n in shape.lengths) + ")"


PADDED = named_layout(PaddedLayout())


def pad_samples(
    samples: Sequence[Sample],
    plan: Shapes | None = None,
    *,
    pad_to: Mapping[str, int] | None = None,
    batch_size: int | None = None,
    modalities: Sequence[str] | None = None,
    pad_value: float | Mapping[str, float] = 0,
    check_finite: bool = False,
    ids: Sequence[int] | None = None,
    with_ids: bool = False,
) -> PaddedBatch:
    """Pad samples on the right to one length per modality, and say how much of each is real.

    Algorithm 1 of "Dynamic Batch-Level Padding for Variable-Length Multimodal Sequences": per
    modality, the padded length is the longest of the batch; position j of sample i is real where ``j < L_m_i``.

    Args:
        samples: at least one ``{modality: (length, *feature_shape), "targets": ..., "position_targets":
            {modality: (length, ...)}}``; a modality that is missing in a sample is an array of length 0. Targets are
            arrays, or dicts of them (or of such dicts).
        plan: a :class:`~multimodal_pad.ShapePlan` or a policy: the batch has its cheapest shape that holds all of the
            samples, and its rows. By default, and with ``pad_to``, no plan.
        pad_to: the padded length of each modality, at least the longest and at least 1. By
            default the batch's own maximum, or 1 where the modality is missing in every sample.
        batch_size: rows of the batch; rows beyond ``len(samples)`` are padding. By default the plan's, or
            ``len(samples)``.
        modalities: which keys to pad, in which order; by default those of the plan, or of the first sample.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features (reads every value once more).
        ids: the numbers of the samples, which errors give; by default their places in ``samples``.
        with_ids: whether the batch holds the numbers too.

    Returns:
        A batch in freshly allocated, 64-byte-aligned buffers. Nothing is shared with ``samples``
        or with another batch, so JAX may alias it for as long as it likes.

    Raises:
        SampleError: no samples, more samples than rows, a missing modality, a width, rank or dtype
            that differs between samples, a sample longer than ``pad_to``, a pad value that the
            dtype cannot hold or for an unknown modality, targets in only some samples or of other
            keys, shapes or dtypes, not one target for each position, or NaN or inf with ``check_finite``.
        UncoveredLengthError: no shape of the plan holds a sample, or all of them together.
        PaddingError: a plan of packed batches, or ``pad_to`` beside a plan.

    >>> batch = pad_samples([{"text": [5, 6, 7]}, {"text": [8]}])
    >>> batch.features["text"].tolist(), batch.lengths["text"].tolist()
    ([[5, 6, 7], [8, 0, 0]], [3, 1])

    With a plan, it is a collate function, for a loader that draws batches at random
    (:class:`~multimodal_pad.Collator` is one that worker processes take):

    >>> from multimodal_pad import plan_shapes
    >>> plan = plan_shapes({"text": [1, 3, 4, 9]}, max_shapes=2, batch_size=4, grouping="random")
    >>> collate = lambda samples: pad_samples(samples, plan)
    >>> str(collate([{"text": [5, 6, 7]}, {"text": [8]}]).shape)
    '4 x (text 9)'
    """
    options: dict[str, Any] = {"pad_value": pad_value, "check_finite": check_finite, "with_ids": with_ids}
    if plan is not None:
        check_plan(plan, PADDED.name, "pack_samples")
        if pad_to is not None:
            raise PaddingError("got pad_to beside a plan, which says how long batches are; give one of the two")
        return fit_samples(samples, plan, batch_size=batch_size, modalities=modalities, ids=ids, **options)
    samples, arrays, rows, numbers = taken_together(samples, batch_size, modalities, ids)
    if pad_to is None:
        pad_to = {name: max(1, *map(len, column)) for name, column in arrays.items()}
    return PADDED.lay_out(arrays, samples, BatchShape.of(rows, pad_to, PADDED), numbers=numbers, **options)


def unpad(batch: Batch) -> list[dict[str, Any]]:
    """Undo :func:`pad_samples`: give the real samples of a batch.

    Args:
        batch: in the padded layout; of NumPy or JAX arrays.

    Returns:
        One dict per row whose ``sample_mask`` is True, with views of the batch's arrays cut to the
        real positions, and ``"targets"`` and ``"position_targets"`` where the batch has them.

    >>> unpad(pad_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=4))[1]["text"].tolist()
    [7]
    """
    return PADDED.take_apart(batch)


def _pad(arrays: list[np.ndarray], rows: int, padded: int, value: Any) -> np.ndarray:
    """Pad in one call that writes every byte once: samples, and cuts of one row of padding, in turn."""
    first = arrays[0]
    out = aligned_empty((rows, padded, *first.shape[1:]), first.dtype)
    padding = np.full(out.shape[1:], value, first.dtype)
    pieces = [piece for array in arrays for piece in (array, padding[len(array) :])]
    pieces += [padding] * (rows - len(arrays))
    np.concatenate(pieces, out=out.reshape(-1, *first.shape[1:]), casting="no")
    return out


def _check_fits(lengths: np.ndarray, name: str, padded: Mapping[str, int], numbers: Sequence[int]) -> None:
    """Raise a SampleError that names a sample which is longer than the bucket length."""
    longest = int(lengths.max())
    if name not in padded:
        raise SampleError(f"pad_to has no {name!r}, only {sorted(padded)}; give one length per modality")
    if padded[name] < max(1, longest):
        raise SampleError(
            f"sample {numbers[int(lengths.argmax())]}, {name!r}: {longest} positions do not fit "
            f"pad_to={padded[name]}; pad to at least {max(1, longest)}"
        )
