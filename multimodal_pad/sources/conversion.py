"""Any source to a flat cache: read once, in order, and written as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, SampleError, SourceError
from multimodal_pad.lengths.kinds import common_kind
from multimodal_pad.lengths.samples import Source, check_choice, check_indexable, modality_array, read_sample
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.output import write_folder
from multimodal_pad.sources.cache_files import ALLOWED_NAMES, MANIFEST, names_a_file, vocabulary_file
from multimodal_pad.sources.cache_writing import (
    EncodedIds,
    Kind,
    WrittenSplit,
    check_room,
    save_json,
    target_of,
    write_split,
    writing,
)
from multimodal_pad.sources.corpus import Progress
from multimodal_pad.sources.ids import encode_ids, ids_as_text
from multimodal_pad.sources.input_files import InputFiles
from multimodal_pad.sources.manifest import (
    FORMAT,
    VERSION,
    as_json,
    check_manifest,
    describe,
    digest_manifest,
    summarize,
    vocabulary_size,
)
from multimodal_pad.sources.numpy_dir import NumpyDir
from multimodal_pad.sources.selecting import Selected
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
    ``manifest.json`` with where it comes from (SHA-256 of the input files), what was chosen, a summary of the
    lengths, and size and SHA-256 of each file. Everything is written to a temporary folder beside ``out``, which is
    renamed when it is whole and on the disk: an interrupted run leaves nothing that looks finished. One sample is in
    memory at a time.

    Args:
        splits: the sources by the names of their splits: corpora of this package, or anything that a
            :class:`~multimodal_pad.BucketBatcher` takes. They may replace NaN and inf; one that they leave is an
            error.
        out: the folder to make.
        modalities: which to keep, in which order; by default all. Other keys of a sample are ignored.
        dtype: of features. Token ids stay whole numbers.
        standardize: modalities to give mean 0 and variance 1 per feature, by the real frames of the split ``train``.
        progress: progress callback.

    Returns:
        The manifest.

    Raises:
        FileExistsError: ``out`` is there.
        PaddingError: no splits, one without samples or with other modalities or targets than the first (one may have
            no targets at all, as where they are kept back for a contest), an unknown modality, a name that makes no
            file, nothing to standardise by, what is standardised already, or a folder that can't be made.
        SourceError: a sample that the source can't give (its own error), NaN or inf, a value too large for the dtype,
            ids that are no text, of another number than the samples, or not distinct, targets that are NaN, or an
            input file that changed meanwhile.
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
    if not isinstance(splits, Mapping) or not splits:
        what = "none" if isinstance(splits, Mapping) else type(splits).__name__
        raise PaddingError(f"got {what} for the splits; give at least one source, as {{'train': source}}")
    if isinstance(standardize, str) or isinstance(modalities, str):
        raise PaddingError(f"got modalities={modalities!r} and standardize={standardize!r}; give lists of names")
    with write_folder(Path(out)) as folder:
        files = InputFiles(splits.values())
        sources: dict[str, Source] = _selected(splits, modalities)
        tables = {split: LengthTable.measure(source) for split, source in sources.items()}
        names = next(iter(tables.values())).modalities
        _check_targets(sources)
        ids = {split: _encoded_ids(split, source) for split, source in splits.items()}
        standardized = _standardized_before(splits)
        _check_standardize(standardize, names, list(splits), standardized)
        if standardize:
            with of_split(TRAIN):
                statistics = measure_statistics(sources[TRAIN], standardize, progress)
            sources = {split: Standardized(source, statistics) for split, source in sources.items()}
            for name, found in statistics.items():
                moments = {"mean": found.mean.tolist(), "std": found.std.tolist()}
                standardized[name] = {**moments, "frames": found.frames, "split": TRAIN}
        kinds = _kinds(sources, tables, names, dtype)
        for split, source in splits.items():
            describe(source, tables[split], f"split {split!r}")  # what can't be written is known before anything is
        check_room(Path(out), tables, kinds, ids)
        manifest = _manifest(splits, kinds, standardized, files.digests(progress))
        manifest["files"] = _write_vocabularies(folder, splits, manifest["modalities"])
        for split, source in sources.items():
            with of_split(split):
                with writing(split):
                    (folder / split).mkdir()
                written = write_split(folder / split, split, source, tables[split], kinds, ids[split], progress)
            manifest["splits"][split] = _summary(splits[split], split, tables[split], written)
        files.check_unchanged()
        manifest = as_json(manifest)
        manifest["sha256"] = digest_manifest(manifest)
        check_manifest(manifest, f"{out}: its manifest")
        save_json(folder / MANIFEST, manifest)
    return manifest


@contextmanager
def of_split(split: str) -> Iterator[None]:
    """Add to errors the split that they are about."""
    try:
        yield
    except (SampleError, LengthError) as error:
        error.args = (f"split {split!r}: {error}",)
        raise
    except Exception as error:
        error.add_note(f"while the split {split!r} was converted")
        raise


def _selected(splits: Mapping[str, Source], modalities: Sequence[str] | None) -> dict[str, Source]:
    """Return every split with the same modalities in the same order."""
    for split, source in splits.items():
        with of_split(split):
            count = check_indexable(source)
        if not count:
            raise PaddingError(f"the split {split!r} has no samples; give at least one, or leave the split out")
    for name in [*(modalities or ()), *splits]:
        _check_name(name)
    found: dict[str, Source] = {}
    names: tuple[str, ...] | None = None if modalities is None else tuple(modalities)
    for split, source in splits.items():
        with of_split(split):
            selected = Selected(source, modalities)
        own = selected.lengths.modalities
        names = own if names is None else names
        if set(own) != set(names):
            raise PaddingError(
                f"the split {split!r} has the modalities {list(own)}, the first one has {list(names)}; give all the "
                "same, or name those to keep"
            )
        found[split] = selected if own == names else Selected(selected, names)
    for name in names or ():
        _check_name(name)
    return found


def _check_name(name: object) -> None:
    if not names_a_file(name):
        raise PaddingError(f"got {name!r} for a modality or a split; {ALLOWED_NAMES}")


def _check_targets(sources: Mapping[str, Source]) -> None:
    """Raise a SampleError where the targets of a split are of another kind than those of the first that has some."""
    first: tuple[str, str] | None = None
    for split, source in sources.items():
        with of_split(split):
            target = target_of(read_sample(source, 0), 0)
        if target is not None:
            found = f"{target.dtype} of shape {target.shape}"
            first = (split, found) if first is None else first
            if found != first[1]:
                raise SampleError(
                    f"split {split!r}: the targets are {found}, and those of the split {first[0]!r} {first[1]}; give "
                    "all splits the same, or convert them apart"
                )


def _encoded_ids(split: str, source: Source) -> EncodedIds | None:
    """Return the ids of a split, of which there is one for each sample, or None where it has none."""
    given = getattr(source.source if isinstance(source, Standardized) else source, "ids", None)
    if given is None:
        return None
    where = f"split {split!r}"
    if not hasattr(given, "__len__"):
        raise SourceError(f"{where}: its ids are {type(given).__name__}; give a list of texts, one for each sample")
    if len(given) != len(source):
        raise SourceError(
            f"{where}: has {len(given):,} ids and {len(source):,} samples; give one for each sample, or no ids"
        )
    return encode_ids(ids_as_text(given), where)


def _check_standardize(
    standardize: Sequence[str], names: Sequence[str], splits: Sequence[str], before: Mapping[str, Any]
) -> None:
    again = [name for name in standardize if name in before]
    if again:
        raise PaddingError(
            f"got standardize={list(standardize)}, and {again} are standardised in the source already; leave those out"
        )
    if any(name not in names for name in standardize) or (standardize and TRAIN not in splits):
        raise PaddingError(
            f"got standardize={list(standardize)} for the modalities {list(names)} and the splits {list(splits)}; name "
            f"modalities that there are, and have a split {TRAIN!r} to take the statistics from"
        )


def _manifest_before(splits: Mapping[str, Source]) -> dict[str, Any]:
    """Return the manifest of the cache that is converted, if the source is one."""
    first = next(iter(splits.values()))
    return (isinstance(first, NumpyDir) and first.manifest) or {}


def _standardized_before(splits: Mapping[str, Source]) -> dict[str, Any]:
    """Return what was standardised when the source, a cache, was made."""
    return dict(_manifest_before(splits).get("standardized", {}))


def _kinds(
    sources: Mapping[str, Source], tables: Mapping[str, LengthTable], names: Sequence[str], dtype: Dtype
) -> dict[str, Kind]:
    """Return the kind of each modality, by the first sample that has it."""
    kinds = {}
    for column, name in enumerate(names):
        places = {split: int(np.argmax(table.values[:, column] > 0)) for split, table in tables.items()}
        arrays = []
        for split, index in sorted(places.items(), key=lambda place: not tables[place[0]].values[place[1], column]):
            with of_split(split):
                arrays.append(modality_array(read_sample(sources[split], index), name, index))
            if len(arrays[-1]):
                break
        shape, dtype_read = common_kind(arrays)
        kinds[name] = Kind(shape, dtype_read, dtype_read if dtype_read.kind in "biu" else np.dtype(dtype))
    return kinds


def _manifest(
    splits: Mapping[str, Source], kinds: Mapping[str, Kind], standardized: Mapping[str, Any], inputs: list[Any]
) -> dict[str, Any]:
    """Return the manifest, without the splits."""
    first = next(iter(splits.values()))
    before = _manifest_before(splits)
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": {
            "kind": str(getattr(first, "kind", type(first).__name__)),
            "inputs": inputs,
            **({"converted_from": before["source"]} if before else {}),
        },
        "modalities": {
            name: {"dtype": str(kind.written), "feature_shape": list(kind.feature_shape)}
            for name, kind in kinds.items()
        },
        "standardized": {name: facts for name, facts in standardized.items() if name in kinds},
        "splits": {},
    }


def _write_vocabularies(folder: Path, splits: Mapping[str, Source], modalities: dict[str, Any]) -> dict[str, Any]:
    """Write the vocabularies of the first split, which are those of all; return their entries for the manifest."""
    files = {}
    for name, vocabulary in getattr(next(iter(splits.values())), "vocabularies", {}).items():
        if name in modalities:
            modalities[name]["vocabulary_size"] = vocabulary_size(vocabulary)
            files[vocabulary_file(name)] = save_json(folder / vocabulary_file(name), vocabulary)
    return files


def _summary(source: Source, split: str, table: LengthTable, written: WrittenSplit) -> dict[str, Any]:
    return {
        "samples": len(table),
        "targets": written.targets,
        **summarize(table),
        **describe(source, table, f"split {split!r}"),
        "files": written.files,
    }
