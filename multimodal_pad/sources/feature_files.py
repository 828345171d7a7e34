"""Features of one modality in a file per utterance, ``.npy`` or ``.npz``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import DAMAGED
from multimodal_pad.sources.corpus import Progress

logger = logging.getLogger(__name__)


class FeatureFiles:
    """``{folder}/{utterance}.npy``, or the array of the modality in ``{folder}/{utterance}.npz``, for each utterance.

    Utterances are called ``dia0_utt3``, by dialogue and number; since MELD counts both anew in each split, each split
    has a folder of its own. An array is ``(length, *feature_shape)``, as wide as all others.

    Args:
        folder: of one split.
        modality: the name of the array in ``.npz`` files.
        ids: of the utterances, in order.
        progress: told how many headers are read.

    Attributes:
        lengths: int64 ``(N,)``; 0 where there is no file.
        absent: utterances without a file.
        paths: the files that there are.

    Raises:
        SourceError: there is none, or one that holds no such array, or one of another width.
    """

    def __init__(self, folder: Path, modality: str, ids: Sequence[str], progress: Progress | None = None) -> None:
        self._modality = modality
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder; features of {modality!r} lie there, as {ids[0]}.npy or .npz")
        there = {path.name: path for path in folder.iterdir()}
        self._paths = [there.get(f"{name}.npy") or there.get(f"{name}.npz") for name in ids]
        self.paths = [path for path in self._paths if path is not None]
        if not self.paths:
            raise SourceError(f"{folder}: holds none of {ids[0]}.npy, {ids[0]}.npz and so on; name the right folder")
        self.absent = len(ids) - len(self.paths)
        if self.absent:
            logger.warning("%s: %d of %d utterances have no %s", folder, self.absent, len(ids), modality)
        self.lengths = np.zeros(len(ids), np.int64)
        first: tuple[Path, tuple[int, ...]] | None = None
        for index, path in enumerate(self._paths):
            if path is not None:
                shape = self._load(path).shape
                first = (path, shape[1:]) if first is None else first
                if shape[1:] != first[1]:
                    raise SourceError(
                        f"{path}: has features of shape {shape[1:]}, and {first[0].name} of {first[1]}; give all the "
                        "same"
                    )
                self.lengths[index] = shape[0]
            if progress is not None:
                progress(f"looking through {folder.name}, {modality}", index + 1, len(ids))
        self._none = np.zeros((0, *(first[1] if first else ())), np.float32)

    def read(self, index: int) -> np.ndarray:
        """The features of an utterance, float32 ``(length, *feature_shape)``."""
        path = self._paths[index]
        if path is None:
            return self._none
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold is inf, and treated as such
            return np.asarray(self._load(path)).astype(np.float32)

    def path(self, index: int) -> Path | None:
        """The file of an utterance, if there is one."""
        return self._paths[index]

    def _load(self, path: Path) -> np.ndarray:
        try:
            found = np.load(path, mmap_mode="r") if path.suffix == ".npy" else self._from_archive(path)
            if not isinstance(found, np.ndarray):
                found.close()
                raise ValueError("several arrays, which are called .npz")
        except SourceError:
            raise
        except DAMAGED as error:
            raise SourceError(f"{path}: not a file of features ({error}); write it again with np.save") from None
        if found.ndim < 1 or found.dtype.kind not in "biuf":
            raise SourceError(
                f"{path}: holds shape {found.shape} of {found.dtype}; features are numbers (length, *feature_shape)"
            )
        return found

    def _from_archive(self, path: Path) -> np.ndarray:
        with path.open("rb") as file:  # np.load leaves it open where it is no archive
            arrays = np.load(file)
            if isinstance(arrays, np.ndarray):
                raise ValueError("a single array, which is called .npy")
            if self._modality not in arrays.files:
                raise SourceError(f"{path}: has no array {self._modality!r}, only {arrays.files}")
            return arrays[self._modality]
