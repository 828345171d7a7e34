"""The flat cache: one memory-mapped array of all frames per modality, and offsets where each sample begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.dtypes import as_native
from multimodal_pad.lengths.samples import check_choice
from multimodal_pad.sources.cache_files import ALLOWED_NAMES, MANIFEST, array_file, names_a_file, vocabulary_file
from multimodal_pad.sources.corpus import Corpus, LeftOut, NonFinite
from multimodal_pad.sources.flat_arrays import read_arrays
from multimodal_pad.sources.manifest import check_vocabulary, has_digests, read_json, read_manifest
from multimodal_pad.sources.verification import check_arrays, check_file, check_files


class NumpyDir(Corpus):
    """One split of a flat cache, or a plain folder of the same files.

    For each modality ``{modality}.npy`` holds the frames of all samples one after the other,
    ``(frames, *feature_shape)``, and ``{modality}.offsets.npy`` ``N + 1`` whole numbers: sample i has the frames from
    ``offsets[i]`` up to ``offsets[i + 1]``. ``targets.npy`` ``(N, ...)`` may be there too, and ``ids.npy``: text or
    whole numbers ``(N,)``, or all ids in UTF-8 one after the other, uint8, with ``ids.offsets.npy``.
    A cache that ``multimodal-pad convert`` wrote has a folder like that per split, and ``manifest.json`` beside them.

    Samples are read-only views of the memory-mapped files, in the dtype that they have there; nothing is copied, unless
    a plain folder has another byte order than this machine.
    A cache is checked against its manifest: names, numbers of samples, dtypes, shapes, sizes of files, and the SHA-256
    of offsets and vocabularies. ``multimodal-pad inspect --verify`` compares the SHA-256 of every file.

    Args:
        folder: of the cache, or of the files.
        split: which split of a cache; None for a plain folder.
        nonfinite: what to do with NaN and inf in a plain folder: ``"error"``, or ``"zero"`` puts 0 there and counts
            them. A cache holds none.

    Attributes:
        manifest: the contents of ``manifest.json``, or None in a plain folder.

    Raises:
        SourceError: no such folder, split or file, one that is damaged or cut short, offsets that don't fit, files
            that differ in their number of samples, or that are not as the manifest has them. The file is named.
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
        if info:
            check_files(place, info)
        arrays = read_arrays(place, name, list(modalities) or None, distinct=bool(info))
        if info:
            check_arrays(place, arrays, modalities, info)
        self._columns = [(key, values, arrays.offsets[key].data) for key, values in arrays.values.items()]
        self._foreign = [key for key, values in arrays.values.items() if not values.dtype.isnative]
        self._folder = place
        super().__init__(
            name,
            lengths=arrays.lengths,
            targets=arrays.targets,
            ids=arrays.ids,
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
        """Return the splits of a cache; None where the folder is a plain one."""
        manifest = read_manifest(Path(folder))
        return [None] if manifest is None else list(manifest["splits"])

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample = {name: values[offsets[index] : offsets[index + 1]] for name, values, offsets in self._columns}
        for name in self._foreign:
            sample[name] = as_native(sample[name], name)
        return sample

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - all samples are in one file
        return str(self._folder / array_file(modality))


def _vocabularies(folder: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    found = {}
    for modality, facts in manifest["modalities"].items():
        if "vocabulary_size" in facts:
            path = folder / vocabulary_file(modality)
            if has_digests(manifest):
                check_file(path, manifest["files"][path.name])
            found[modality] = read_json(path)
            check_vocabulary(found[modality], facts["vocabulary_size"], str(path))
    return found
