"""Arrays of ``.npy`` and ``.npz`` files: their shapes by the headers alone, and their values."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import check_npy_shape, check_unpacked, file_size, read_npy_header, reading, some

_ADVICE = "write it again with np.save"


class Header(NamedTuple):
    """The header of a ``.npy`` file."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype


class NpyFile:
    """A ``.npy`` file of numbers, or an array of them in a ``.npz`` file.

    Opening reads only the header, which is checked against the size of the file: a file that is cut short is found
    without reading its values.

    Args:
        path: the file.
        key: the array in a ``.npz`` file.

    Attributes:
        header: shape and dtype of the array.

    Raises:
        SourceError: no regular file, no such array, or a header that is damaged or declares more than the file holds.
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
            self.header = _header(file, size, self.path)

    def read(self) -> np.ndarray:
        """Read the values: a copy, which is faster than a view of the file where all of it is needed.

        Raises:
            SourceError: the file has changed, or is damaged.
            OSError: it cannot be read.
        """
        with self._open() as (file, size):
            if _header(file, size, self.path) != self.header:
                raise SourceError(f"{self.path}: has changed since it was opened; open the corpus again")
            return _values(file, self.header)

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        """Yield the bytes of the array's file, and their number."""
        size = file_size(self.path)
        with reading(self.path, _ADVICE), self.path.open("rb", buffering=1 << 12) as file:
            if self.path.suffix != ".npz":
                yield file, os.fstat(file.fileno()).st_size
                return
            with zipfile.ZipFile(file) as archive:
                member = self._member(archive)
                check_unpacked(member.file_size, size, self.path)
                with archive.open(member) as inner:
                    yield inner, member.file_size

    def _member(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if self.key not in members:
            raise SourceError(f"{self.path}: has no array {self.key!r}, only {some(members)}; name it so")
        return members[self.key]


def read_frame(path: Path) -> np.ndarray:
    """Read the array of a small ``.npy`` file, as it is.

    Raises:
        SourceError: it is no such file, or damaged.
        OSError: it cannot be read.
    """
    size = file_size(path)
    with reading(path, _ADVICE), path.open("rb", buffering=1 << 12) as file:
        return _values(file, _header(file, size, path))


def _header(file: IO[bytes], size: int, path: Path) -> Header:
    """Read the header of an array of numbers, checked against the bytes of its file."""
    header = Header(*read_npy_header(file))
    shape, _, dtype = header
    if dtype.kind not in "biuf":
        what = "Python objects" if dtype.hasobject else f"shape {shape} of {dtype}"
        raise SourceError(f"{path}: holds {what}; features are numbers (length, *feature_shape)")
    check_npy_shape(shape, dtype, size - file.tell())
    return header


def _values(file: IO[bytes], header: Header) -> np.ndarray:
    """Read the values after a header."""
    values = np.empty(math.prod(header.shape), header.dtype)
    left = values.view(np.uint8).data
    while left:
        count = file.readinto(left)  # pyright: ignore[reportAttributeAccessIssue] - both kinds of file have it
        if not count:
            raise EOFError("it ends too early")
        left = left[count:]
    return values.reshape(header.shape, order=header.order)
