"""The flat cache: one memory-mapped array of all frames per modality, and offsets that say where each sample is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import DAMAGED
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import Corpus, LeftOut, NonFinite, check_choice, check_distinct, check_finite_targets

MANIFEST = "manifest.json"
FORMAT, VERSION = "multimodal_pad flat cache", 1
IDS = "ids"
OFFSETS = ".offsets"


class NumpyDir(Corpus):
    """One split of a flat cache, or a plain folder of the same files.

    For each modality ``{modality}.npy`` holds the frames of all samples one after the other,
    ``(frames, *feature_shape)``, and ``{modality}.offsets.npy`` ``N + 1`` whole numbers: sample i has the frames from
    ``offsets[i]`` up to ``offsets[i + 1]``. ``targets.npy`` ``(N, ...)`` and ``ids.npy`` ``(N,)`` may be there too.
    A cache that ``multimodal-pad convert`` wrote has a folder like that per split, and ``manifest.json`` beside them.

    Samples are read-only views of the memory-mapped files, in the dtype that they have there; nothing is copied.

    Args:
        folder: of the cache, or of the files.
        split: which split of a cache; None for a plain folder.
        nonfinite: what becomes of NaN and inf in a plain folder: ``"error"``, or ``"zero"`` puts 0 there and counts
            them. A cache holds none.

    Attributes:
        manifest: what ``manifest.json`` says, or None in a plain folder.

    Raises:
        SourceError: no such folder, split or file, one that is damaged or cut short, offsets that don't fit, or files
            that differ in their number of samples. The file is named.
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
        name = folder.resolve().name if split is None else split
        self.manifest = read_manifest(folder)
        if self.manifest is not None and split not in self.manifest["splits"]:
            raise SourceError(f"{folder}: got the split {split!r}; the cache has {list(self.manifest['splits'])}")
        place = folder if split is None else folder / split
        names = list(self.manifest["modalities"]) if self.manifest is not None else _modalities(place)
        offsets = {name: _offsets(place, name) for name in names}
        counts = {f"{name}{OFFSETS}.npy": len(values) - 1 for name, values in offsets.items()}
        targets = _load(place, TARGETS) if _path(place, TARGETS).exists() else None
        ids = _load(place, IDS).tolist() if _path(place, IDS).exists() else None
        counts |= {
            f"{name}.npy": len(values) for name, values in ((TARGETS, targets), (IDS, ids)) if values is not None
        }
        if len(set(counts.values())) > 1:
            raise SourceError(f"{place}: the files speak of different numbers of samples: {counts}")
        ids = [f"{name}[{i}]" for i in range(next(iter(counts.values())))] if ids is None else ids
        check_distinct(ids, str(_path(place, IDS)))
        self._folder = place
        self._columns = [(name, _values(place, name, offsets[name]), offsets[name].data) for name in names]
        info = {} if self.manifest is None else self.manifest["splits"][split]
        if targets is not None:
            check_finite_targets(targets, ids, str(_path(place, TARGETS)))
        super().__init__(
            name,
            lengths=LengthTable.from_columns({name: np.diff(values) for name, values in offsets.items()}),
            targets=targets,
            ids=ids,
            inputs=[*([] if self.manifest is None else [folder / MANIFEST]), *sorted(place.glob("*.npy"))],
            rules=info.get("rules", {"nonfinite": nonfinite}),
            nonfinite=nonfinite if self.manifest is None else None,
            replaced=info.get("nonfinite"),
            padded_to=info.get("padded_to"),
            left_out=[LeftOut(**row) for row in info.get("left_out", ())],
            vocabularies={
                modality: _read_json(folder / vocabulary_file(modality))
                for modality, facts in ({} if self.manifest is None else self.manifest["modalities"]).items()
                if "vocabulary_size" in facts
            },
        )

    @staticmethod
    def split_names(folder: str | Path) -> list[str | None]:
        """The splits of a cache; None where the folder is a plain one."""
        manifest = read_manifest(Path(folder))
        return [None] if manifest is None else list(manifest["splits"])

    def _read(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[offsets[index] : offsets[index + 1]] for name, values, offsets in self._columns}

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - all samples are in one file
        return str(_path(self._folder, modality))


def vocabulary_file(modality: str) -> str:
    """The name of the file that holds the vocabulary of a modality."""
    return f"{modality}.vocabulary.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the manifest of a cache says, or None where there is none.

    Raises:
        SourceError: no such folder, or a manifest that is not of this version.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = _read_json(path)
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if found != (FORMAT, VERSION):
        raise SourceError(f"{path}: is {found}, not {(FORMAT, VERSION)}; convert the corpus again")
    if not all(isinstance(manifest.get(key), dict) and manifest[key] for key in ("splits", "modalities")):
        raise SourceError(f"{path}: has no splits or no modalities; convert the corpus again")
    return manifest


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except ValueError as error:
        raise SourceError(f"{path}: not JSON ({error}); convert the corpus again") from None


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _modalities(folder: Path) -> list[str]:
    """The names of the arrays that have offsets, in the order of the alphabet."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    names = sorted(path.name.removesuffix(f"{OFFSETS}.npy") for path in folder.glob(f"*{OFFSETS}.npy"))
    if not names:
        raise SourceError(
            f"{folder}: holds neither {MANIFEST} nor a pair of files such as audio.npy and audio{OFFSETS}.npy; it is "
            "no flat cache, or one that was never finished"
        )
    return names


def _load(folder: Path, name: str) -> np.ndarray:
    path = _path(folder, name)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise SourceError(f"{path}: damaged or cut short ({error}); write it again") from None
    if not isinstance(array, np.ndarray):
        raise SourceError(f"{path}: holds several arrays; write one with np.save")
    return np.asarray(array)  # a plain array is sliced much faster than a memmap


def _offsets(folder: Path, name: str) -> np.ndarray:
    offsets = _load(folder, f"{name}{OFFSETS}")
    where = _path(folder, f"{name}{OFFSETS}")
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype.kind not in "iu":
        raise SourceError(f"{where}: holds {offsets.dtype} of shape {offsets.shape}; offsets are N + 1 whole numbers")
    offsets = np.ascontiguousarray(offsets, np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise SourceError(f"{where}: offsets start at 0 and never fall; write them as np.cumsum([0, *lengths])")
    return offsets


def _values(folder: Path, name: str, offsets: np.ndarray) -> np.ndarray:
    values = _load(folder, name)
    if values.ndim < 1 or values.dtype.kind not in "biuf" or len(values) != offsets[-1]:
        raise SourceError(
            f"{_path(folder, name)}: holds {values.dtype} of shape {values.shape}, and the offsets end at "
            f"{offsets[-1]}; it must be that many frames of numbers"
        )
    return values
