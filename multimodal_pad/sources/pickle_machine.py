"""The pickle stack machine on data alone.

A pickle is a program for a small stack machine, and :mod:`pickle` runs whatever function it names. Here the same
program is walked through with stand-ins: the few names with which data is taken apart are recognised by their
spelling, every other one is refused, and no name is ever looked up.

An allow-list on :class:`pickle.Unpickler` would be shorter, and is not enough: nine bytes make it take 34 GB (a place
in its memo), it hashes any key, which can be made to take forever, entries of copyreg's cache pass it by, and
it copies every array (978 MiB for a file of 1 GB, where this machine takes 36).
"""

from __future__ import annotations

import codecs
import io
import math
import mmap
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from multimodal_pad.sources.pickle_values import (
    ALLOWED,
    CALLS,
    Name,
    RefusedError,
    Unbuilt,
    build_array,
    build_dtype,
    check_whole,
    keys,
    pairs,
    shown,
)

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_MAPPED = 1 << 16  # bytes: longer values stay in the file

_PLACES = 1 << 32  # of the memo: larger numbers can share one hash


class Machine:
    """The pickle stack machine, on data alone.

    Args:
        file: at its beginning.
        view: of its bytes, which large arrays will be views of.
    """

    def __init__(self, file: mmap.mmap | io.BytesIO, view: memoryview) -> None:
        self.position = 0
        self._file, self._view = file, view
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def run(self) -> Any:
        """Return the data, from the first opcode to STOP."""
        data = self._run()
        check_whole(data)
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
        if size > len(self._view) - start:
            raise EOFError(f"{size:,} bytes are announced and {len(self._view) - start:,} are left")
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
        """Drop the top of the stack, or the mark where there is nothing above it."""
        self._stack.pop() if self._stack else self._pop_marked()

    def _top(self, kind: type) -> Any:
        """Return the top of the stack, which must be a container of a kind."""
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"{type(self._stack[-1]).__name__} where a {kind.__name__} should be")
        return self._stack[-1]

    def _mark(self, _: None = None) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_marked(self, _: None = None) -> list[Any]:
        """Pop everything since the last mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _pop_count(self, count: int) -> tuple[Any, ...]:
        items = [self._stack.pop() for _ in range(count)]
        return tuple(reversed(items))

    def _remember(self, key: int | None) -> None:
        key = len(self._memo) if key is None else key
        if not 0 <= key < _PLACES:
            raise ValueError("a place in the memo of more than 32 bits")
        self._memo[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        value = self._memo[key]
        self._push(value.built if isinstance(value, Unbuilt) and value.built is not None else value)

    def _name(self, spelling: str) -> None:
        """Push the name ``module name`` of GLOBAL."""
        self._named(*spelling.split(" ", 1))

    def _named(self, module: Any, name: Any) -> None:
        if not all(isinstance(part, str) and re.fullmatch(r"[\w.<>]{1,200}", part) for part in (module, name)):
            raise ValueError(f"a name of {shown(module)} and {shown(name)}")
        spelling = f"{module}.{name}"
        if spelling not in ALLOWED:
            raise RefusedError(spelling)
        self._push(Name(spelling, ALLOWED[spelling]))

    def _reduce(self, _: None) -> None:
        name, arguments = self._pop_count(2)
        if not isinstance(name, Name) or name.means not in CALLS or not isinstance(arguments, tuple):
            raise RefusedError(f"a call of {shown(name)}")
        self._push(self._paid(CALLS[name.means](*arguments)))

    def _build(self, _: None) -> None:
        unbuilt, state = self._pop_count(2)
        if not isinstance(unbuilt, Unbuilt) or not isinstance(state, tuple) or unbuilt.built is not None:
            raise RefusedError(f"the state of {shown(unbuilt)}")
        unbuilt.built = self._paid(build_array(state)) if unbuilt.means == "array" else build_dtype(unbuilt.code, state)
        self._push(unbuilt.built)

    def _paid(self, made: Any) -> Any:
        """Count the copies made for a value: a few bytes of the file may ask for the same copy again and again."""
        if isinstance(made, bytes | set | frozenset):
            self._copied += 8 * len(made) if not isinstance(made, bytes) else len(made)
        elif isinstance(made, np.generic) or (isinstance(made, np.ndarray) and made.dtype.hasobject):
            self._copied += made.nbytes
        if isinstance(made, np.ndarray) and not made.size:
            self._copied += math.prod(filter(None, made.shape))  # the size of the lists that it would make
        if self._copied > 2**20 + 16 * len(self._view):
            raise ValueError("more is copied than the file could hold")
        return made

    def _extend(self, kind: type, items: list[Any]) -> None:
        container = self._top(kind)
        if kind is dict:
            container.update(pairs(items))
        elif kind is set:
            container.update(keys(items))
        else:
            container.extend(items)


def _forbidden(opcode: str, stack: list[Any]) -> str:
    """Describe the forbidden action of an opcode that is no data."""
    asked = {
        "INST": "an instance of a class (INST)",
        "OBJ": "an instance of a class (OBJ)",
        "PERSID": "an object outside of the file (PERSID)",
        "BINPERSID": "an object outside of the file (BINPERSID)",
        "NEXT_BUFFER": "a buffer outside of the file (NEXT_BUFFER)",
        "READONLY_BUFFER": "a buffer outside of the file (READONLY_BUFFER)",
    }
    if opcode.startswith("NEWOBJ"):
        names = [item.spelling for item in stack if isinstance(item, Name)]
        return f"an instance of {names[-1] if names else 'a class'} ({opcode})"
    return asked.get(opcode, f"an entry of copyreg's extension registry ({opcode})")


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
    "FROZENSET": lambda machine, _: machine._push(frozenset(keys(machine._pop_marked()))),
    "DICT": lambda machine, _: machine._push(pairs(machine._pop_marked())),
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
