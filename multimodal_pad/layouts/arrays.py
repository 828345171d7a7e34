"""The arrays of a batch's samples: held to be alike, and the buffers that they are copied into."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NotRequired, TypedDict

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.samples import (
    EMPTY,
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


class LayingOut(TypedDict):
    """Options of laying samples out.

    Attributes:
        numbers: of the samples, for errors.
        pad_value: what stands where no sample is, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        with_ids: whether the batch holds the numbers too.
        share_sizes: how many of the samples each share of the batch has, one share after the other; by default, and
            where it is None, the batch is not shared out.
    """

    numbers: Sequence[int]
    pad_value: float | Mapping[str, float]
    check_finite: bool
    with_ids: bool
    share_sizes: NotRequired[Sequence[int] | None]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that starts on a 64-byte boundary.

    On the CPU backend ``jax.device_put`` takes such an array without a copy, whatever
    ``may_alias`` says; for that reason no buffer is ever used for a second batch.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def array_lengths(arrays: list[np.ndarray]) -> np.ndarray:
    """``(N,)`` int64: how many positions each has."""
    return np.fromiter(map(len, arrays), np.int64, len(arrays))


def lengths_of_batch(arrays: list[np.ndarray], count: int) -> np.ndarray:
    """int32 ``(count,)``: how many positions each has, and 0 for the empty samples behind them."""
    lengths = aligned_empty((count,), np.dtype(np.int32))
    lengths[: len(arrays)] = array_lengths(arrays)
    lengths[len(arrays) :] = 0
    return lengths


def numbers_of_batch(numbers: Sequence[int], count: int, *, with_ids: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The sample mask of a batch of ``count``, and the numbers of its samples where they are asked for."""
    sample_mask = aligned_empty((count,), np.dtype(bool))
    sample_mask[:] = np.arange(count) < len(numbers)
    if not with_ids:
        return sample_mask, None
    ids = aligned_empty((count,), np.dtype(np.int32))
    ids[: len(numbers)] = numbers
    ids[len(numbers) :] = EMPTY
    return sample_mask, ids


def laid_out(
    arrays: Mapping[str, list[np.ndarray]],
    samples: Sequence[Sample],
    count: int,
    place: Callable[[str, list[np.ndarray], np.ndarray, Any], np.ndarray],
    options: LayingOut,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray | None, np.ndarray, np.ndarray | None]:
    """The fields of a batch of ``count``: features, lengths, targets, sample mask and ids.

    Features are what ``place(name, arrays, lengths, value)`` makes of a modality's arrays, where ``value`` is that of
    the padding in their dtype.
    """
    numbers, values = options["numbers"], pad_values(options["pad_value"], tuple(arrays))
    features, lengths = {}, {}
    for name, column in arrays.items():
        if options["check_finite"]:
            check_all_finite(column, name, numbers)
        lengths[name] = lengths_of_batch(column, count)
        features[name] = place(name, column, lengths[name], as_dtype(values[name], column[0].dtype, name))
    sample_mask, ids = numbers_of_batch(numbers, count, with_ids=options["with_ids"])
    return features, lengths, stack_targets(samples, count, numbers), sample_mask, ids


def taken_together(
    samples: Sequence[Sample], batch_size: int | None, modalities: Sequence[str] | None, ids: Sequence[int] | None
) -> tuple[dict[str, list[np.ndarray]], int, Sequence[int]]:
    """What is laid out of some samples: the arrays of each modality, the batch size, and the samples' numbers.

    Raises:
        SampleError: no samples, more than the batch size, or samples that are not alike.
    """
    if not len(samples):
        raise SampleError("got no samples; a batch needs at least one")
    count = len(samples) if batch_size is None else batch_size
    if count < len(samples):
        raise SampleError(
            f"got {len(samples)} samples for a batch of {count} rows; give a batch_size of "
            "at least the number of samples, or fewer samples"
        )
    names = check_names(modality_names(samples[0]) if modalities is None else modalities)
    numbers = range(len(samples)) if ids is None else ids
    if modalities is None:
        for sample, number in zip(samples, numbers, strict=True):
            check_same_modalities(sample, names, number)
    return {name: alike_arrays(samples, name, numbers) for name in names}, count, numbers


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


def check_all_finite(arrays: list[np.ndarray], name: str, ids: Sequence[int]) -> None:
    """Raise a SampleError that names the first sample, and position, with NaN or inf."""
    for array, index in zip(arrays, ids, strict=True):
        finite = np.isfinite(array)
        if not finite.all():
            position = int(np.argwhere(~finite)[0][0])
            raise SampleError(
                f"sample {index}, {name!r}: position {position} holds NaN or inf; clean the features, "
                "or pass check_finite=False to let them through"
            )


def pad_values(pad_value: float | Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """The pad value of each modality, given for all or per modality."""
    if not isinstance(pad_value, Mapping):
        return dict.fromkeys(names, pad_value)
    unknown = [name for name in pad_value if name not in names]
    if unknown:
        raise SampleError(f"got pad values for {unknown}; the modalities are {list(names)}")
    return {name: pad_value.get(name, 0) for name in names}


def as_dtype(value: float, dtype: np.dtype, name: str) -> Any:
    """A pad value in the dtype of a modality's arrays.

    Raises:
        SampleError: the dtype does not hold it.
    """
    if isinstance(value, int | float) and value == 0:
        return value  # every dtype holds it: nothing to find out in each batch
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)
    fits = np.isfinite(value) and cast == value if dtype.kind in "biu" else np.isfinite(cast) == np.isfinite(value)
    if not fits:
        raise SampleError(f"{name!r}: the pad value {value} is not a value of dtype {dtype}")
    return cast


def stack_targets(samples: Sequence[Sample], rows: int, ids: Sequence[int]) -> np.ndarray | None:
    """Targets of all samples, ``(rows, ...)`` with zeros behind them, or None where there are none.

    Raises:
        SampleError: some samples have targets and others none, or of another shape or dtype.
    """
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
