"""Features of one modality in a file per sample, or a folder of frames per sample."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.corpus import Progress
from multimodal_pad.sources.npy_files import NpyFile, read_frame

Absent = Literal["error", "missing"]
"""What to do with a sample without a file."""

Vectors = Literal["frame", "sequence"]
"""The meaning of an array of one axis: one frame of features, or positions of one number each."""

logger = logging.getLogger(__name__)

_SUFFIXES = (".npy", ".npz")
_THREADS = 8  # headers take a while to come, most of all from a network disk
_TOGETHER = 64  # files of a piece of work


class FeatureFiles:
    """The features of a modality, in a file or a folder per sample.

    - ``.npy``: an array ``(length, *feature_shape)``;
    - ``.npz``: the array of that kind that is called as the modality;
    - a folder: an ``.npy`` per frame, each ``feature_shape`` or ``(1, features)``, in the order of their names, numbers
      in them as numbers.

    All have features of one shape. Arrays of length 0 are samples that lack the modality, whatever their other axes.
    An array of one axis beside arrays ``(length, features)`` is one frame, as squeezing leaves it. Where all have one
    axis, whole numbers are ``(length,)``, such as token ids; for others ``vectors`` must give the meaning.

    Only headers are read to open it, and of a folder the header of its first frame.

    Args:
        places: of each sample's features: the file or folder, or None where there is none.
        modality: its name.
        ids: of the samples, for errors.
        where: the folder of all, or the column that names them, for errors.
        absent: what to do with samples without a file, or with an empty folder: ``"error"``, or ``"missing"``: they
            lack the modality (length 0), which is logged as a warning and counted.
        vectors: the meaning of an array of one axis: ``"frame"`` or ``"sequence"``.
        progress: progress callback, by headers read.

    Attributes:
        lengths: int64 ``(N,)``; 0 where the modality is missing.
        absent: samples without a file.
        dtype: of the features as read: float32, or the files' own dtype of whole numbers.

    Raises:
        SourceError: there is no file at all, or none for a sample, one that holds no such array, or one whose features
            have another shape or kind. The file is named.
        OSError: a file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/a.npy", np.ones((3, 2)))
    ...     np.save(folder + "/c.npy", np.ones((0, 2)))
    ...     files = FeatureFiles.in_folder(Path(folder), "audio", ["a", "b", "c"], absent="missing")
    >>> files.lengths.tolist(), files.absent
    ([3, 0, 0], 1)
    """

    def __init__(
        self,
        places: Sequence[Path | None],
        modality: str,
        ids: Sequence[str],
        *,
        where: str,
        absent: Absent = "error",
        vectors: Vectors | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._modality, self._vectors = modality, vectors
        found = _measure(places, modality, f"looking through {modality}", progress)
        empty = [index for index, entry in enumerate(found) if entry is None]
        if len(empty) == len(ids):
            first = f"{ids[0]:.80}"
            raise SourceError(
                f"{where}: holds none of {first}.npy, {first}.npz, {first}/ and so on; name the right folder for "
                f"{modality!r}, and ids as the files have them"
            )
        self.absent = len(empty)
        if empty:
            named = ", ".join(f"{ids[index]:.80}" for index in empty[:3]) + (", ..." if len(empty) > 3 else "")
            if absent == "error":
                raise SourceError(
                    f"{where}: {len(empty)} of {len(ids)} samples have no {modality!r}: {named}; add the files, take "
                    "the samples out of the table, or say that they lack the modality with absent='missing' (--absent "
                    "missing)"
                )
            logger.warning("%s: %d of %d samples have no %s: %s", where, len(empty), len(ids), modality, named)
        shape, self.dtype = self._settle([entry for entry in found if entry is not None])
        self._entries = found
        self._none = np.zeros((0, *shape), self.dtype)
        self.lengths = np.array([0 if entry is None else entry.length(shape) for entry in found], np.int64)

    @classmethod
    def in_folder(
        cls,
        folder: Path,
        modality: str,
        ids: Sequence[str],
        *,
        absent: Absent = "error",
        vectors: Vectors | None = None,
        progress: Progress | None = None,
    ) -> FeatureFiles:
        """Find the files of samples in a folder: ``{id}.npy``, else ``{id}.npz``, else the folder ``{id}``.

        Raises:
            SourceError: as above, or no such folder, or an id that leads out of it.
        """
        if not folder.is_dir():
            raise SourceError(
                f"{folder}: no such folder; features of {modality!r} lie there, as {ids[0]:.80}.npy or .npz"
            )
        names: dict[str, set[str]] = {}
        places: list[Path | None] = []
        for name in ids:
            above, _, last = name.rpartition("/")
            if name.startswith("/") or not {"..", "."}.isdisjoint(name.split("/")) or "\0" in name:
                raise SourceError(
                    f"{folder}: got the id {name!r:.80}, which is no name of a file in it; give another one"
                )
            if above not in names:
                names[above] = set(_listed(folder / above))
            there = [f"{last}{suffix}" for suffix in (*_SUFFIXES, "") if f"{last}{suffix}" in names[above]]
            places.append(folder / above / there[0] if there else None)
        return cls(places, modality, ids, where=str(folder), absent=absent, vectors=vectors, progress=progress)

    @property
    def paths(self) -> list[Path]:
        """The files that there are."""
        return [path for entry in self._entries if entry is not None for path in entry.paths()]

    def read(self, index: int) -> np.ndarray:
        """Read the features of a sample, ``(length, *feature_shape)``: float32, or native whole numbers.

        Raises:
            SourceError: the file is damaged, or has changed since it was opened.
        """
        entry = self._entries[index]
        if entry is None or not self.lengths[index]:
            return self._none
        values = entry.read().reshape(self.lengths[index], *self._none.shape[1:])
        with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become inf, which the corpus handles
            return values.astype(self.dtype, copy=False)

    def path(self, index: int) -> Path | None:
        """Return the file or folder of a sample, if there is one."""
        entry = self._entries[index]
        return None if entry is None else entry.path

    def _settle(self, entries: list[_Entry]) -> tuple[tuple[int, ...], np.dtype]:
        """Return the common feature shape and dtype; raises a SourceError that names a file that differs."""
        full = [entry for entry in entries if entry.size]
        first = next((entry for entry in full or entries if len(entry.shape) > 1), (full or entries)[0])
        whole = first.dtype.kind in "biu"
        if len(first.shape) > 1:
            shape = first.shape[1:]
        elif self._vectors is None and not whole and first.size:
            raise SourceError(
                f"{first.path}: holds one axis of {first.size} numbers ({first.dtype}), and so do all others of "
                f"{self._modality!r}; say whether that is one frame of as many features (vectors='frame'; --vectors "
                "frame) or as many positions of one number (vectors='sequence'), or save them as (length, features)"
            )
        else:
            shape = first.shape if self._vectors == "frame" and not whole else ()
        for entry in full:
            fits = entry.shape[1:] == shape or (entry.shape == shape and self._vectors != "sequence")
            if not fits or (entry.dtype.kind in "biu") != whole or (whole and entry.dtype != first.dtype):
                axes = len(entry.shape)
                hint = "; drop the first axis with np.squeeze" if entry.size == 1 and axes > 2 else ""
                raise SourceError(
                    f"{entry.path}: holds {entry.shape} of {entry.dtype}, and {first.path.name} {first.shape} of "
                    f"{first.dtype}; give all of {self._modality!r} features of one shape and kind{hint}"
                )
        return shape, first.dtype.newbyteorder("=") if whole else np.dtype(np.float32)


def told_with(progress: Progress | None, split: str) -> Progress | None:
    """Add the split to the descriptions of a progress callback."""
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{what}, {split}", done, total)


class _Entry(NamedTuple):
    """The features of a sample: a file, or the frames in a folder."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    file: NpyFile
    frames: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.shape[0]

    def length(self, features: tuple[int, ...]) -> int:
        """Return the number of positions, where features are of this shape."""
        return 1 if self.size and features and self.shape == features else self.size

    def paths(self) -> Iterator[Path]:
        yield from (self.path / name for name in self.frames) if self.frames else (self.path,)

    def read(self) -> np.ndarray:
        if not self.frames:
            return self.file.read()
        values = np.empty(self.shape, self.dtype)
        for row, path in zip(values, self.paths(), strict=True):
            found = read_frame(path)
            if found.dtype != self.dtype or _frame_shape(found.shape) != self.shape[1:]:
                raise SourceError(
                    f"{path}: is a frame of shape {found.shape} and {found.dtype}, and the first one, "
                    f"{self.frames[0]}, of {self.file.header.shape} and {self.dtype}; give all the same"
                )
            row[...] = found.reshape(row.shape)
        return values


