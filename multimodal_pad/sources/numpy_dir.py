"""The flat cache: one memory-mapped array of all frames per modality, and offsets that say where each sample is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import LengthError, SampleError, SourceError
from multimodal_pad.lengths.dtypes import as_native, batch_dtype
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import file_size, read_npy
from multimodal_pad.sources.cache_files import (
    ALLOWED_NAMES,
    IDS,
    MANIFEST,
    OFFSETS,
    array_file,
    digest_file,
    names_a_file,
    offsets_file,
    vocabulary_file,
)
from multimodal_pad.sources.corpus import Corpus, LeftOut, NonFinite, check_choice, check_distinct, check_finite_targets
from multimodal_pad.sources.ids import NumberedIds, StoredIds, ids_as_text
from multimodal_pad.sources.manifest import AGAIN, check_vocabulary, has_digests, read_json, read_manifest


class NumpyDir(Corpus):
    """One split of a flat cache, or a plain folder of the same files.

    For each modality ``{modality}.npy`` holds the frames of all samples one after the other,
    ``(frames, *feature_shape)``, and ``{modality}.offsets.npy`` ``N + 1`` whole numbers: sample i has the frames from
    ``offsets[i]`` up to ``offsets[i + 1]``. ``targets.npy`` ``(N, ...)`` may be there too, and ``ids.npy``: text or
    whole numbers ``(N,)``, or all ids in UTF-8 one after the other, uint8, with ``ids.offsets.npy``.
    A cache that ``multimodal-pad convert`` wrote has a folder like that per split, and ``manifest.json`` beside them.

    Samples are read-only views of the memory-mapped files, in the dtype that they have there; nothing is copied, unless
    a plain folder has another byte order than this machine.
    A cache is held against its manifest: names, numbers of samples, dtypes, shapes, sizes of files, and the SHA-256 of
    the offsets. ``multimodal-pad inspect --verify`` reads all of it and compares the SHA-256 of every file.

    Args:
        folder: of the cache, or of the files.
        split: which split of a cache; None for a plain folder.
        nonfinite: what becomes of NaN and inf in a plain folder: ``"error"``, or ``"zero"`` puts 0 there and counts
            them. A cache holds none.

    Attributes:
        manifest: what ``manifest.json`` says, or None in a plain folder.

    Raises:
        SourceError: no such folder, split or file, one that is damaged or cut short, offsets that don't fit, files
            that differ in their number of samples, or that are not what the manifest says. The file is named.
        OSError: a file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/audio.npy", np.arange(10.0).reshape(5, 2))
    ...     np.save(folder + "/audio.offsets.npy", [0, 2, 2, 5])
    ...     source = NumpyDir(folder)
    >>> source.lengths.values.tolist(), source[2]["audio"].tolist()
    ([[2], [0], [3]], [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]])
    """

    kind = "numpy_dir"

    def __init__(self, folder: str | Path, split: str | None = None, *, nonfinite: NonFinite = "error") -> None:
        check_choice("nonfinite", nonfinite, NonFinite)
        folder = Path(folder)
        if split is not None and not names_a_file(split):
            raise SourceError(f"{folder}: got the split {split!r}; {ALLOWED_NAMES}")
        name = folder.resolve().name if split is None else split
        self.manifest = read_manifest(folder)
        if self.manifest is not None and split not in self.manifest["splits"]:
            raise SourceError(f"{folder}: got the split {split!r}; the cache has {list(self.manifest['splits'])}")
        place = folder if split is None else folder / split
        info: dict[str, Any] = {} if self.manifest is None else self.manifest["splits"][split]
        modalities: dict[str, Any] = {} if self.manifest is None else self.manifest["modalities"]
        names = list(modalities) or _modalities(place)
        for file in info.get("files", ()):
            _check_size(place / file, info["files"][file])
        offsets = {modality: _offsets(place, modality) for modality in names}
        targets, ids = _targets(place), _ids(place)
        counts = {offsets_file(modality): len(values) - 1 for modality, values in offsets.items()}
        counts |= {} if targets is None else {array_file(TARGETS): len(targets)}
        counts |= {} if ids is None else {array_file(IDS): len(ids)}
        counts |= {"the manifest": info["samples"]} if info else {}
        if len(set(counts.values())) > 1:
            raise SourceError(f"{place}: the files speak of different numbers of samples: {counts}")
        ids = NumberedIds(name, next(iter(counts.values()))) if ids is None else ids
        if not (info and isinstance(ids, StoredIds)):  # convert has seen to it
            check_distinct(ids, str(place / array_file(IDS)))
        arrays = {modality: _values(place, modality, offsets[modality]) for modality in names}
        self._columns = [(modality, arrays[modality], offsets[modality].data) for modality in names]
        self._foreign = [name for name, values in arrays.items() if not values.dtype.isnative]
        lengths = _length_table(place, offsets)
        if self.manifest is not None:
            _check_arrays(place, modalities, arrays, targets, info)
            _check_lengths(place, lengths, info)
        if targets is not None:
            check_finite_targets(targets, ids, str(place / array_file(TARGETS)))
        self._folder = place
        super().__init__(
            name,
            lengths=lengths,
            targets=targets,
            ids=ids,
            inputs=[*([] if self.manifest is None else [folder / MANIFEST]), *sorted(place.glob("*.npy"))],
            rules=info.get("rules", {"nonfinite": nonfinite}),
            nonfinite=nonfinite if self.manifest is None else None,
            replaced=info.get("nonfinite"),
            padded_to=info.get("padded_to"),
            left_out=[LeftOut(*map(row.__getitem__, LeftOut._fields)) for row in info.get("left_out", ())],
            vocabularies={} if self.manifest is None else _vocabularies(folder, self.manifest),
        )

    @staticmethod
    def split_names(folder: str | Path) -> list[str | None]:
        """The splits of a cache; None where the folder is a plain one."""
        manifest = read_manifest(Path(folder))
        return [None] if manifest is None else list(manifest["splits"])

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample = {name: values[offsets[index] : offsets[index + 1]] for name, values, offsets in self._columns}
        for name in self._foreign:
            sample[name] = as_native(sample[name], name)
        return sample

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - all samples are in one file
        return str(self._folder / array_file(modality))


def _modalities(folder: Path) -> list[str]:
    """The names of the arrays that have offsets, in the order of the alphabet."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
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
        raise SourceError(f"{path}: no such file") from None


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
    """The ids of a folder, or None where there are none."""
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


