"""Arrays of ``.npy`` and ``.npz`` files: their shapes from the headers alone, and their values."""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from multimodal_pad.errors import SourceError

_MAGIC = b"\x93NUMPY"
_LONGEST = 1 << 16  # bytes of a header; NumPy writes less than 200 for a plain array
_MOST_DEFLATED = 1032
"""Times as large as its packed bytes are: deflate does no more."""


class Header(NamedTuple):
    """What a ``.npy`` file says of its array, and where the values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpyFile:
    """A ``.npy`` file of numbers, or an array of them in a ``.npz`` file.

    Opening reads nothing but the header, which is held against the size of the file: a file that is cut short is found
    without looking at its values.

    Args:
        path: the file.
        key: the array in a ``.npz`` file; where that has just one array, any name will do.

    Attributes:
        header: shape and dtype of the array.

    Raises:
        SourceError: no regular file, no such array, or a header that is none, or says what the file can't hold.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/a.npy", np.ones((3, 2), np.float16))
    ...     file = NpyFile(Path(folder, "a.npy"))
    ...     file.header.shape, file.read().sum()
    ((3, 2), np.float16(6.0))
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self.path, self.key = path, key
        with self._open() as (file, size):
            self.header = read_header(file, size)

    def read(self) -> np.ndarray:
        """The values, as they are in the file; no view of it, which would be slower and could not be cut short.

        Raises:
            SourceError: the file has changed, or is damaged.
        """
        with self._open() as (file, size):
            header = read_header(file, size)
            if header != self.header:
                raise SourceError(f"{self.path}: has changed since it was opened; open the corpus again")
            return _values(file, header)

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        """The bytes of the array's file, and how many there are."""
        with reading(self.path), open_regular(self.path) as (file, size):
            if self.path.suffix == ".npz":
                with zipfile.ZipFile(file) as archive:
                    member = self._member(archive)
                    with open_member(archive, member) as inner:
                        yield inner, member.file_size
            else:
                yield file, size

    def _member(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if self.key in members:
            return members[self.key]
        if len(members) != 1:
            raise SourceError(f"{self.path}: has no array {self.key!r}, only {list(members)}; name it so")
        return next(iter(members.values()))


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A file of an archive, unless it says that it is larger than packing could have made it.

    Raises:
        ValueError: it does.
    """
    deflated = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_DEFLATED}.get(member.compress_type)
    if deflated is None:
        raise ValueError(f"{member.filename!r} is packed in a way that NumPy doesn't use")
    if member.file_size > deflated * member.compress_size:
        raise ValueError(f"{member.filename!r} says that {member.compress_size:,} bytes hold {member.file_size:,}")
    return archive.open(member)


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A regular file and its size: one that is no file, such as a pipe, is refused before it could keep us waiting.

    Raises:
        SourceError: no regular file.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise SourceError(f"{path}: is no regular file; write the array there with np.save")
    with path.open("rb", buffering=1 << 12) as file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes NumPy or zipfile raise, as a SourceError that names it."""
    try:
        yield
    except (SourceError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - damage can fail in any way
        reason = (str(error) or type(error).__name__)[:200]
        raise SourceError(f"{path}: not a file of features ({reason}); write it again with np.save") from None


def read_header(file: IO[bytes], size: int) -> Header:
    """The header of an array of numbers, held against the bytes that its file has.

    Raises:
        ValueError: it is none, or says what the file can't hold.
    """
    start = file.read(len(_MAGIC) + 2)
    if start[: len(_MAGIC)] != _MAGIC:
        raise ValueError("it doesn't begin as a .npy file")
    if start[len(_MAGIC) :] not in (b"\1\0", b"\2\0"):
        raise ValueError("an array of several fields")
    width = 2 if start[-2] == 1 else 4
    length = file.read(width)
    count = int.from_bytes(length, "little")
    if count > _LONGEST:
        raise ValueError(f"a header of {count} bytes")
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(io.BytesIO(length + file.read(count)), _LONGEST)
    if not all(type(extent) is int and 0 <= extent < 2**48 for extent in shape) or len(shape) > 32:
        raise ValueError("a shape that no array has")
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {'Python objects' if dtype.hasobject else dtype}, and features are numbers")
    header = Header(shape, dtype, fortran_order, len(start) + width + count)
    if header.offset + header.nbytes > size:
        raise ValueError(f"it has {size:,} bytes, and an array of shape {shape} and {dtype} takes more")
    return header


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file of numbers.

    Raises:
        SourceError: it is none, or damaged.
        OSError: it cannot be read.
    """
    with reading(path), open_regular(path) as (file, size):
        return _values(file, read_header(file, size))


def _values(file: IO[bytes], header: Header) -> np.ndarray:
    values = np.empty(math.prod(header.shape), header.dtype)
    left = memoryview(values.view(np.uint8))
    while left:
        count = file.readinto(left)  # pyright: ignore[reportAttributeAccessIssue] - both kinds of file have it
        if not count:
            raise ValueError("it ends too early")
        left = left[count:]
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")
