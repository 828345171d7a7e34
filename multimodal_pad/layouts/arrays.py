"""The arrays of a batch's samples: checks that they are alike, and the buffers that they are copied into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.buffers import aligned_empty
from multimodal_pad.layouts.targets import lay_out_position_targets, stack_targets
from multimodal_pad.lengths.dtypes import is_kept
from multimodal_pad.lengths.kinds import PositionKind, all_of_kind, common_kind
from multimodal_pad.lengths.samples import (
    EMPTY,
    Sample,
    as_sample,
    check_names,
    check_same_modalities,
    modality_array,
    modality_names,
)


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


def array_lengths(arrays: list[np.ndarray]) -> np.ndarray:
    """Return ``(N,)`` int64: how many positions each has."""
    return np.fromiter(map(len, arrays), np.int64, len(arrays))


def lengths_of_batch(arrays: list[np.ndarray], count: int) -> np.ndarray:
    """Return int32 ``(count,)``: how many positions each has, and 0 for the empty samples behind them."""
    lengths = aligned_empty((count,), np.dtype(np.int32))
    lengths[: len(arrays)] = array_lengths(arrays)
    lengths[len(arrays) :] = 0
    return lengths


def numbers_of_batch(numbers: Sequence[int], count: int, *, with_ids: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the sample mask of a batch of ``count``, and the numbers of its samples where they are asked for."""
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
) -> dict[str, Any]:
    """Return the fields of a batch of ``count`` that all layouts have.

    Features, and targets of positions, are what ``place(name, arrays, lengths, value)`` makes of a modality's arrays,
    where ``value`` is that of the padding in their dtype.
    """
    numbers, values = options["numbers"], pad_values(options["pad_value"], tuple(arrays))
    features, lengths = {}, {}
    for name, column in arrays.items():
        if options["check_finite"]:
            check_all_finite(column, name, numbers)
        lengths[name] = lengths_of_batch(column, count)
        features[name] = place(name, column, lengths[name], as_dtype(values[name], column[0].dtype, name))
    sample_mask, ids = numbers_of_batch(numbers, count, with_ids=options["with_ids"])
    return {
        "features": features,
        "lengths": lengths,
        "targets": stack_targets(samples, count, numbers),
        "sample_mask": sample_mask,
        "ids": ids,
        "position_targets": lay_out_position_targets(
            samples, arrays, numbers, lambda name, column: place(name, column, lengths[name], 0)
        ),
    }


def taken_together(
    samples: Sequence[Sample], batch_size: int | None, modalities: Sequence[str] | None, ids: Sequence[int] | None
) -> tuple[Sequence[Sample], dict[str, list[np.ndarray]], int, Sequence[int]]:
    """Return samples to lay out, as mappings, the arrays of each modality, the batch size, and the samples' numbers.

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
    numbers = range(len(samples)) if ids is None else ids
    if set(map(type, samples)) != {dict}:
        samples = [as_sample(sample, f"sample {i}") for sample, i in zip(samples, numbers, strict=True)]
    names = check_names(modality_names(samples[0]) if modalities is None else modalities)
    if modalities is None:
        for sample, number in zip(samples, numbers, strict=True):
            check_same_modalities(sample, names, number)
    return samples, {name: alike_arrays(samples, name, numbers) for name in names}, count, numbers


def alike_arrays(
    samples: Sequence[Sample], name: str, ids: Sequence[int], kind: PositionKind | None = None
) -> list[np.ndarray]:
    """Return the arrays of one modality, checked all at once, and one by one only to name the sample at fault.

    Where a modality is missing, its array is like those of the samples that have it.

    Args:
        samples: of a batch.
        name: of the modality.
        ids: numbers of the samples, for errors.
        kind: what its positions are, where that is known of other samples.
    """
    arrays: list[Any] = [sample.get(name) for sample in samples]
    if set(map(type, arrays)) == {np.ndarray}:
        dtypes, shapes = {array.dtype for array in arrays}, {array.shape[1:] for array in arrays}
        if len(dtypes) == len(shapes) == 1 and is_kept(*dtypes) and all(map(len, arrays)) and all(*shapes):
            return arrays
    arrays = [modality_array(sample, name, i) for sample, i in zip(samples, ids, strict=True)]
    if kind is None or any(map(len, arrays)):
        kind = common_kind(arrays)
    arrays = all_of_kind(arrays, kind)
    _check_alike(arrays, name, ids)
    return arrays


def _check_alike(arrays: list[np.ndarray], name: str, ids: Sequence[int]) -> None:
    """Raise a SampleError where the arrays of a modality differ in feature shape or dtype."""
    one = next((place for place, array in enumerate(arrays) if len(array)), 0)
    first = arrays[one]
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
        raise SampleError(
            f"{where} {what} {this}, but sample {ids[one]} has {other}; give every sample the same {what}"
        )


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


def pad_values(pad_value: float | Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return the pad value of each modality, given for all or per modality.

    Raises:
        SampleError: a value for an unknown modality, or one that is no real number.
    """
    if not isinstance(pad_value, Mapping):
        value = _real(pad_value, "pad_value")
        return {name: value for name in names}  # noqa: C420  a type checker infers this one
    unknown = [name for name in pad_value if name not in names]
    if unknown:
        raise SampleError(f"got pad values for {unknown}; the modalities are {list(names)}")
    return {name: _real(pad_value[name], f"pad_value[{name!r}]") if name in pad_value else 0 for name in names}


def _real(value: Any, what: str) -> Any:
    """Return a pad value that is a number, or the number that an array without axes holds."""
    if isinstance(value, float | int | np.number | np.bool_) and not isinstance(value, np.complexfloating):
        return value
    if hasattr(value, "__array__") and np.asarray(value).ndim == 0 and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value).item()
    raise SampleError(f"got {what}={value!r}; give a number, which stands where no sample is (0 by default)")


def as_dtype(value: float, dtype: np.dtype, name: str) -> Any:
    """Return a pad value in the dtype of a modality's arrays.

    Raises:
        SampleError: the dtype does not hold it.
    """
    if isinstance(value, int | float) and value == 0:
        return value  # every dtype holds 0, so no batch needs the check below
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)
    fits = np.isfinite(value) and cast == value if dtype.kind in "biu" else np.isfinite(cast) == np.isfinite(value)
    if not fits:
        raise SampleError(f"{name!r}: the pad value {value} is not a value of dtype {dtype}; give one that is")
    return cast
