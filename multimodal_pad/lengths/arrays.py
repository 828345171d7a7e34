"""Arrays as they are handed in: NumPy's, those of other libraries, and lists, as one array of numbers."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.dtypes import KEPT, as_native, is_kept

_EXACT = 2.0**53
"""Float64 does not hold every whole number from here on."""

SCALARS = (np.generic, int, float)
"""Types of single numbers, which can't be written to and need no conversion."""

_TENSORS = ("torch", "jax", "jaxlib", "tensorflow", "cupy", "mlx")
"""Libraries whose arrays may lie where NumPy can't read them."""


MISSING = np.zeros((0,), np.float32)
"""An array without positions, for where its feature shape and dtype are not known."""
MISSING.flags.writeable = False


def array_of_positions(value: Any, sample: int, where: str) -> np.ndarray:
    """Convert as :func:`as_array`, to ``(length, ...)``. None, and what has no positions, is an array of length 0.

    Raises:
        SampleError: as :func:`as_array`, or positions without a number.

    >>> array_of_positions(None, 0, "'audio'").shape, array_of_positions([], 0, "'audio'").shape
    ((0,), (0,))
    """
    if value is None or (isinstance(value, list | tuple) and not value):
        return MISSING
    if isinstance(value, np.ndarray) and value.ndim and not len(value):
        return value if is_kept(value.dtype) else MISSING
    array = as_array(value, sample, where)
    if array.ndim and not array.size:
        if not len(array):
            return array
        raise SampleError(
            f"sample {sample}, {where}: got shape {array.shape}, positions without a number; give each at least one "
            "(a modality that is missing has no positions: [] or None)"
        )
    return array


def as_array(value: Any, sample: int, where: str) -> np.ndarray:
    """Convert to an array of a dtype that batches hold; no value changes.

    An array in the byte order of this machine is not copied: the result shares its memory.

    Args:
        value: an array, of JAX or PyTorch too, or nested lists of numbers.
        sample: its number, for errors.
        where: the part of the sample, for errors.

    Raises:
        SampleError: it is no array of one shape, holds something other than numbers, or has masked values.

    >>> as_array([[1, 2], [3, 4]], 0, "'text'").shape
    (2, 2)
    >>> as_array(np.ma.array([1, 999, 3], mask=[0, 1, 0]), 7, "'audio'")
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 7, 'audio': 1 of 3 values are masked, and a batch only masks what is \
behind a sample; put a value there (x.filled(0)), or leave the positions out
    """
    what = f"sample {sample}, {where}"
    if type(value) is np.ndarray:
        array = value
    else:
        array = np.asarray(value) if isinstance(value, SCALARS) else _converted(value, sample, where)
    if array.dtype.kind == "O":
        raise SampleError(f"{what}: got {_odd_one(array, value)}; give {KEPT}, as an array of one shape")
    array = as_native(array, what)
    if array.dtype == np.float64 and not hasattr(value, "dtype") and (np.abs(array) >= _EXACT).any():
        _check_exact(value, array, what)
    return array


def _check_exact(value: Any, array: np.ndarray, what: str) -> None:
    """Raise a SampleError where NumPy has rounded whole numbers because floats stand among them."""
    for one, kept in zip(np.asarray(value, object).flat, array.flat, strict=True):
        if isinstance(one, int | np.integer) and int(one) != int(kept):
            raise SampleError(
                f"{what}: holds {one} and floats, and float64 does not hold that number exactly; give an array of one "
                "dtype"
            )


def _converted(value: Any, sample: int, where: str) -> np.ndarray:
    """Convert a value with NumPy, or raise an error that names it."""
    what = f"sample {sample}, {where}"
    if any(issubclass(kind, np.ma.MaskedArray) for kind in _types(value)):
        value = _unmasked(value, what)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise SampleError(f"{what}: not an array of one shape ({error}); give each row as many numbers") from None
    except Exception as error:
        if isinstance(error, TypeError | RuntimeError) and not _libraries(value).isdisjoint(_TENSORS):
            raise SampleError(
                f"{what}: NumPy can't read this {type(value).__name__} ({error}); give an array on the host, such as "
                "x.detach().cpu().numpy(), with x.float() first where it is torch.bfloat16"
            ) from error
        error.add_note(f"while {where} of sample {sample} was read")
        raise


def _types(value: Any) -> set[type]:
    """Return the types of a value and, where it is lists, of their items."""
    found, level = {type(value)}, [value]
    while level := [one for one in level if type(one) in (list, tuple)]:
        level = list(chain.from_iterable(level))
        kinds = set(map(type, level))
        found |= kinds
        if kinds.isdisjoint({list, tuple}):
            break
    return found


def _libraries(value: Any) -> set[str]:
    """Return the names of the packages that the types of a value come from."""
    return {kind.__module__.partition(".")[0] for kind in _types(value)}


def _unmasked(value: Any, what: str) -> Any:
    """Take away masks that hide nothing, from a masked array or from lists that hold some.

    Raises:
        SampleError: a value is masked.
    """
    if type(value) in (list, tuple):
        return [_unmasked(one, what) for one in value]
    if not isinstance(value, np.ma.MaskedArray):
        return value
    masked = np.ma.count_masked(value)
    if masked:
        raise SampleError(
            f"{what}: {masked} of {value.size} values are masked, and a batch only masks what is behind a sample; put "
            "a value there (x.filled(0)), or leave the positions out"
        )
    return value.data


def _odd_one(array: np.ndarray, value: Any) -> str:
    """Describe what makes an array one of objects."""
    if not array.ndim:
        found = array.item()
        whole = isinstance(found, int) and not isinstance(found, bool)
        return f"the number {found}, which no dtype holds" if whole else type(found).__name__
    for place, one in zip(np.ndindex(array.shape), array.flat, strict=True):
        at = f"at {list(place)}"
        if isinstance(one, int) and not -(2**63) <= one < 2**64:
            return f"the number {one} {at}, which no dtype holds"
        if not isinstance(one, bool | int | float | np.number | np.bool_):
            return f"{type(one).__name__} {at}"
    return f"{type(value).__name__} of dtype object"
