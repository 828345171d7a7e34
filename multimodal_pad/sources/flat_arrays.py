"""The arrays of one split, frames one after the other with offsets: read, and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multimodal_pad.errors import LengthError, SampleError, SourceError
from multimodal_pad.lengths.dtypes import as_native, batch_dtype
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import read_npy
from multimodal_pad.sources.cache_files import (
    ALLOWED_NAMES,
    IDS,
    MANIFEST,
    OFFSETS,
    array_file,
    names_a_file,
    offsets_file,
)
from multimodal_pad.sources.corpus import check_distinct, check_finite_targets
from multimodal_pad.sources.ids import NumberedIds, StoredIds, ids_as_text


class FlatArrays(NamedTuple):
    """The contents of a folder of arrays with offsets.

    Attributes:
        values: of each modality the frames of all samples ``(frames, *feature_shape)``.
        offsets: of each modality int64 ``(N + 1,)``.
        lengths: the length table.
        targets: ``(N, ...)``, or None.
        ids: N names.
    """

    values: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    lengths: LengthTable
    targets: np.ndarray | None
    ids: Sequence[str]


def read_arrays(folder: Path, split: str, names: Sequence[str] | None, *, distinct: bool = False) -> FlatArrays:
    """Read the arrays of a folder.

    Args:
        folder: of the files.
        split: used in the names of samples that have no ids.
        names: of the modalities; None for all that have offsets.
        distinct: stored ids are known to be distinct, and not checked.

    Raises:
        SourceError: files that are missing, damaged, or don't fit each other.
        OSError: one can't be read.
    """
    names = _modalities(folder) if names is None else names
    offsets = {name: _offsets(folder, name) for name in names}
    targets, ids = _targets(folder), _ids(folder)
    counts = {offsets_file(name): len(found) - 1 for name, found in offsets.items()}
    counts |= {array_file(name): len(found) for name, found in ((TARGETS, targets), (IDS, ids)) if found is not None}
    if len(set(counts.values())) > 1:
        raise SourceError(f"{folder}: the files have different numbers of samples: {counts}; write as many of each")
    if ids is None:
        ids = NumberedIds(split, next(iter(counts.values())))
    elif not (distinct and isinstance(ids, StoredIds)):
        check_distinct(ids, str(folder / array_file(IDS)))
    values = {name: _values(folder, name, offsets[name]) for name in names}
    if targets is not None:
        check_finite_targets(targets, ids, str(folder / array_file(TARGETS)))
    return FlatArrays(values, offsets, _length_table(folder, offsets), targets, ids)


def _modalities(folder: Path) -> list[str]:
    """Return the names of the arrays that have offsets, in the order of the alphabet."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; name that of a split")
    found = (path.name.removesuffix(f"{OFFSETS}.npy") for path in folder.glob(f"*{OFFSETS}.npy"))
    names = sorted(name for name in found if name != IDS)
    if not names:
        raise SourceError(
            f"{folder}: holds neither {MANIFEST} nor a pair of files such as audio.npy and audio{OFFSETS}.npy; it is "
            "no flat cache, or one that was never finished"
        )
    for name in names:
        if not names_a_file(name):
            raise SourceError(f"{folder}: has a modality {name!r}; {ALLOWED_NAMES}")
    return names


def _load(path: Path) -> np.ndarray:
    try:
        return read_npy(path)  # a plain array, which is sliced much faster than a memmap
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; a folder of arrays has one for each modality") from None


def _offsets(folder: Path, name: str) -> np.ndarray:
    path = folder / offsets_file(name)
    offsets = _load(path)
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype.kind not in "iu":
        raise SourceError(f"{path}: holds {offsets.dtype} of shape {offsets.shape}; offsets are N + 1 whole numbers")
    offsets = np.ascontiguousarray(offsets, np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise SourceError(f"{path}: offsets start at 0 and never fall; write them as np.cumsum([0, *lengths])")
    return offsets


def _values(folder: Path, name: str, offsets: np.ndarray) -> np.ndarray:
    path = folder / array_file(name)
    values = _load(path)
    _check_dtype(path, values)
    if values.ndim < 1 or len(values) != offsets[-1]:
        raise SourceError(
            f"{path}: holds {values.dtype} of shape {values.shape}, and the offsets end at {offsets[-1]}; it must be "
            "that many frames of numbers"
        )
    if len(values) and not values.size:
        raise SourceError(f"{path}: holds shape {values.shape}, frames without a number; give each at least one")
    return values


def _check_dtype(path: Path, values: np.ndarray) -> None:
    try:
        batch_dtype(values.dtype, f"{path}: holds shape {values.shape}")
    except SampleError as error:
        raise SourceError(str(error)) from None


def _targets(folder: Path) -> np.ndarray | None:
    path = folder / array_file(TARGETS)
    if not path.exists():
        return None
    targets = _load(path)
    _check_dtype(path, targets)
    if targets.ndim < 1:
        raise SourceError(f"{path}: holds a single number; targets are (N, ...), one or an array for each sample")
    return as_native(targets, str(path))


def _ids(folder: Path) -> Sequence[str] | None:
    """Return the ids of a folder, or None where there are none."""
    path = folder / array_file(IDS)
    if not path.exists():
        return None
    ids = _load(path)
    if (folder / offsets_file(IDS)).exists():
        offsets = _offsets(folder, IDS)
        if ids.ndim != 1 or ids.dtype != np.uint8 or len(ids) != offsets[-1]:
            raise SourceError(
                f"{path}: holds {ids.dtype} of shape {ids.shape}, and the offsets end at {offsets[-1]}; beside "
                f"{offsets_file(IDS)} it must be that many bytes (uint8) of UTF-8"
            )
        return StoredIds(ids, offsets, str(path))
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise SourceError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}; ids are text, one for each sample: "
            "np.save(..., np.array(['a', 'b']))"
        )
    return ids_as_text(ids.tolist())


def _length_table(place: Path, offsets: Mapping[str, np.ndarray]) -> LengthTable:
    try:
        return LengthTable.from_columns({name: np.diff(values) for name, values in offsets.items()})
    except LengthError as error:
        raise SourceError(f"{place}: the offsets don't fit: {error}") from None
