"""Algorithm 1: a list of samples of unequal lengths to padded arrays and lengths, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.table import (
    TARGETS,
    Sample,
    check_array,
    check_names,
    check_same_modalities,
    modality_array,
    modality_names,
    target_array,
)

_ALIGNMENT = 64  # bytes: what the CPU backend of JAX asks for to take a NumPy buffer without a copy


class BatchShape(NamedTuple):
    """What XLA compiles one program for: the batch size and one padded length per modality."""

    batch_size: int
    lengths: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, batch_size: int, lengths: Mapping[str, int]) -> BatchShape:
        """The shape of so many rows and these padded lengths, in the order of the modalities' names."""
        return cls(int(batch_size), tuple((m, int(n)) for m, n in sorted(lengths.items())))

    def __str__(self) -> str:
        return f"{self.batch_size} x (" + ", ".join(f"{m} {n}" for m, n in self.lengths) + ")"


class PaddedBatch(NamedTuple):
    """B rows of padded samples. A NamedTuple of arrays, so ``jax.jit`` takes it as it is.

    Attributes:
        features: ``{m: (B, L_m, *F_m)}`` in the dtype of the samples.
        lengths: ``{m: (B,)}`` int32: real positions, which come first; 0 = the modality is missing, or the row only
            fills up the batch. Lengths never come from values: an all-zero frame inside a sample is data.
        targets: ``(B, ...)``, or None where the samples have none. Rows of padding hold zeros.
        sample_mask: ``(B,)`` bool; False = the row only fills up the batch.
        ids: int32 or int64 ``(B,)``: the numbers of the samples, -1 where a row only fills up; None where they were
            not asked for.

    >>> batch = pad_samples([{"text": [5, 6, 7]}, {"text": [8]}])
    >>> batch.lengths["text"].tolist(), batch.masks["text"].tolist()
    ([3, 1], [[True, True, True], [True, False, False]])
    """

    features: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    targets: np.ndarray | None
    sample_mask: np.ndarray
    ids: np.ndarray | None = None

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """``{m: (B, L_m)}`` bool, True = real: made of the lengths, in NumPy or inside of a jitted function."""
        return {
            name: np.arange(x.shape[1], dtype=np.int32)[None, :] < self.lengths[name][:, None]
            for name, x in self.features.items()
        }

    @property
    def shape(self) -> BatchShape:
        """The batch shape, with the modalities in the order of their names."""
        lengths = tuple((m, x.shape[1]) for m, x in sorted(self.features.items()))
        return BatchShape(self.sample_mask.shape[0], lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the batch, which is what goes to the device."""
        arrays = [*self.features.values(), *self.lengths.values(), self.targets, self.sample_mask, self.ids]
        return sum(x.nbytes for x in arrays if x is not None)


def pad_samples(
    samples: Sequence[Sample],
    *,
    pad_to: Mapping[str, int] | None = None,
    batch_size: int | None = None,
    modalities: Sequence[str] | None = None,
    pad_value: float | Mapping[str, float] = 0,
    check_finite: bool = False,
    ids: Sequence[int] | None = None,
) -> PaddedBatch:
    """Pad samples on the right to one length per modality, and say how much of each is real.

    Algorithm 1 of "Dynamic Batch-Level Padding for Variable-Length Multimodal Sequences": per
    modality, the padded length is the longest of the batch; position j of sample i is real where ``j < L_m_i``.

    Args:
        samples: at least one ``{modality: (length, *feature_shape), "targets": ...}``; a
            modality that is missing in a sample is an array of length 0.
        pad_to: the padded length of each modality, at least the longest and at least 1. By
            default the batch's own maximum, or 1 where the modality is missing in every sample.
        batch_size: rows of the batch; rows beyond ``len(samples)`` are padding. By default
            ``len(samples)``.
        modalities: which keys to pad, in which order; by default those of the first sample.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features (reads every value once more).
        ids: the numbers that errors give the samples; by default their places in ``samples``.

    Returns:
        A batch in freshly allocated, 64-byte-aligned buffers. Nothing is shared with ``samples``
        or with another batch, so JAX may alias it for as long as it likes.

    Raises:
        SampleError: no samples, more samples than rows, a missing modality, a width, rank or dtype
            that differs between samples, a sample longer than ``pad_to``, a pad value that the
            dtype cannot hold or for an unknown modality, targets in only some samples, or NaN or
            inf with ``check_finite``.

    >>> batch = pad_samples([{"text": [5, 6, 7]}, {"text": [8]}])
    >>> batch.features["text"].tolist(), batch.lengths["text"].tolist()
    ([[5, 6, 7], [8, 0, 0]], [3, 1])
    """
    if not len(samples):
        raise SampleError("got no samples; a batch needs at least one")
    rows = len(samples) if batch_size is None else batch_size
    if rows < len(samples):
        raise SampleError(
            f"got {len(samples)} samples for a batch of {rows} rows; give a batch_size of "
            "at least the number of samples, or fewer samples"
        )
    names = check_names(modality_names(samples[0]) if modalities is None else modalities)
    ids = range(len(samples)) if ids is None else ids
    if modalities is None:
        for sample, index in zip(samples, ids, strict=True):
            check_same_modalities(sample, names, index)
    arrays = {name: alike_arrays(samples, name, ids) for name in names}
    return pad_arrays(arrays, samples, rows, pad_to=pad_to, pad_value=pad_value, check_finite=check_finite, ids=ids)


def pad_arrays(
    arrays: Mapping[str, list[np.ndarray]],
    samples: Sequence[Sample],
    rows: int,
    *,
    pad_to: Mapping[str, int] | None,
    pad_value: float | Mapping[str, float],
    check_finite: bool,
    ids: Sequence[int],
) -> PaddedBatch:
    """:func:`pad_samples` for arrays that :func:`alike_arrays` gave; ``samples`` are read for their targets."""
    pad_values = _pad_values(pad_value, tuple(arrays))
    features, lengths = {}, {}
    for name, column in arrays.items():
        if check_finite:
            _check_finite(column, name, ids)
        lengths[name] = aligned_empty((rows,), np.dtype(np.int32))
        lengths[name][: len(column)] = array_lengths(column)
        lengths[name][len(column) :] = 0
        padded = _padded_length(lengths[name], name, pad_to, ids)
        features[name] = _pad(column, rows, padded, _as_dtype(pad_values[name], column[0].dtype, name))
    sample_mask = aligned_empty((rows,), np.dtype(bool))
    sample_mask[:] = np.arange(rows) < len(samples)
    return PaddedBatch(features, lengths, _stack_targets(samples, rows, ids), sample_mask)


def unpad(batch: PaddedBatch) -> list[dict[str, Any]]:
    """The real samples of a batch: ``pad_samples`` undone.

    Returns:
        One dict per row whose ``sample_mask`` is True, with views of the batch's arrays cut to the
        real positions, and ``"targets"`` where the batch has them. JAX arrays are taken too.

    >>> unpad(pad_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=4))[1]["text"].tolist()
    [7]
    """
    features = {m: np.asarray(x) for m, x in batch.features.items()}
    lengths = {m: np.asarray(x).tolist() for m, x in batch.lengths.items()}
    targets = None if batch.targets is None else np.asarray(batch.targets)
    samples = []
    for row in np.flatnonzero(np.asarray(batch.sample_mask)):
        sample: dict[str, Any] = {m: x[row, : lengths[m][row]] for m, x in features.items()}
        if targets is not None:
            sample[TARGETS] = targets[row]
        samples.append(sample)
    return samples


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that starts on a 64-byte boundary.

    On the CPU backend ``jax.device_put`` takes such an array without a copy, whatever
    ``may_alias`` says; for that reason no buffer is ever used for a second batch.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _pad(arrays: list[np.ndarray], rows: int, padded: int, value: Any) -> np.ndarray:
    """One call that writes every byte once: samples and cuts of one row of padding in turn, end to end."""
    first = arrays[0]
    out = aligned_empty((rows, padded, *first.shape[1:]), first.dtype)
    padding = np.full(out.shape[1:], value, first.dtype)
    pieces = [piece for array in arrays for piece in (array, padding[len(array) :])]
    pieces += [padding] * (rows - len(arrays))
    np.concatenate(pieces, out=out.reshape(-1, *first.shape[1:]), casting="no")
    return out


def array_lengths(arrays: list[np.ndarray]) -> np.ndarray:
    """``(N,)`` int64: how many positions each has."""
    return np.fromiter(map(len, arrays), np.int64, len(arrays))


def alike_arrays(samples: Sequence[Sample], name: str, ids: Sequence[int]) -> list[np.ndarray]:
    """The arrays of one modality, checked all at once; one by one only to name the sample that is to blame."""
    with suppress(Exception):  # whatever is wrong with a sample, below it is named
        arrays = [np.asarray(sample[name]) for sample in samples]
        check_array(arrays[0], name, ids[0])
        dtypes, shapes = [array.dtype for array in arrays], [(array.ndim, array.shape[1:]) for array in arrays]
        if dtypes.count(dtypes[0]) == shapes.count(shapes[0]) == len(arrays):
            return arrays
    arrays = [modality_array(sample, name, i) for sample, i in zip(samples, ids, strict=True)]
    _check_alike(arrays, name, ids)
    return arrays


def _check_alike(arrays: list[np.ndarray], name: str, ids: Sequence[int]) -> None:
    first = arrays[0]
    for array, index in zip(arrays, ids, strict=True):
        where = f"sample {index}, {name!r}: got"
        if array.ndim != first.ndim:
            what, other, this = "rank", first.ndim, array.ndim
        elif array.shape[1:] != first.shape[1:]:
            what, other, this = "feature shape", first.shape[1:], array.shape[1:]
        elif array.dtype != first.dtype:
            what, other, this = "dtype", first.dtype, array.dtype
        else:
            continue
        raise SampleError(f"{where} {what} {this}, but sample {ids[0]} has {other}; give every sample the same {what}")


def _check_finite(arrays: list[np.ndarray], name: str, ids: Sequence[int]) -> None:
    for array, index in zip(arrays, ids, strict=True):
        finite = np.isfinite(array)
        if not finite.all():
            position = int(np.argwhere(~finite)[0][0])
            raise SampleError(
                f"sample {index}, {name!r}: position {position} holds NaN or inf; clean the features, "
                "or pass check_finite=False to let them through"
            )


def _padded_length(lengths: np.ndarray, name: str, pad_to: Mapping[str, int] | None, ids: Sequence[int]) -> int:
    longest = int(lengths.max())
    if pad_to is None:
        return max(1, longest)
    if name not in pad_to:
        raise SampleError(f"pad_to has no {name!r}, only {sorted(pad_to)}; give one length per modality")
    if pad_to[name] < max(1, longest):
        raise SampleError(
            f"sample {ids[int(lengths.argmax())]}, {name!r}: {longest} positions do not fit "
            f"pad_to={pad_to[name]}; pad to at least {max(1, longest)}"
        )
    return int(pad_to[name])


def _pad_values(pad_value: float | Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(pad_value, Mapping):
        return dict.fromkeys(names, pad_value)
    unknown = [name for name in pad_value if name not in names]
    if unknown:
        raise SampleError(f"got pad values for {unknown}; the modalities are {list(names)}")
    return {name: pad_value.get(name, 0) for name in names}


def _as_dtype(value: float, dtype: np.dtype, name: str) -> Any:
    if isinstance(value, int | float) and value == 0:
        return value  # every dtype holds it: nothing to find out in each batch
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)
    fits = np.isfinite(value) and cast == value if dtype.kind in "biu" else np.isfinite(cast) == np.isfinite(value)
    if not fits:
        raise SampleError(f"{name!r}: the pad value {value} is not a value of dtype {dtype}")
    return cast


def _stack_targets(samples: Sequence[Sample], rows: int, ids: Sequence[int]) -> np.ndarray | None:
    without = [i for sample, i in zip(samples, ids, strict=True) if TARGETS not in sample]
    if len(without) == len(samples):
        return None
    if without:
        raise SampleError(f"sample {without[0]} has no {TARGETS!r} and others have; give them to all or none")
    targets = [target_array(sample, index) for sample, index in zip(samples, ids, strict=True)]
    for target, index in zip(targets, ids, strict=True):
        if target.shape != targets[0].shape or target.dtype != targets[0].dtype:
            raise SampleError(
                f"sample {index}, {TARGETS!r}: got shape {target.shape} and dtype {target.dtype}, but sample "
                f"{ids[0]} has {targets[0].shape} and {targets[0].dtype}; give all the same"
            )
    out = aligned_empty((rows, *targets[0].shape), targets[0].dtype)
    out[: len(targets)] = targets
    out[len(targets) :] = 0
    return out
