"""The values behind the names in a pickle of plain data: arrays, dtypes, scalars, bytes and sets, and nothing else.

The names are recognised by their spelling, and their meaning is written here; none of them is ever looked up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Every name that a pickle of plain data may hold, in the spellings of Python 2 and 3 and of NumPy 1 and 2.
ALLOWED = {
    **dict.fromkeys(["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"], "empty array"),
    **dict.fromkeys(["numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"], "buffer"),
    **dict.fromkeys(["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"], "scalar"),
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    **{f"{module}.{name}": name for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "bytes")},
    **{f"{module}.bytearray": "bytes" for module in ("builtins", "__builtin__")},
}


class RefusedError(Exception):
    """A request of a pickle that is refused: anything that is no data."""


@dataclass(frozen=True, eq=False)
class Name:
    """An allowed name, as a stand-in for its object."""

    spelling: str
    means: str


@dataclass(eq=False)
class Unbuilt:
    """An array or a dtype of a known kind, until its state comes; then the object that was built."""

    means: str
    code: str = ""
    built: Any = None


def pairs(items: list[Any]) -> dict[Any, Any]:
    """Make a dict of keys and values in turn."""
    return dict(zip(keys(items[::2]), items[1::2], strict=True))


def keys(items: list[Any]) -> list[Any]:
    """Refuse keys that are not plain: tuples of tuples, and numbers with one hash, can be made to take forever."""
    for item in items:
        whole = isinstance(item, int) and abs(item) < 2**64
        number = isinstance(item, np.integer | np.floating) and item.itemsize <= 8  # longer ones are rounded to hash
        if not (whole or number or isinstance(item, str | bytes | float | None)):
            raise RefusedError(f"{shown(item)} as a key")
    return items


# Calls of allowed names. A wrong number or kind of arguments is a TypeError or ValueError: damage.


def _call_empty_array(kind: Any, shape: Any, code: Any) -> Unbuilt:
    if not isinstance(kind, Name) or kind.means != "ndarray":
        raise RefusedError(f"an array of the class {shown(kind)}")
    del shape, code  # NumPy gives (0,) and b"b", and means the state that follows
    return Unbuilt("array")


def _call_dtype(code: Any, align: Any = False, copy: Any = True) -> Unbuilt:
    del align, copy
    code = code.decode("ascii") if isinstance(code, bytes) else code
    if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO]\d{1,9}", code):
        raise RefusedError(f"a dtype {shown(code)}")
    return Unbuilt("dtype", code)


def _call_scalar(dtype: Any, data: Any) -> Any:
    return _view((), dtype, "C", data)[()]


def _call_buffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray:
    if order == "K":
        array = _view(shape, dtype, "C", data)
        return array if axis_order is None else array.transpose(axis_order)
    return _view(shape, dtype, order, data)


def _call_encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise RefusedError(f"_codecs.encode to {shown(encoding)}")
    return text.encode("latin-1")


def _call_bytes(data: Any = b"", encoding: Any = None) -> bytes | memoryview:
    if isinstance(data, str):
        return _call_encode(data, encoding)
    if not isinstance(data, bytes | memoryview):
        raise TypeError(f"bytes of {type(data).__name__}")
    return data


def _items(items: Any) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise TypeError(f"a set of a {type(items).__name__}")
    return keys(list(items))


def build_array(state: tuple[Any, ...]) -> np.ndarray:
    """Do ``ndarray.__setstate__``: (version, shape, dtype, Fortran order, data), the version left out by old ones."""
    shape, dtype, fortran, data = state[-4:]
    return _view(shape, dtype, "F" if fortran else "C", data)


def build_dtype(code: str, state: tuple[Any, ...]) -> np.dtype:
    """Do ``dtype.__setstate__``: (version, byte order, subarray, names, fields, ...)."""
    _, order, *structure = (item.decode("ascii") if isinstance(item, bytes) else item for item in state[:5])
    if order not in ("<", ">", "|", "=") or any(item is not None for item in structure):
        raise RefusedError("a dtype of several fields")
    return np.dtype(code).newbyteorder(order)


def _view(shape: Any, dtype: Any, order: Any, data: Any) -> np.ndarray:
    """Return the array of these bytes, without a copy; of a list for objects."""
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or not all(map(_is_size, shape[:65])):
        raise TypeError("an array without a dtype, or without a shape")
    if len(shape) > 64:
        raise ValueError(f"an array of {len(shape)} dimensions")
    count = math.prod(shape)
    if dtype.kind == "O":
        if not isinstance(data, list) or len(data) != count:
            raise ValueError(f"an array of {count} objects with another number of them")
        if any(isinstance(item, np.ndarray) and item.dtype.hasobject for item in data):
            raise RefusedError("arrays of objects inside of an array of objects")
        flat = np.empty(count, object)
        for place, item in enumerate(data):
            flat[place] = item  # one by one, or NumPy would take lists apart
        return flat.reshape(shape, order=order)
    if not isinstance(data, bytes | memoryview) or len(data) != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} with another number of bytes")
    if not data:
        if count > 1:  # of empty strings there could be any number
            raise ValueError(f"an array of shape {shape} and dtype {dtype} without bytes")
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, buffer=data, order=order)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def shown(value: Any) -> str:
    """Return a value as errors show it: short, whatever it holds."""
    if isinstance(value, Name):
        return value.spelling
    if isinstance(value, Unbuilt):
        return {"array": "an array", "dtype": "a dtype"}[value.means]
    if isinstance(value, str | bytes):
        return repr(value[:80])
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else "a number of more than 64 bits"
    return f"a {type(value).__name__}"


def check_whole(data: Any) -> None:
    """Refuse data in which a stand-in is left: a name, or an array or dtype that was never built."""
    left, seen = [data], {id(data)}
    while left:
        item = left.pop()
        if isinstance(item, Name | Unbuilt):
            raise RefusedError(
                f"{shown(item)} for itself" if isinstance(item, Name) else f"{shown(item)} without state"
            )
        inner: Any = ()
        if isinstance(item, dict):
            inner = item.values()
        elif isinstance(item, list | tuple):
            inner = item
        elif isinstance(item, np.ndarray) and item.dtype.hasobject:
            inner = item.ravel().tolist()
        for part in inner:
            if isinstance(part, dict | list | tuple | np.ndarray | Name | Unbuilt) and id(part) not in seen:
                seen.add(id(part))
                left.append(part)


CALLS: dict[str, Callable[..., Any]] = {
    "empty array": _call_empty_array,
    "buffer": _call_buffer,
    "scalar": _call_scalar,
    "dtype": _call_dtype,
    "encode": _call_encode,
    "bytes": _call_bytes,
    "set": lambda items=(): set(_items(items)),
    "frozenset": lambda items=(): frozenset(_items(items)),
}
