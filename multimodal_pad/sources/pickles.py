"""Pickles read as data: NumPy arrays, containers, numbers and strings. Nothing in the file is imported or called."""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import file_size, read_npz, reason
from multimodal_pad.sources.pickle_machine import Machine
from multimodal_pad.sources.pickle_values import RefusedError

_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive (.npz, .pt, .zip)",
    b"\x89HDF": "an HDF5 file (.csd, .h5)",
    b"\x1f\x8b": "a gzip file",
    b"\x93NUMPY": "a NumPy file (.npy)",
}
"""First bytes of files that are mistaken for pickles."""


class FileMapping:
    """The bytes of a file, which the system reads on access and may drop again.

    Raises:
        SourceError: the file is empty, or no file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not file_size(path):
            raise SourceError(f"{path}: the file is empty; copy it again")
        with path.open("rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._looked_at = 0

    def looked_at(self, size: int) -> None:
        """Count bytes that were read; after every quarter of a GiB the process drops all of them."""
        self._looked_at += size
        if self._looked_at > 2**28 and hasattr(mmap, "MADV_DONTNEED"):
            self._looked_at = 0
            self.bytes.madvise(mmap.MADV_DONTNEED)


def read_pickle(path: str | Path) -> tuple[Any, FileMapping]:
    """Read a pickle as data: arrays, dtypes, scalars, containers, numbers and strings, of Python 2 or 3.

    Arrays are read-only views of the file, which take no memory of their own. Pickles that Python 3 wrote with
    protocol 0, 1 or 2 spell bytes as text: their arrays are decoded, and held in memory (twice while reading). Strings
    of Python 2 are given as bytes, bytearrays too; bytes of 64 KiB and more are memoryviews of the file. Time and
    memory are bounded by the size of the file.

    Returns:
        The data, and the mapping of the file that its arrays are views of.

    Raises:
        SourceError: the file is no pickle, is damaged or cut short, or names anything but NumPy's reconstruction,
            arrays, dtypes, scalars, sets, bytes and strings: the error has the name, and nothing of the file ran.
        OSError: it cannot be read.
    """
    path = Path(path)
    mapping = FileMapping(path)
    for magic, kind in _OTHER_KINDS.items():
        if mapping.bytes[: len(magic)] == magic:
            raise SourceError(f"{path}: not a pickle but {kind}; give the pickle itself, unpacked")
    return _run(Machine(mapping.bytes, memoryview(mapping.bytes)), len(mapping.bytes), str(path)), mapping


def unpickle(data: bytes, where: str) -> Any:
    """Read a pickle in memory, such as an array of objects in a ``.npz``, as :func:`read_pickle` does."""
    return _run(Machine(io.BytesIO(data), memoryview(data)), len(data), where)


def read_archive(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file, those of Python objects too, whose pickles are read as data.

    Args:
        path: the file.

    Raises:
        SourceError: as :func:`~multimodal_pad.reading.read_npz` and :func:`read_pickle`.
        OSError: it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(folder + "/label.npz", train_corpus=np.array({"sample_1": {"emo": "happy"}}))
    ...     read_archive(folder + "/label.npz")["train_corpus"].item()
    {'sample_1': {'emo': 'happy'}}
    """
    return read_npz(path, unpickle=unpickle)


def _run(machine: Machine, size: int, where: str) -> Any:
    try:
        return machine.run()
    except RefusedError as refused:
        raise SourceError(
            f"{where}: the pickle asks for {refused}, at byte {machine.position}; only NumPy arrays, dtypes, scalars, "
            "containers, numbers and strings are read, and nothing of it was run. If you trust the file, load it "
            "yourself and save plain arrays"
        ) from None
    except Exception as error:
        if machine.position == 0:
            raise SourceError(f"{where}: not a pickle ({reason(error)}); give the pickle itself, unpacked") from error
        raise SourceError(
            f"{where}: damaged or cut short, at byte {machine.position:,} of {size:,} ({reason(error)}); copy it again"
        ) from error
