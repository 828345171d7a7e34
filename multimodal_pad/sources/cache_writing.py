"""Writing the files of a flat cache, sample by sample, with errors that name the sample."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from multimodal_pad.batching.alike import AlikeSamples
from multimodal_pad.errors import SampleError, SourceError
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample, Source, modality_array, read_sample
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.lengths.targets import target_array
from multimodal_pad.sources.cache_files import IDS, array_file, offsets_file
from multimodal_pad.sources.corpus import Progress, check_finite_targets
from multimodal_pad.sources.ids import StoredIds

EncodedIds = tuple[np.ndarray, np.ndarray]
"""UTF-8 bytes and offsets of the ids of a split."""


class Kind(NamedTuple):
    """The kind of all samples in one modality, and the dtype that it gets in the cache."""

    feature_shape: tuple[int, ...]
    read: np.dtype
    written: np.dtype


class WrittenSplit(NamedTuple):
    """The manifest's entries for a split: size and SHA-256 of each file; and the targets' shape and dtype."""

    files: dict[str, dict[str, Any]]
    targets: dict[str, Any] | None


class _File:
    """A file of the cache, digested as it is written. Its errors name the place."""

    def __init__(self, path: Path) -> None:
        self._place = f"{path.parent.name}/{path.name}"
        self._digest, self._bytes = hashlib.sha256(), 0
        with writing(self._place):
            # Unbuffered, so that a full disk is noticed at the sample that fills it, and not when the file closes.
            self._file = path.open("wb", buffering=0)

    def write(self, data: bytes | memoryview, what: str = "") -> None:
        """Write all of the data."""
        left = memoryview(data)
        left = left.cast("B") if left.nbytes else memoryview(b"")  # empty views can't be cast
        self._digest.update(left)
        self._bytes += len(left)
        with writing(f"{self._place}{what}"):
            while left:
                left = left[self._file.write(left) :]  # a full disk takes a part, and then nothing

    @property
    def facts(self) -> dict[str, Any]:
        """Return size and SHA-256 for the manifest."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_split(
    folder: Path,
    split: str,
    source: Source,
    table: LengthTable,
    kinds: Mapping[str, Kind],
    ids: EncodedIds | None,
    progress: Progress | None,
) -> WrittenSplit:
    """Write all files of a split."""
    written: dict[str, dict[str, Any]] = {}
    targets: list[np.ndarray] = []
    alike = AlikeSamples()
    with ExitStack() as stack:
        files = {}
        for name, column in zip(kinds, table.values.T, strict=True):
            offsets = np.concatenate([[0], np.cumsum(column)])
            written[offsets_file(name)] = _save(folder / offsets_file(name), offsets)
            files[name] = stack.enter_context(_File(folder / array_file(name)))
            files[name].write(_header(kinds[name], int(offsets[-1])), ", its first bytes")
        for index in range(len(source)):
            sample = read_sample(source, index)
            alike.check_targets(index, sample)
            for (name, kind), length in zip(kinds.items(), table.values[index].tolist(), strict=True):
                frames = _frames(modality_array(sample, name, index), kind, length, split, f"sample {index}, {name!r}")
                files[name].write(frames.data, f", sample {index}")
            target = target_of(sample, index)
            targets += [] if target is None else [target]
            if progress is not None:
                progress(f"writing {split}", index + 1, len(source))
        written |= {array_file(name): file.facts for name, file in files.items()}
    if ids is not None:
        for file, array in zip((array_file(IDS), offsets_file(IDS)), ids, strict=True):
            written[file] = _save(folder / file, array)
    if not targets:
        return WrittenSplit(written, None)
    stacked = np.stack(targets)
    names = list(map(str, range(len(stacked)))) if ids is None else StoredIds(*ids, f"split {split!r}")
    check_finite_targets(stacked, names, f"split {split!r}")
    written[array_file(TARGETS)] = _save(folder / array_file(TARGETS), stacked)
    return WrittenSplit(written, {"dtype": str(stacked.dtype), "shape": list(stacked.shape[1:])})


def target_of(sample: Sample, index: int) -> np.ndarray | None:
    """Return the targets of a sample, in a dtype that files hold, or None where it has none.

    Raises:
        SampleError: they are no numbers, or more than the single array that a cache holds.
    """
    if sample.get(POSITION_TARGETS) is not None or isinstance(sample.get(TARGETS), Mapping):
        what = "a dict of targets" if isinstance(sample.get(TARGETS), Mapping) else POSITION_TARGETS
        raise SampleError(
            f"sample {index}: has {what}, and a cache holds one array of targets for each sample; make batches of the "
            "source itself, or leave them out"
        )
    if sample.get(TARGETS) is None:
        return None
    target = target_array(sample[TARGETS], repr(TARGETS), index)
    return target if target.dtype.kind in "biuf" else target.astype(np.float32)  # bfloat16: .npy has no name for it


def _frames(array: np.ndarray, kind: Kind, length: int, split: str, what: str) -> np.ndarray:
    """Return the frames of a sample as they are written, checked against the length table and the first sample."""
    if not len(array) and not length:
        return np.empty((0, *kind.feature_shape), kind.written)
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
        raise SourceError(f"split {split!r}: {what}: holds {value}, which is {hint}")
    return written


def _header(kind: Kind, frames: int) -> bytes:
    """Return the first bytes of a ``.npy`` file."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(kind.written), "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, {**description, "shape": (frames, *kind.feature_shape)})
    return header.getvalue()


def save_json(path: Path, value: Any) -> dict[str, Any]:
    """Write a JSON file, and return its entry for the manifest; an error names the file."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half a character, which JSON can spell
        data = (json.dumps(value, indent=1, default=str) + "\n").encode()
    with _File(path) as file:
        file.write(data)
        return file.facts


def _save(path: Path, array: np.ndarray) -> dict[str, Any]:
    with _File(path) as file:  # np.save has no error number for a full disk
        file.write(_header(Kind(array.shape[1:], array.dtype, array.dtype), len(array)))
        file.write(np.ascontiguousarray(array).data)
        return file.facts


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Add to errors of the disk what was being written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror or error} while writing {what}; nothing is left of the cache"
        ) from None


def check_room(
    out: Path, tables: Mapping[str, LengthTable], kinds: Mapping[str, Kind], ids: Mapping[str, EncodedIds | None]
) -> None:
    """Raise before anything is written where frames, offsets and ids alone are more than the disk has room for."""
    frame = np.array([math.prod(kind.feature_shape) * kind.written.itemsize for kind in kinds.values()])
    needed = sum(int(table.values.sum(axis=0) @ frame) + table.values.nbytes for table in tables.values())
    needed += sum(array.nbytes for encoded in ids.values() if encoded is not None for array in encoded)
    above = next(folder for folder in (out.parent, *out.parent.absolute().parents) if folder.exists())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{out}: takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {above}; make room"
        )
