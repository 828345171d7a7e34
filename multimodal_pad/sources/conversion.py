"""Any source to a flat cache: read once, in order, and written as it is read."""

from __future__ import annotations

import errno
import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multimodal_pad.batching.alike import AlikeSamples
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.samples import RESERVED, Source, modality_array, read_sample
from multimodal_pad.lengths.summary import summarize_lengths
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.output import write_folder
from multimodal_pad.sources.cache_writing import Kind, save_json, write_split, writing
from multimodal_pad.sources.corpus import Progress, check_choice
from multimodal_pad.sources.numpy_dir import FORMAT, IDS, MANIFEST, OFFSETS, VERSION, NumpyDir, vocabulary_file
from multimodal_pad.sources.standardizing import Standardized, measure_statistics

Dtype = Literal["float32", "float16"]

TRAIN = "train"
"""The split whose statistics standardise all of them."""


def convert(
    splits: Mapping[str, Source],
    out: str | Path,
    *,
    modalities: Sequence[str] | None = None,
    dtype: Dtype = "float32",
    standardize: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the splits of a corpus as a flat cache that :class:`~multimodal_pad.sources.NumpyDir` reads.

    Per split and modality one ``.npy`` with the frames of all samples and one with the offsets, targets and ids, and a
    ``manifest.json`` with where it comes from (SHA-256 of the input files), what was chosen, and a summary of the
    lengths. Everything is written to a temporary folder beside ``out``, which is renamed when it is whole: an
    interrupted run leaves nothing that looks finished. One sample is in memory at a time.

    Args:
        splits: the sources by the names of their splits: corpora of this package, or anything that a
            :class:`~multimodal_pad.BucketBatcher` takes. What is NaN or inf is theirs to replace; what is left is an
            error.
        out: the folder to make.
        modalities: which to keep, in which order; by default all.
        dtype: of features. Token ids stay whole numbers.
        standardize: modalities to give mean 0 and variance 1 per feature, by the real frames of the split ``train``.
        progress: told how far it is.

    Returns:
        The manifest.

    Raises:
        FileExistsError: ``out`` is there.
        PaddingError: no splits, one without samples or with other modalities than the first, an unknown modality, a
            name that makes no file, nothing to standardise by, what is standardised already, or a folder that can't be
            made.
        SourceError: a sample that the source can't give (its own error), NaN or inf, a value too large for the dtype,
            an id that two samples have, or targets that are NaN.
        SampleError: a sample that does not fit the others, or targets that are no numbers, a dict, or of positions.
        OSError: it cannot be written (the split, the modality and the sample are named), or there is too little room
            on the disk, which is known before anything is written.

    >>> import tempfile
    >>> samples = [{"audio": np.ones((n, 2), np.float32), "targets": np.int32(n)} for n in (3, 0, 4)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = convert({"train": samples}, folder + "/cache")
    >>> manifest["splits"]["train"]["lengths"]["audio"]["max"], manifest["splits"]["train"]["missing"]
    (4, {'audio': 1})
    """
    check_choice("dtype", dtype, Dtype)
    if not splits or isinstance(standardize, str):
        raise PaddingError(
            f"got the splits {list(splits)} and standardize={standardize!r}; give at least one source, as "
            "{'train': source}, and a list of modalities"
        )
    with write_folder(Path(out)) as folder:
        tables = _tables(splits, modalities)
        names = list(next(iter(tables.values())).modalities)
        first = next(iter(splits.values()))
        standardized = _standardized_before(first)
        _check_standardize(standardize, names, list(splits), standardized)
        statistics = measure_statistics(splits[TRAIN], standardize, progress) if standardize else {}
        sources = {
            split: Standardized(source, statistics) if statistics else source for split, source in splits.items()
        }
        kinds = _kinds(sources, names, dtype)
        _check_room(Path(out), tables, kinds)
        for name, found in statistics.items():
            moments = {"mean": found.mean.tolist(), "std": found.std.tolist()}
            standardized[name] = {**moments, "frames": found.frames, "split": TRAIN}
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "source": {
                "kind": getattr(first, "kind", type(first).__name__),
                "inputs": _digests(splits, progress),
                **_converted_before(first),
            },
            "modalities": {
                name: {"dtype": str(kind.written), "feature_shape": list(kind.feature_shape)}
                for name, kind in kinds.items()
            },
            "standardized": {name: facts for name, facts in standardized.items() if name in names},
            "splits": {},
        }
        for name, vocabulary in getattr(first, "vocabularies", {}).items():
            if name in names:
                manifest["modalities"][name]["vocabulary_size"] = 1 + max(vocabulary.values(), default=1)
                save_json(folder / vocabulary_file(name), vocabulary)
        alike = AlikeSamples()
        for split, source in sources.items():
            with writing(split):
                (folder / split).mkdir()
            targets = write_split(folder / split, split, source, tables[split], kinds, alike, progress)
            manifest["splits"][split] = _summary(splits[split], tables[split], targets)
        save_json(folder / MANIFEST, manifest)
    return manifest


def _tables(splits: Mapping[str, Source], modalities: Sequence[str] | None) -> dict[str, LengthTable]:
    """The lengths of every split, of the same modalities in the same order."""
    for split, source in splits.items():
        if not len(source):
            raise PaddingError(f"the split {split!r} has no samples; give at least one, or leave the split out")
    tables = {split: LengthTable.measure(source) for split, source in splits.items()}
    names = next(iter(tables.values())).modalities if modalities is None else tuple(modalities)
    for name in [*names, *splits]:
        _check_file_name(name)
    for split, table in tables.items():
        if modalities is None and set(table.modalities) != set(names):
            raise PaddingError(
                f"the split {split!r} has the modalities {list(table.modalities)}, the first one has {list(names)}; "
                "give all the same, or name those to keep"
            )
    return {split: table.select(names) for split, table in tables.items()}


def _check_standardize(
    standardize: Sequence[str], names: Sequence[str], splits: Sequence[str], before: Mapping[str, Any]
) -> None:
    again = [name for name in standardize if name in before]
    if again:
        raise PaddingError(f"got standardize={list(standardize)}, and {again} are standardised in the source already")
    if any(name not in names for name in standardize) or (standardize and TRAIN not in splits):
        raise PaddingError(
            f"got standardize={list(standardize)} for the modalities {list(names)} and the splits {list(splits)}; name "
            f"modalities that there are, and have a split {TRAIN!r} to take the statistics from"
        )


def _manifest(source: Source) -> dict[str, Any] | None:
    """That of a cache, or None."""
    return source.manifest if isinstance(source, NumpyDir) else None


def _converted_before(source: Source) -> dict[str, Any]:
    """What a cache was itself converted from."""
    manifest = _manifest(source)
    return {} if manifest is None else {"converted_from": manifest["source"]}


def _standardized_before(source: Source) -> dict[str, Any]:
    """What was standardised when a cache was made."""
    manifest = _manifest(source)
    return {} if manifest is None else dict(manifest["standardized"])


def _kinds(sources: Mapping[str, Source], names: Sequence[str], dtype: Dtype) -> dict[str, Kind]:
    sample = read_sample(next(iter(sources.values())), 0)
    kinds = {}
    for name in names:
        array = modality_array(sample, name, 0)
        written = array.dtype if array.dtype.kind in "biu" else np.dtype(dtype)
        kinds[name] = Kind(array.shape[1:], array.dtype, written)
    return kinds


def _summary(source: Source, table: LengthTable, targets: np.ndarray | None) -> dict[str, Any]:
    found = summarize_lengths(table)
    return {
        "samples": len(table),
        "targets": None if targets is None else {"dtype": str(targets.dtype), "shape": list(targets.shape[1:])},
        "lengths": {name: summary.lengths for name, summary in found.items()},
        "missing": {name: summary.missing for name, summary in found.items()},
        "padded_to": getattr(source, "padded_to", None),
        "rules": getattr(source, "rules", {}),
        "nonfinite": dict(getattr(source, "nonfinite", {})),
        "left_out": [row._asdict() for row in getattr(source, "left_out", ())],
    }


def _digests(splits: Mapping[str, Source], progress: Progress | None) -> list[dict[str, Any]]:
    """SHA-256 of every input file, each once; of many small files in a folder together, by name and contents."""
    paths = list(dict.fromkeys(path for source in splits.values() for path in getattr(source, "inputs", ())))
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    found: list[dict[str, Any]] = []
    done, total = 0, sum(path.stat().st_size for path in paths)
    for folder, files in folders.items():
        together = len(files) > _FEW
        whole = hashlib.sha256()
        for path in sorted(files) if together else files:
            digest, size = hashlib.sha256(), 0
            with path.open("rb") as file:
                while block := file.read(2**22):
                    digest.update(block)
                    size += len(block)
                    done += len(block)
                    if progress is not None:
                        progress("SHA-256 of the input", done, total)
            whole.update(f"{path.name}\0{digest.hexdigest()}\n".encode())
            if not together:
                found.append({"path": str(path), "bytes": size, "sha256": digest.hexdigest()})
        if together:
            size = sum(path.stat().st_size for path in files)
            found.append({"path": str(folder), "files": len(files), "bytes": size, "sha256": whole.hexdigest()})
    return found


_FEW = 32
"""Files of one folder that have a line each in the manifest."""


def _check_file_name(name: str) -> None:
    if (
        not isinstance(name, str)
        or not name
        or name.startswith(".")
        or name in (*RESERVED, IDS)
        or name.endswith(OFFSETS)
        or set(name) & set("/\\\0")
    ):
        raise PaddingError(f"got {name!r} for a modality or a split; it names a file, so give letters and digits")


def _check_room(out: Path, tables: Mapping[str, LengthTable], kinds: Mapping[str, Kind]) -> None:
    """Raise before anything is written where the frames alone are more than the disk has room for."""
    frame = np.array([math.prod(kind.feature_shape) * kind.written.itemsize for kind in kinds.values()])
    needed = int(sum(table.values.sum(axis=0) @ frame for table in tables.values()))
    above = next(folder for folder in (out.parent, *out.parent.absolute().parents) if folder.exists())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{out}: takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {above}; make room"
        )
