"""The pickle stack machine on data alone.

A pickle is a program for a small stack machine, and :mod:`pickle` runs whatever function it names. Here the same
program is walked through with stand-ins: the few names that say how data was taken apart are known by their
spelling, every other one is refused, and no name is ever looked up.
"""

from __future__ import annotations

import codecs
import math
import mmap
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_MAPPED = 1 << 16  # bytes: what is longer is left in the file

# Every name that a pickle of plain data may hold, in the spellings of Python 2 and 3 and of NumPy 1 and 2.
_ALLOWED = {
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
    """What a pickle asks for and does not get: anything that is no data."""


@dataclass(frozen=True, eq=False)
class _Name:
    """An allowed name, as a stand-in for what it names."""

    spelling: str
    means: str


@dataclass(eq=False)
class _Unbuilt:
    """An array or a dtype of which only the kind is known yet, and the places that remember it."""

    means: str
    code: str = ""
    memo_keys: list[int] = field(default_factory=list)


class Machine:
    """The pickle stack machine, on data alone."""

    def __init__(self, file: mmap.mmap) -> None:
        self.position = 0
        self._file, self._view = file, memoryview(file)
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def run(self) -> Any:
        """The data, from the first opcode to STOP."""
        data = self._run()
        _check_whole(data)
        return data

    def _run(self) -> Any:
        while True:
            self.position = self._file.tell()
            code = self._file.read(1)
            if not code:
                raise EOFError("it ends without a STOP")
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"{code!r} is no opcode")
            if opcode.name == "STOP":
                return self._stack.pop()
            action = _ACTIONS.get(opcode.name)
            if action is None:
                if self.position == 0:
                    raise ValueError(f"{code!r} is no beginning")
                raise RefusedError(_forbidden(opcode.name, self._stack))
            action(self, self._argument(opcode))

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        if opcode.name in _PAYLOADS:
            width = _PAYLOADS[opcode.name]
            return self._payload(int.from_bytes(self._read(width), "little"))
        if opcode.name == "STRING":  # Python 2's repr of a str, quoted and escaped
            text = self._file.readline().strip()
            if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:]:
                raise ValueError("a string without quotes")
            return codecs.escape_decode(text[1:-1])[0]
        return None if opcode.arg is None else opcode.arg.reader(self._file)  # pyright: ignore[reportArgumentType]

    def _payload(self, size: int) -> bytes | memoryview:
        if size < _MAPPED:
            return self._read(size)
        start = self._file.tell()
        if size > len(self._file) - start:
            raise EOFError(f"{size:,} bytes are announced and {len(self._file) - start:,} are left")
        self._file.seek(size, 1)
        return self._view[start : start + size]

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError(f"{size:,} bytes are announced and {len(data):,} are left")
        return data

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _discard(self, _: None) -> None:
        """The top of the stack, or the mark where there is nothing above it."""
        self._stack.pop() if self._stack else self._pop_marked()

    def _top(self, kind: type) -> Any:
        """The top of the stack, which must be a container of a kind."""
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"{type(self._stack[-1]).__name__} where a {kind.__name__} should be")
        return self._stack[-1]

    def _mark(self, _: None = None) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_marked(self, _: None = None) -> list[Any]:
        """Everything since the last mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _pop_count(self, count: int) -> tuple[Any, ...]:
        items = [self._stack.pop() for _ in range(count)]
        return tuple(reversed(items))

    def _remember(self, key: int | None) -> None:
        key = len(self._memo) if key is None else key
        self._memo[key] = self._stack[-1]
        if isinstance(self._stack[-1], _Unbuilt):
            self._stack[-1].memo_keys.append(key)

    def _recall(self, key: int) -> None:
        self._push(self._memo[key])

    def _name(self, spelling: str) -> None:
        """``module name`` of GLOBAL."""
        self._named(*spelling.split(" ", 1))

    def _named(self, module: Any, name: Any) -> None:
        if not all(isinstance(part, str) and re.fullmatch(r"[\w.<>]{1,200}", part) for part in (module, name)):
            raise ValueError(f"a name of {_shown(module)} and {_shown(name)}")
        spelling = f"{module}.{name}"
        if spelling not in _ALLOWED:
            raise RefusedError(spelling)
        self._push(_Name(spelling, _ALLOWED[spelling]))

    def _reduce(self, _: None) -> None:
        name, arguments = self._pop_count(2)
        if not isinstance(name, _Name) or name.means not in _CALLS or not isinstance(arguments, tuple):
            raise RefusedError(f"a call of {_shown(name)}")
        self._push(self._paid(_CALLS[name.means](*arguments)))

    def _build(self, _: None) -> None:
        unbuilt, state = self._pop_count(2)
        if not isinstance(unbuilt, _Unbuilt) or not isinstance(state, tuple):
            raise RefusedError(f"the state of {_shown(unbuilt)}")
        built = self._paid(_array(state)) if unbuilt.means == "array" else _dtype(unbuilt.code, state)
        for key in unbuilt.memo_keys:
            if self._memo.get(key) is unbuilt:
                self._memo[key] = built
        self._push(built)

    def _paid(self, made: Any) -> Any:
        """What was copied to be made, counted: a few bytes of the file may ask for the same copy again and again."""
        if isinstance(made, bytes | set | frozenset):
            self._copied += 8 * len(made) if not isinstance(made, bytes) else len(made)
        elif isinstance(made, np.generic) or (isinstance(made, np.ndarray) and made.dtype.hasobject):
            self._copied += made.nbytes
        if self._copied > 2**20 + 16 * len(self._file):
            raise ValueError("more is copied than the file could hold")
        return made

    def _extend(self, kind: type, items: list[Any]) -> None:
        container = self._top(kind)
        if kind is dict:
            container.update(_pairs(items))
        elif kind is set:
            container.update(_keys(items))
        else:
            container.extend(items)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(_keys(items[::2]), items[1::2], strict=True))


def _keys(items: list[Any]) -> list[Any]:
    """What is hashed must be plain: tuples of tuples, and large numbers with one hash, can be made to take forever."""
    for item in items:
        whole = isinstance(item, int) and abs(item) < 2**64
        if not (whole or isinstance(item, str | bytes | float | np.integer | np.floating | None)):
            raise RefusedError(f"{_shown(item)} as a key")
    return items


def _forbidden(opcode: str, stack: list[Any]) -> str:
    """What an opcode would do that is no data."""
    asked = {
        "INST": "an instance of a class (INST)",
        "OBJ": "an instance of a class (OBJ)",
        "PERSID": "an object outside of the file (PERSID)",
        "BINPERSID": "an object outside of the file (BINPERSID)",
        "NEXT_BUFFER": "a buffer outside of the file (NEXT_BUFFER)",
        "READONLY_BUFFER": "a buffer outside of the file (READONLY_BUFFER)",
    }
    if opcode.startswith("NEWOBJ"):
        names = [item.spelling for item in stack if isinstance(item, _Name)]
        return f"an instance of {names[-1] if names else 'a class'} ({opcode})"
    return asked.get(opcode, f"an entry of copyreg's extension registry ({opcode})")


# What a call of an allowed name means. A wrong number or kind of arguments is a TypeError or ValueError: damage.


def _call_empty_array(kind: Any, shape: Any, code: Any) -> _Unbuilt:
    if not isinstance(kind, _Name) or kind.means != "ndarray":
        raise RefusedError(f"an array of the class {_shown(kind)}")
    del shape, code  # NumPy gives (0,) and b"b", and means the state that follows
    return _Unbuilt("array")


def _call_dtype(code: Any, align: Any = False, copy: Any = True) -> _Unbuilt:
    del align, copy
    code = code.decode("ascii") if isinstance(code, bytes) else code
    if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO]\d{1,9}", code):
        raise RefusedError(f"a dtype {_shown(code)}")
    return _Unbuilt("dtype", code)


def _call_scalar(dtype: Any, data: Any) -> Any:
    return _view((), dtype, "C", data)[()]


def _call_buffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray:
    if order == "K":
        array = _view(shape, dtype, "C", data)
        return array if axis_order is None else array.transpose(axis_order)
    return _view(shape, dtype, order, data)


def _call_encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise RefusedError(f"_codecs.encode to {_shown(encoding)}")
    return text.encode("latin-1")


def _call_bytes(data: Any = b"", encoding: Any = None) -> bytes | memoryview:
    if isinstance(data, str):
        return _call_encode(data, encoding)
    if not isinstance(data, bytes | memoryview):
        raise TypeError(f"bytes of {type(data).__name__}")
    return data


def _array(state: tuple[Any, ...]) -> np.ndarray:
    """``ndarray.__setstate__``: (version, shape, dtype, Fortran order, data), the version left out by old ones."""
    shape, dtype, fortran, data = state[-4:]
    return _view(shape, dtype, "F" if fortran else "C", data)


def _dtype(code: str, state: tuple[Any, ...]) -> np.dtype:
    """``dtype.__setstate__``: (version, byte order, subarray, names, fields, ...)."""
    _, order, *structure = (item.decode("ascii") if isinstance(item, bytes) else item for item in state[:5])
    if order not in ("<", ">", "|", "=") or any(item is not None for item in structure):
        raise RefusedError("a dtype of several fields")
    return np.dtype(code).newbyteorder(order)


def _view(shape: Any, dtype: Any, order: Any, data: Any) -> np.ndarray:
    """The array of these bytes, without a copy; of a list for objects."""
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


def _shown(value: Any) -> str:
    """A value for an error: short, and whatever it holds."""
    if isinstance(value, _Name):
        return value.spelling
    if isinstance(value, str | bytes):
        return repr(value[:80])
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else "a number of more than 64 bits"
    return f"a {type(value).__name__}"


def _check_whole(data: Any) -> None:
    """Refuse data in which a stand-in is left: a name, or an array or dtype that was never built."""
    left, seen = [data], {id(data)}
    while left:
        item = left.pop()
        if isinstance(item, _Name | _Unbuilt):
            raise RefusedError(
                f"{_shown(item)} for itself" if isinstance(item, _Name) else f"an {item.means} without state"
            )
        inner: Any = ()
        if isinstance(item, dict):
            inner = item.values()
        elif isinstance(item, list | tuple):
            inner = item
        elif isinstance(item, np.ndarray) and item.dtype.hasobject:
            inner = item.ravel().tolist()
        for part in inner:
            if isinstance(part, dict | list | tuple | np.ndarray | _Name | _Unbuilt) and id(part) not in seen:
                seen.add(id(part))
                left.append(part)


_CALLS: dict[str, Callable[..., Any]] = {
    "empty array": _call_empty_array,
    "buffer": _call_buffer,
    "scalar": _call_scalar,
    "dtype": _call_dtype,
    "encode": _call_encode,
    "bytes": _call_bytes,
    "set": lambda items=(): set(_keys(list(items))),
    "frozenset": lambda items=(): frozenset(_keys(list(items))),
}

_PAYLOADS = {"SHORT_BINSTRING": 1, "BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Opcodes that hold bytes, and the width of their length."""

_NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINBYTES")

_Action = Callable[[Machine, Any], Any]

_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys([*_NUMBERS, *_TEXTS, *_PAYLOADS], Machine._push),
    **dict.fromkeys(["PROTO", "FRAME"], lambda _, __: None),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "EMPTY_SET": lambda machine, _: machine._push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "MARK": Machine._mark,
    "POP": Machine._discard,
    "POP_MARK": Machine._pop_marked,
    "DUP": lambda machine, _: machine._push(machine._top(object)),
    "LIST": lambda machine, _: machine._push(machine._pop_marked()),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._pop_marked())),
    "FROZENSET": lambda machine, _: machine._push(frozenset(_keys(machine._pop_marked()))),
    "DICT": lambda machine, _: machine._push(_pairs(machine._pop_marked())),
    "TUPLE1": lambda machine, _: machine._push(machine._pop_count(1)),
    "TUPLE2": lambda machine, _: machine._push(machine._pop_count(2)),
    "TUPLE3": lambda machine, _: machine._push(machine._pop_count(3)),
    "APPEND": lambda machine, _: machine._extend(list, [machine._pop()]),
    "APPENDS": lambda machine, _: machine._extend(list, machine._pop_marked()),
    "SETITEM": lambda machine, _: machine._extend(dict, list(machine._pop_count(2))),
    "SETITEMS": lambda machine, _: machine._extend(dict, machine._pop_marked()),
    "ADDITEMS": lambda machine, _: machine._extend(set, machine._pop_marked()),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"], Machine._remember),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], Machine._recall),
    "GLOBAL": Machine._name,
    "STACK_GLOBAL": lambda machine, _: machine._named(*machine._pop_count(2)),
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
}
