"""HDF5 files as data alone: groups and arrays of the file itself, within bounds that follow from its size."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.reading import check_unpacked, file_size, reading, reason


class Hdf5:
    """An HDF5 file. Links are not followed, and data that lie in other files are refused.

    A few bytes can declare an array of any size, and one array can stand under many names. So the bytes of
    all arrays that are read are added up, and bounded by the size of the file.

    Args:
        path: the file.

    Attributes:
        path: the file.
        root: the group of all others.
        size: bytes of the file.

    Raises:
        PaddingError: h5py is not installed (``pip install 'multimodal-pad[csd]'``).
        SourceError: not such a file, or one that is damaged; as all methods.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ModuleNotFoundError:
            raise PaddingError(
                f"{path.suffix} files need h5py; install it with pip install 'multimodal-pad[csd]'"
            ) from None
        self.path = path
        self.size = file_size(path)
        self._h5py: Any = h5py
        self._bytes: dict[str, int] = {}
        self._total = 0
        with path.open("rb"):  # raises the system's own error
            pass
        try:
            self.root: Any = h5py.File(path, "r")
        except Exception as error:
            raise SourceError(
                f"{path}: not an HDF5 file, or one that is cut short ({reason(error)}); copy it again"
            ) from error

    def names(self, group: Any) -> list[str]:
        """Return the names in a group, links too."""
        with reading(self.path):
            return list(group)

    def group(self, group: Any, name: str) -> Any | None:
        """Return the group of this name in another, or None where there is none."""
        with reading(f"{self.path}, {name!r}"):
            return found if isinstance(found := self._own(group, name), self._h5py.Group) else None

    def dataset(self, group: Any, name: str, where: str) -> Any | None:
        """Return the array of this name in a group, not read yet, or None where there is none.

        Args:
            group: the group that holds it.
            name: of the array.
            where: the name of the group in errors.

        Raises:
            SourceError: its data lie elsewhere, or are more than the file could hold.
        """
        with reading(f"{where}, {name!r}"):
            found = self._own(group, name)
            if found is None:
                return None
            if not isinstance(found, self._h5py.Dataset) or found.is_virtual or found.external is not None:
                raise SourceError(f"{where}: {name!r} is no array of this file; copy its data into the file")
            if found.shape is None:
                raise SourceError(f"{where}: {name!r} holds nothing; write an array of length 0")
            key = f"{group.name}/{name}"
            if key not in self._bytes:
                self._bytes[key] = int(found.nbytes)
                self._total += int(found.nbytes)
                check_unpacked(self._total, self.size, f"{where}, {name!r}")
                chunk = math.prod(found.chunks or ()) * found.dtype.itemsize  # may be larger than the array
                check_unpacked(chunk, self.size, f"{where}, {name!r}")
            return found

    def values(self, dataset: Any, where: str) -> np.ndarray:
        """Read all of an array into memory."""
        try:
            return _inflated(dataset) if self._is_deflated(dataset) else np.asarray(dataset)
        except Exception as error:
            raise SourceError(f"{where} can't be read ({reason(error)}); copy the file again") from error

    def _is_deflated(self, dataset: Any) -> bool:
        """Return whether an array is in chunks packed by deflate, shuffled before or not, and by nothing else."""
        packed = dataset.id.get_create_plist()
        filters = [packed.get_filter(place)[0] for place in range(packed.get_nfilters())]
        deflate, shuffle = self._h5py.h5z.FILTER_DEFLATE, self._h5py.h5z.FILTER_SHUFFLE
        plain = dataset.dtype.kind in "iuf" and dataset.id.get_type().equal(self._h5py.h5t.py_create(dataset.dtype))
        return plain and filters in ([deflate], [shuffle, deflate])

    def close(self) -> None:
        """Close the file."""
        with reading(self.path):
            self.root.close()

    def _own(self, group: Any, name: str) -> Any | None:
        """Return the object of a name in this very file: links elsewhere are not followed."""
        there = name in group and isinstance(group.get(name, getlink=True), self._h5py.HardLink)
        return group[name] if there else None


def _inflated(dataset: Any) -> np.ndarray:
    """Read an array of deflated chunks within bounds; HDF5 itself unpacks a chunk to any size."""
    values = np.full(dataset.shape, dataset.fillvalue, dataset.dtype)
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    skips_shuffle, skips_deflate = (1, 2) if dataset.shuffle else (0, 1)  # bits of a chunk's mask

    def unpack(chunk: Any) -> None:
        _, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
        inflate = zlib.decompressobj()
        packed_by_deflate = not chunk.filter_mask & skips_deflate
        data = inflate.decompress(packed, size + 1) if packed_by_deflate else packed
        if len(data) != size or (packed_by_deflate and not inflate.eof):
            raise ValueError(f"a chunk of {len(data):,} bytes or more where {size:,} should be")
        if dataset.shuffle and not chunk.filter_mask & skips_shuffle:
            data = np.frombuffer(data, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        ends = np.minimum(np.add(chunk.chunk_offset, dataset.chunks), values.shape).tolist()
        place = tuple(slice(first, end) for first, end in zip(chunk.chunk_offset, ends, strict=True))
        inside = tuple(slice(0, end - first) for first, end in zip(chunk.chunk_offset, ends, strict=True))
        values[place] = np.frombuffer(data, dataset.dtype).reshape(dataset.chunks)[inside]

    if values.size:
        dataset.id.chunk_iter(unpack)
    return values
