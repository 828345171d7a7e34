"""Writing the files of a flat cache, sample by sample, so that what goes wrong is named."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.batching.alike import AlikeSamples
from multimodal_pad.errors import SampleError, SourceError
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample, Source, modality_array, read_sample
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import Progress, check_distinct, check_finite_targets
from multimodal_pad.sources.numpy_dir import IDS, OFFSETS
from multimodal_pad.sources.standardizing import Standardized


class Kind(NamedTuple):
    """What all samples have alike in one modality, and the dtype that it gets in the cache."""

    feature_shape: tuple[int, ...]
    read: np.dtype
    written: np.dtype


def write_split(
    folder: Path,
    split: str,
    source: Source,
    table: LengthTable,
    kinds: Mapping[str, Kind],
    alike: AlikeSamples,
    progress: Progress | None,
) -> np.ndarray | None:
    """All files of a split; its targets."""
    targets = []
    with ExitStack() as stack:
        files = {}
        for name, column in zip(kinds, table.values.T, strict=True):
            offsets = np.concatenate([[0], np.cumsum(column)])
            _save(folder / f"{name}{OFFSETS}.npy", offsets)
            # Unbuffered, so that a full disk is noticed at the sample that it is full at, and not when the file closes.
            file = files[name] = stack.enter_context((folder / f"{name}.npy").open("wb", buffering=0))
            _write(file, _header(kinds[name], int(offsets[-1])), f"{split}/{name}.npy, its first bytes")
        for index in range(len(source)):
            sample = read_sample(source, index)
            _check_kept(sample, f"split {split!r}, sample {index}")
            alike.check_targets(index, sample)
            for (name, kind), length in zip(kinds.items(), table.values[index].tolist(), strict=True):
                what = f"split {split!r}, {name!r}, sample {index}"
                frames = _frames(modality_array(sample, name, index), kind, length, what)
                _write(files[name], frames.data, f"{split}/{name}.npy, sample {index}")
            if TARGETS in sample:
                targets.append(np.asarray(sample[TARGETS]))
            if progress is not None:
                progress(f"writing {split}", index + 1, len(source))
    ids = list(getattr(source.source if isinstance(source, Standardized) else source, "ids", ()))
    if ids:
        check_distinct(ids, f"the split {split!r}")
        _save(folder / f"{IDS}.npy", np.array(ids))
    if not targets:
        return None
    stacked = np.stack(targets)
    if stacked.dtype.kind not in "biuf":
        raise SampleError(f"split {split!r}: the targets are {stacked.dtype}; give numbers")
    check_finite_targets(stacked, ids or list(map(str, range(len(stacked)))), f"split {split!r}")
    _save(folder / f"{TARGETS}.npy", stacked)
    return stacked


def _check_kept(sample: Sample, where: str) -> None:
    """Raise a SampleError where a sample has targets that the cache has no place for."""
    if POSITION_TARGETS in sample or isinstance(sample.get(TARGETS), Mapping):
        what = POSITION_TARGETS if POSITION_TARGETS in sample else "a dict of targets"
        raise SampleError(
            f"{where}: has {what}, and a cache holds one array of targets for each sample; make batches of the source "
            "itself, or leave them out"
        )


def _frames(array: np.ndarray, kind: Kind, length: int, what: str) -> np.ndarray:
    """The frames of a sample as they are written, held against the length table and the first sample."""
    found, wanted = (array.shape, array.dtype), ((length, *kind.feature_shape), kind.read)
    if found != wanted:
        raise SampleError(
            f"{what}: has the shape {found[0]} and dtype {found[1]}; by the length table and the very first sample it "
            f"should have {wanted[0]} and {wanted[1]}"
        )
    with np.errstate(over="ignore"):
        written = np.ascontiguousarray(array, kind.written).reshape(array.shape)
    if kind.written.kind == "f" and not np.isfinite(written).all():
        value = array[~np.isfinite(written)][0]
        hint = f"too large for {kind.written}; standardise it" if np.isfinite(value) else "not finite"
        hint += ", or take float32" if hint != "not finite" and kind.written == np.float16 else ""
        raise SourceError(f"{what}: holds {value}, which is {hint}")
    return written


def _header(kind: Kind, frames: int) -> bytes:
    """The first bytes of a ``.npy`` file."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(kind.written), "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, {**description, "shape": (frames, *kind.feature_shape)})
    return header.getvalue()


def _write(file: io.FileIO, data: bytes | memoryview, what: str) -> None:
    """Write all of it; what goes wrong says where."""
    left = memoryview(data)
    left = left.cast("B") if left.nbytes else memoryview(b"")  # what is empty can't be cast
    with writing(what):
        while left:
            left = left[file.write(left) :]  # a full disk takes a part, and then none


def save_json(path: Path, value: Any) -> None:
    """A JSON file; what goes wrong says which."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    with writing(path.name):
        path.write_text(text + "\n", encoding="utf-8")


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()  # np.save has no error number for a full disk
    np.save(buffer, array, allow_pickle=False)
    what = f"{path.parent.name}/{path.name}"
    with writing(what):
        file = path.open("wb", buffering=0)
    with file:
        _write(file, buffer.getvalue(), what)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Errors of the disk with a word about what was being written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror or error} while writing {what}; nothing is left of the cache"
        ) from None