def _measure(places: Sequence[Path | None], modality: str, what: str, progress: Progress | None) -> list[_Entry | None]:
    """Read the headers of all samples, several at once; None for samples without a file."""
    parts = [places[start : start + _TOGETHER] for start in range(0, len(places), _TOGETHER)]
    found: list[_Entry | None] = []
    threads = ThreadPoolExecutor(_THREADS)
    try:
        for part in threads.map(lambda part: [_entry(place, modality) for place in part], parts):
            found += part
            if progress is not None:
                progress(what, len(found), len(places))
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
    return found


def _entry(place: Path | None, modality: str) -> _Entry | None:
    if place is None:
        return None
    if place.suffix not in _SUFFIXES and place.is_dir():
        frames = tuple(sorted((name for name in _listed(place) if name.endswith(".npy")), key=_natural))
        if not frames:
            return None
        file = NpyFile(place / frames[0])
        return _Entry(place, (len(frames), *_frame_shape(file.header.shape)), file.header.dtype, file, frames)
    file = NpyFile(place, modality)
    if not file.header.shape:
        raise SourceError(
            f"{place}: holds shape () of {file.header.dtype}; features are numbers (length, *feature_shape)"
        )
    return _Entry(place, file.header.shape, file.header.dtype, file)


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, but for hidden ones; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        return []


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a frame; ``(1, features)`` is a frame of features."""
    return shape[1:] if len(shape) == 2 and shape[0] == 1 else shape


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which numbers in a name are numbers: frame 2 comes before frame 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part[:4000]), part) if place % 2 else (-1, part) for place, part in enumerate(parts)]
