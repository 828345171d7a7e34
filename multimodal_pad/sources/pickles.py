"""Pickles read as data: NumPy arrays, containers, numbers and strings. Nothing in the file is imported or called."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.pickle_machine import Machine
from multimodal_pad.sources.pickle_values import RefusedError

_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive (.npz, .pt, .zip)",
    b"\x89HDF": "an HDF5 file (.csd, .h5)",
    b"\x1f\x8b": "a gzip file",
    b"\x93NUMPY": "a NumPy file (.npy)",
}
"""First bytes of what is mistaken for a pickle."""


class FileMapping:
    """The bytes of a file, which the system reads as they are looked at and may forget again.

    Raises:
        SourceError: the file is empty, or no file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder; name the file in it")
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise SourceError(f"{path}: the file is empty; copy it again")
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._looked_at = 0

    def looked_at(self, size: int) -> None:
        """Count bytes that were read; every quarter of a GiB the process lets go of all of them."""
        self._looked_at += size
        if self._looked_at > 2**28 and hasattr(mmap, "MADV_DONTNEED"):
            self._looked_at = 0
            self.bytes.madvise(mmap.MADV_DONTNEED)


def read_pickle(path: str | Path) -> tuple[Any, FileMapping]:
    """What a pickle holds: arrays, dtypes, scalars, containers, numbers and strings, of Python 2 or 3.

    Arrays are read-only views of the file, which take no memory of their own. Pickles that Python 3 wrote with
    protocol 0, 1 or 2 spell bytes as text: their arrays are decoded, and held in memory (twice while reading). Strings
    of Python 2 are given as bytes, bytearrays too; bytes of 64 KiB and more are memoryviews of the file.

    Returns:
        The data, and the mapping of the file that its arrays are views of.

    Raises:
        SourceError: the file is no pickle, is damaged or cut short, or names anything but NumPy's reconstruction,
            arrays, dtypes, scalars, sets, bytes and strings: the name is said, and nothing of it ran.
        OSError: it cannot be read.
    """
    path = Path(path)
    mapping = FileMapping(path)
    for magic, kind in _OTHER_KINDS.items():
        if mapping.bytes[: len(magic)] == magic:
            raise SourceError(f"{path}: not a pickle but {kind}; give the pickle itself, unpacked")
    machine = Machine(mapping.bytes)
    try:
        return machine.run(), mapping
    except RefusedError as refused:
        raise SourceError(
            f"{path}: the pickle asks for {refused}, at byte {machine.position}; only NumPy arrays, dtypes, scalars, "
            "containers, numbers and strings are read, and nothing of it was run. If you trust the file, load it "
            "yourself and save plain arrays"
        ) from None
    except Exception as error:  # noqa: BLE001 - damage can fail in any way
        if machine.position == 0:
            raise SourceError(f"{path}: not a pickle ({_reason(error)}); give the pickle itself, unpacked") from None
        raise SourceError(
            f"{path}: damaged or cut short, at byte {machine.position:,} of {len(mapping.bytes):,} ({_reason(error)}); "
            "copy it again"
        ) from None


def _reason(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
