"""All dtypes that NumPy has, and what a batch holds of them."""

import numpy as np

HELD = [np.dtype(name) for name in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")]
"""In the byte order of this machine."""

OWN_TYPES = {np.dtype(kind) for kind in np.sctypeDict.values() if kind.__module__ == "numpy"}
"""Without those that packages such as ml_dtypes add."""

_SIZED = {"S": "S3", "U": "U3", "V": "V3"}  # which have no size of their own
_MORE = ["datetime64[s]", "timedelta64[ms]", [("a", "<f4")], [("a", ">i2"), ("b", "u1")]]


def _all() -> list[np.dtype]:
    found = {}
    for dtype in [*sorted(OWN_TYPES, key=str), *map(np.dtype, _MORE)]:
        sized = np.dtype(_SIZED.get(dtype.str[1:2], dtype)) if dtype.itemsize == 0 else dtype
        found |= {str(one): one for one in (sized, sized.newbyteorder())}
    return list(found.values())


ALL_DTYPES = _all()
"""Each in both byte orders."""


def example_array(dtype: np.dtype, length: int) -> np.ndarray:
    """An array ``(length,)`` with the least and the largest values that a dtype has, where it has such."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.resize(np.array([info.min, info.max, 1, 0], dtype), length)
    if dtype.kind == "f":
        info = np.finfo(dtype.newbyteorder("="))
        return np.resize(np.array([info.max, info.tiny, -0.5, np.nan]).astype(dtype), length)
    return np.zeros(length, dtype)