def _vocabularies(folder: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    found = {}
    for modality, facts in manifest["modalities"].items():
        if "vocabulary_size" in facts:
            path = folder / vocabulary_file(modality)
            if has_digests(manifest):
                _check_size(path, manifest["files"][path.name])
            found[modality] = read_json(path)
            check_vocabulary(found[modality], facts["vocabulary_size"], str(path))
    return found


def _check_size(path: Path, said: Mapping[str, Any]) -> None:
    """Hold a file against what the manifest says of it, as far as that takes no time."""
    try:
        size = file_size(path)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file, and the manifest says that it is there; {AGAIN}") from None
    if size != said["bytes"]:
        raise SourceError(f"{path}: has {size:,} bytes, and the manifest says {said['bytes']:,}; {AGAIN}")
    if path.name.endswith(f"{OFFSETS}.npy") and digest_file(path) != said["sha256"]:
        raise SourceError(f"{path}: is not what was written (its SHA-256 is not that of the manifest); {AGAIN}")


def _check_arrays(
    place: Path,
    modalities: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    targets: np.ndarray | None,
    info: Mapping[str, Any],
) -> None:
    """Hold dtypes and shapes against the manifest."""
    said = {name: (facts["dtype"], facts["feature_shape"]) for name, facts in modalities.items()}
    found = dict(arrays)
    if info["targets"] is not None:
        said[TARGETS] = (info["targets"]["dtype"], info["targets"]["shape"])
    if targets is not None:
        found[TARGETS] = targets
    for name in said | found:
        has = None if name not in found else (str(found[name].dtype), list(found[name].shape[1:]))
        if has != said.get(name) or not found[name].flags.c_contiguous:
            what = "is not there" if has is None else f"holds {has[0]} of the shape {has[1]} per row"
            wanted = "nothing of it" if name not in said else f"{said[name][0]} of the shape {said[name][1]}"
            raise SourceError(f"{place / array_file(name)}: {what}, and the manifest says {wanted}; {AGAIN}")


def _check_lengths(place: Path, lengths: LengthTable, info: Mapping[str, Any]) -> None:
    longest = {name: info["lengths"][name]["max"] for name in lengths.modalities}
    if lengths.maxima != longest:
        raise SourceError(
            f"{place}: the longest samples have {lengths.maxima}, and the manifest says {longest}; {AGAIN}"
        )
