"""Reading files whole and within bounds, with errors that name them; NumPy's ``.npy`` and ``.npz``."""

from __future__ import annotations

import errno
import math
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError

_ROOM = 2**24
"""Bytes to which any file may unpack."""

_RATIO = 100
"""Times its size to which a larger file may unpack, beside these bytes."""

_DAMAGE = (None, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW, errno.ESPIPE)
"""Numbers of OSErrors that are about places which a file does not have, and not about the system."""

_KINDS = {
    stat.S_IFDIR: "a folder; name the file in it",
    stat.S_IFIFO: "a pipe; write it to a file first",
    stat.S_IFSOCK: "a socket; name a file",
    stat.S_IFCHR: "a device; name a file",
    stat.S_IFBLK: "a device; name a file",
}

Unpickle = Callable[[bytes, str], Any]
"""A function that makes data of a pickle; it gets the bytes, and the pickle's name for errors."""


@contextmanager
def reading(where: object, advice: str = "copy it again") -> Iterator[None]:
    """Turn all errors of reading a damaged file into a SourceError that names it.

    An OSError of the system (no such file, no permission) stays one, and so does every PaddingError.

    Args:
        where: the file, and the place in it.
        advice: what to do.

    >>> with reading("lengths.bin"):
    ...     int.from_bytes(b"", "little") / 0
    Traceback (most recent call last):
    multimodal_pad.errors.SourceError: lengths.bin: damaged or cut short (ZeroDivisionError: ...); copy it again
    """
    try:
        yield
    except PaddingError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        raise SourceError(f"{where}: damaged or cut short ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """Return an exception's message, shortened."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def file_size(path: Path) -> int:
    """Return the number of bytes of a regular file.

    Raises:
        SourceError: it is something else, such as a folder, or a pipe, from which reading might never end.
        OSError: it is not there.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path}: is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}")
    return found.st_size


def check_unpacked(unpacked: int, size: int, where: object) -> None:
    """Raise a SourceError where data would take much more memory than the size of their file explains.

    Args:
        unpacked: bytes of the data.
        size: bytes of the file.
        where: the file, and the place in it.
    """
    if unpacked > _ROOM + _RATIO * size:
        raise SourceError(
            f"{where}: would take {unpacked:,} bytes, and the file has {size:,}; more than {_RATIO} times its "
            "size is not read (write it again without what is empty, or uncompressed)"
        )


def read_npy(path: str | Path, *, unpickle: Unpickle | None = None) -> np.ndarray:
    """Read the array of a ``.npy`` file, as a read-only view of the file, which the system reads on access.

    Args:
        path: the file.
        unpickle: makes data of arrays of Python objects, which are pickles; without it they are refused.

    Raises:
        SourceError: the file is no such file, is damaged or cut short, or holds Python objects.
        OSError: it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/a.npy", [1, 2, 3])
    ...     read_npy(folder + "/a.npy").tolist()
    [1, 2, 3]
    """
    path = Path(path)
    size = file_size(path)
    with reading(path, "write it again with np.save"), path.open("rb") as file:
        shape, order, dtype = read_npy_header(file)
        if dtype.hasobject:
            return _objects(file.read(), unpickle, str(path))
        start = file.tell()
        check_npy_shape(shape, dtype, size - start)
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype, "r", start, shape, order))


def read_npz(
    path: str | Path, names: Sequence[str] | None = None, *, unpickle: Unpickle | None = None
) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file into memory.

    Args:
        path: the file.
        names: which arrays; all by default.
        unpickle: as in :func:`read_npy`.

    Raises:
        SourceError: the file is no such file, is damaged, lacks an array, holds Python objects, or would be more than
            100 times as large in memory.
        OSError: it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(folder + "/a.npz", text=[1, 2], audio=[3.0])
    ...     {name: array.tolist() for name, array in read_npz(folder + "/a.npz").items()}
    {'text': [1, 2], 'audio': [3.0]}
    """
    path = Path(path)
    size = file_size(path)
    with reading(path, "write it again with np.savez"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        absent = [name for name in names or () if name not in members]
        if absent:
            raise SourceError(f"{path}: has no array {absent[0]!r}, only {some(members)}")
        chosen = {name: members[name] for name in names or members}
        check_unpacked(sum(info.file_size for info in chosen.values()), size, path)
        return {name: _member(archive, info, unpickle, f"{path}, array {name!r}") for name, info in chosen.items()}


def some(names: Sequence[Any] | Any, most: int = 20) -> str:
    """List names for an error, of which there may be any number.

    >>> some("abc"), some(range(5), most=2)
    ("['a', 'b', 'c']", '[0, 1, ... 5 in all]')
    """
    names = list(names)
    shown = [text if len(text := repr(name)) <= 100 else f"{text[:80]}..." for name in names[:most]]
    return f"[{', '.join(shown)}{f', ... {len(names)} in all' if len(names) > most else ''}]"


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, unpickle: Unpickle | None, where: str) -> np.ndarray:
    with reading(where, "write it again with np.savez"), archive.open(info) as file:
        shape, order, dtype = read_npy_header(file)
        start = file.tell()
        data = file.read()  # at most the archive's own size for it, which is bounded
        if len(data) != info.file_size - start:
            raise EOFError(f"{info.file_size - start:,} bytes are announced and {len(data):,} are there")
        if dtype.hasobject:
            return _objects(data, unpickle, where)
        check_npy_shape(shape, dtype, len(data))
        return np.ndarray(shape, dtype, data or None, order=order)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Return shape, order and dtype of an array in NumPy's format."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of the format")
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:  # version 3 differs in the encoding of fields' names
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, "F" if fortran else "C", dtype


def check_npy_shape(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Raise where an array is not as large as its bytes."""
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise ValueError("a shape of what are no lengths")
    count = math.prod(shape)
    if count * dtype.itemsize != size or (not size and math.prod(filter(None, shape)) > _ROOM):
        raise ValueError(f"an array of shape {shape} and dtype {dtype} of {size:,} bytes")


def _objects(data: bytes, unpickle: Unpickle | None, where: str) -> np.ndarray:
    if unpickle is None:
        raise SourceError(f"{where}: holds Python objects; save numbers or text, such as np.array(values, np.float32)")
    array = unpickle(data, where)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"a {type(array).__name__} where an array should be")
    return array
