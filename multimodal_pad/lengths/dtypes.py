"""One rule for dtypes, of features and of all targets: what a batch keeps, what it converts, and what it refuses."""

from __future__ import annotations

import numpy as np

from multimodal_pad.errors import SampleError

KEPT = "bool, whole numbers of 8 to 64 bits, float16, float32, float64 and bfloat16"
"""The dtypes that a batch holds, in words."""

_KEPT = frozenset(map(np.dtype, "?bBhHiIlLqQefd"))
_BFLOAT16 = "bfloat16"  # of ml_dtypes, which is not imported for its name


def is_kept(dtype: np.dtype) -> bool:
    """Return whether a batch holds values of this dtype as they are.

    >>> is_kept(np.dtype(np.float16)), is_kept(np.dtype(">f4")), is_kept(np.dtype(complex))
    (True, False, False)
    """
    return dtype in _KEPT or (dtype.name == _BFLOAT16 and dtype.isnative)


def batch_dtype(dtype: np.dtype, what: str) -> np.dtype:
    """Return the dtype that a batch holds values of ``dtype`` in: the same, in the byte order of this machine.

    No value changes: what would have to change is refused.

    Args:
        dtype: of an array that is handed in.
        what: the array's name, for the error: ``"sample 3, 'audio'"``.

    Raises:
        SampleError: JAX has no such dtype; says what to give instead.

    >>> batch_dtype(np.dtype(">i4"), "sample 0, 'text'").isnative
    True
    >>> batch_dtype(np.dtype(complex), "sample 3, 'audio'")
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 3, 'audio': got dtype complex128, and a batch holds bool, whole numbers \
of 8 to 64 bits, float16, float32, float64 and bfloat16; give real and imaginary parts as two features, such as \
np.stack([x.real, x.imag], axis=-1)
    """
    if is_kept(dtype):
        return dtype
    if dtype.kind in "iuf" and (native := dtype.newbyteorder("=")) in _KEPT:
        return native
    if dtype.kind == "f" and dtype.itemsize == 8:  # longdouble, where it has no more digits than float64
        return np.dtype(np.float64)
    raise SampleError(f"{what}: got dtype {dtype}, and a batch holds {KEPT}; {_instead(dtype)}")


def as_native(array: np.ndarray, what: str) -> np.ndarray:
    """Return the array itself, or with the same values in the byte order of this machine; see :func:`batch_dtype`.

    >>> as_native(np.array([1, 2], ">i2"), "sample 0, 'text'").dtype
    dtype('int16')
    """
    return array if array.dtype in _KEPT else array.astype(batch_dtype(array.dtype, what), copy=False)


def _instead(dtype: np.dtype) -> str:
    """Return what to give in place of a dtype that is refused."""
    if dtype.kind in "UST":
        return "give whole numbers for text: ids of its tokens as a feature, the number of a class as a target"
    if dtype.kind == "O":
        return "give an array of numbers, such as np.asarray(x, np.float32)"
    if dtype.kind in "mM":
        return "give numbers for times, such as seconds: (x - x[0]) / np.timedelta64(1, 's')"
    if dtype.kind == "c":
        return "give real and imaginary parts as two features, such as np.stack([x.real, x.imag], axis=-1)"
    if dtype.kind == "f":
        return "give x.astype(np.float64), which has fewer digits"
    if dtype.names:
        return "give its fields as one array, such as numpy.lib.recfunctions.structured_to_unstructured(x)"
    return "give numbers of one of these, such as x.astype(np.float32), or for raw bytes x.view(np.uint8)"
