"""The HDF5 files of MFN: CMU-MOSI, ICT-MMMO, POM and YouTube, aligned to words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import reading, some
from multimodal_pad.sources.corpus import Corpus, NonFinite, Progress, as_float32, float_targets
from multimodal_pad.sources.hdf5 import Hdf5
from multimodal_pad.sources.ids import NumberedIds
from multimodal_pad.sources.label_columns import (
    ALL_COLUMNS,
    WITHOUT_LABELS,
    LabelColumns,
    check_label_columns,
    describe_label_columns,
    select_labels,
)
from multimodal_pad.sources.pickled import choose_keys

KEYS = {"text": "text", "audio": "audio", "visual": "video"}
"""The names of each modality's files."""

WIDTHS = {"text": 300, "audio": 5, "visual": 20}
"""Widths of CMU-MOSI, whose modalities are side by side in one array."""

_NAME = re.compile(r"(?:X|y|text|audio|video)_(.+?)(?:_emb)?\.h5")
_USUAL = ("train", "valid", "test")


class Mfn(Corpus):
    """One split of a folder of HDF5 files of MFN (Zadeh et al., AAAI 2018).

    Each file holds one array: ``text_train_emb.h5``, ``audio_train.h5`` and ``video_train.h5`` padded features
    ``(N, T, F)``, or ``X_train.h5`` all of them side by side, and ``y_train.h5`` the labels: ``(N,)``, or ``(N, 17)``
    of POM and ``(N, 3)`` of YouTube. The files don't hold the lengths of samples, and some corpora are padded on the
    left, others on the right. Positions are words, the same in all modalities: so a sample goes from the first position
    at which any modality is not all zero to the last one. A modality that is all zero in it is missing (length 0).

    - ``text``, ``audio``, ``visual``: float32 ``(length, F)``.
    - ``targets``: float32 scalars, or ``(K,)`` of several columns.
    - ``ids``: ``train[0]`` and so on.

    The arrays are held in memory, as float32.

    Args:
        folder: of the files.
        split: ``"train"``, ``"valid"`` or ``"test"``, or another split in the files' names.
        modalities: which, in which order.
        widths: of all modalities in ``X_train.h5``, in their order; by default 300, 5 and 20.
        label_column: columns of the labels, as
            :func:`~multimodal_pad.sources.label_columns.select_labels` takes them; None for no targets.
        nonfinite: what to do with NaN and inf: ``"error"``, or ``"zero"`` puts 0 there and counts them.
        progress: progress callback while the corpus is opened.

    Raises:
        PaddingError: h5py is not installed (``pip install 'multimodal-pad[csd]'``); a modality or an option that there
            is not.
        SourceError: no such split or file, one that is damaged, arrays that don't fit each other, labels that are NaN;
            and, when a sample is read, NaN and inf. The file and the sample are named.
        OSError: a file cannot be read.

    >>> import h5py, tempfile
    >>> arrays = {"audio_train": [[[0.0], [2.0], [3.0]]], "text_train_emb": [[[0.0], [1.0], [0.0]]], "y_train": [0.5]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, values in arrays.items():
    ...         with h5py.File(f"{folder}/{name}.h5", "w") as file:
    ...             file["d1"] = values
    ...     source = Mfn(folder, "train", modalities=["text", "audio"])
    >>> source.lengths.values.tolist(), source[0]["text"].tolist(), source.padded_to
    ([[2, 2]], [[1.0], [0.0]], {'text': 3, 'audio': 3})
    """

    kind = "mfn"

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        modalities: Sequence[str] = tuple(KEYS),
        widths: Mapping[str, int] | None = None,
        label_column: LabelColumns = ALL_COLUMNS,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        choose_keys(nonfinite, modalities, KEYS)
        check_label_columns(label_column)
        folder = Path(folder)
        splits = Mfn.split_names(folder)
        if split not in splits:
            raise SourceError(f"{folder}: has no files of the split {split!r}, only of {some(splits)}")
        arrays, self._paths = _features(folder, split, widths, progress)
        absent = [name for name in modalities if name not in arrays]
        if absent:
            raise SourceError(
                f"{folder}: has no {KEYS[absent[0]]}_{split}.h5; name the modalities that are there: {list(arrays)}"
            )
        counts = {self._paths[name].name: (len(array), int(array.shape[1])) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            raise SourceError(
                f"{folder}: the files differ in samples and positions: {counts}; give all the same, aligned to words"
            )
        count, positions = next(iter(counts.values()))
        if not count:
            raise SourceError(f"{folder}: the split {split!r} has no samples; choose another one")
        ids = NumberedIds(split, count)
        inputs = sorted(set(self._paths.values()))
        targets = None
        if label_column is not None:
            path = folder / f"y_{split}.h5"
            if not path.exists():
                raise SourceError(f"{path}: no such file; a split without labels is read with {WITHOUT_LABELS}")
            inputs.append(path)
            labels = _array(path)
            if labels.ndim < 1 or len(labels) != count:
                raise SourceError(
                    f"{path}: holds labels of shape {labels.shape} for {count} samples; give one for each"
                )
            chosen = select_labels(labels, label_column, str(path))
            targets = None if chosen is None else float_targets(chosen, ids, str(path))
        real = {name: (array != 0).any(axis=2) for name, array in arrays.items()}
        some_real = np.logical_or.reduce(list(real.values()))
        self._starts = np.where(some_real.any(axis=1), some_real.argmax(axis=1), 0)
        words = np.where(some_real.any(axis=1), positions - some_real[:, ::-1].argmax(axis=1) - self._starts, 0)
        self._arrays = {name: arrays[name] for name in modalities}
        super().__init__(
            split,
            lengths=LengthTable.from_columns({m: np.where(real[m].any(axis=1), words, 0) for m in modalities}),
            targets=targets,
            ids=ids,
            inputs=inputs,
            rules={
                "lengths": "from the first to the last position at which any modality is not all zero",
                "label_column": describe_label_columns(label_column),
                "nonfinite": nonfinite,
            },
            nonfinite=nonfinite,
            padded_to=dict.fromkeys(modalities, positions),
        )

    @staticmethod
    def split_names(folder: str | Path) -> list[str]:
        """Return the splits of a folder: train, valid and test, then others."""
        folder = Path(folder)
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder; name that of text_train_emb.h5, or of X_train.h5")
        found = {match[1] for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        if not found:
            raise SourceError(
                f"{folder}: holds neither text_train_emb.h5, audio_train.h5 and video_train.h5 nor X_train.h5"
            )
        return [*[name for name in _USUAL if name in found], *sorted(found - set(_USUAL))]

    def _read(self, index: int) -> dict[str, np.ndarray]:
        lengths = self.lengths.values[index].tolist()
        start = int(self._starts[index])
        return {
            name: array[index, start : start + length]
            for (name, array), length in zip(self._arrays.items(), lengths, strict=True)
        }

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - all samples are in one file
        return str(self._paths[modality])


def _features(
    folder: Path, split: str, widths: Mapping[str, int] | None, progress: Progress | None
) -> tuple[dict[str, np.ndarray], dict[str, Path]]:
    """Read padded features of each modality in the folder, float32 ``(N, T, F)``, and the file of each."""
    joined = folder / f"X_{split}.h5"
    if joined.exists():
        arrays = _parted(_array(joined, axes=3), dict(WIDTHS if widths is None else widths), joined)
        if progress is not None:
            progress(f"reading {joined.name}", 1, 1)
        return arrays, dict.fromkeys(arrays, joined)
    paths = {}
    for name, key in KEYS.items():
        there = [path for suffix in ("_emb", "") if (path := folder / f"{key}_{split}{suffix}.h5").exists()]
        if there:
            paths[name] = there[0]
    arrays = {}
    for name, path in paths.items():
        arrays[name] = _array(path, axes=3)
        if progress is not None:
            progress(f"reading {path.name}", 1, 1)
    if not arrays:
        raise SourceError(f"{folder}: has no features of the split {split!r}, such as text_{split}_emb.h5")
    return arrays, paths


def _parted(joined: np.ndarray, widths: dict[str, int], path: Path) -> dict[str, np.ndarray]:
    whole = [isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in widths.values()]
    if not widths or not all(whole) or not set(widths) <= set(KEYS):
        raise PaddingError(f"got widths={widths}; give the width of each modality, such as {WIDTHS}")
    if sum(widths.values()) != joined.shape[2]:
        raise SourceError(
            f"{path}: holds features of width {joined.shape[2]}, and the widths {widths} come to "
            f"{sum(widths.values())}; say with widths= (--width) how wide each modality is"
        )
    ends = np.cumsum(list(widths.values()))
    return {name: joined[:, :, end - widths[name] : end] for name, end in zip(widths, ends.tolist(), strict=True)}


def _array(path: Path, axes: int | None = None) -> np.ndarray:
    """Read the one array of a file; features are float32."""
    file = Hdf5(path)
    try:
        names = file.names(file.root)
        dataset = file.dataset(file.root, names[0], str(path)) if len(names) == 1 else None
        if dataset is None:
            raise SourceError(f"{path}: holds {some(names)}; it must hold one array")
        with reading(path):
            shape, dtype = dataset.shape, dataset.dtype
            if dtype.kind not in "biuf" or (axes is not None and (len(shape) != axes or 0 in shape[1:])):
                raise SourceError(
                    f"{path}: holds {dtype} of shape {shape}; it must be numbers"
                    f"{'' if axes is None else ' (samples, positions, features)'}"
                )
        values = file.values(dataset, f"{path}, {names[0]!r}:")
    finally:
        file.close()
    return values if axes is None else as_float32(values)
