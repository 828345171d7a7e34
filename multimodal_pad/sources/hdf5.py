"""HDF5 files as data alone: groups and arrays of the file itself, within bounds that follow from its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.reading import check_unpacked, file_size, reading, reason


class Hdf5:
    """An HDF5 file. Links are not followed, and data that lie in other files are refused.

    An array of a few bytes can say that it is of any size, and one array can stand under many names. So the bytes of
    all arrays that are asked for are added up, and bounded by the size of the file.

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
        with path.open("rb"):  # what the system says of it
            pass
        try:
            self.root: Any = h5py.File(path, "r")
        except Exception as error:
            raise SourceError(
                f"{path}: not an HDF5 file, or one that is cut short ({reason(error)}); copy it again"
            ) from error

    def names(self, group: Any) -> list[str]:
        """What a group holds, links too."""
        with reading(self.path):
            return list(group)

    def holds(self, group: Any, name: str) -> bool:
        """Whether a group holds something of this name."""
        with reading(f"{self.path}, {name!r}"):
            return name in group

    def group(self, group: Any, name: str) -> Any | None:
        """The group of this name in another, or None where there is none."""
        with reading(f"{self.path}, {name!r}"):
            return found if isinstance(found := self._own(group, name), self._h5py.Group) else None

    def dataset(self, group: Any, name: str, where: str) -> Any | None:
        """The array of this name in a group, which is not read yet, or None where there is none.

        Args:
            group: that holds it.
            name: of the array.
            where: what to call the group.

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
            return found

    @staticmethod
    def values(dataset: Any, where: str) -> np.ndarray:
        """All of an array, in memory."""
        try:
            return np.asarray(dataset)
        except Exception as error:
            raise SourceError(f"{where} can't be read ({reason(error)}); copy the file again") from error

    def close(self) -> None:
        """Let go of the file."""
        with reading(self.path):
            self.root.close()

    def _own(self, group: Any, name: str) -> Any | None:
        """What stands under a name in this very file: links elsewhere are not followed."""
        there = name in group and isinstance(group.get(name, getlink=True), self._h5py.HardLink)
        return group[name] if there else None
