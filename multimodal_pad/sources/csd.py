"""The CMU Multimodal SDK's computational sequences (``.csd``, HDF5), cut into segments by the labels' intervals."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.samples import check_names
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import (
    Corpus,
    LeftOut,
    NonFinite,
    Progress,
    check_choice,
    check_distinct,
    check_finite_targets,
)

SHORTEST = 1e-5
"""Seconds: what overlaps less, or lasts less, counts as not at all (the SDK's own tolerance)."""

ALL = "all"
"""The name of the one split where there are no folds."""

Folds = Mapping[str, Sequence[str]] | str | Path

logger = logging.getLogger(__name__)


class _Segment(NamedTuple):
    """What is labelled: a stretch of a video, in seconds."""

    video: str
    name: str
    start: float
    stop: float
    label: np.ndarray


class _Run(NamedTuple):
    """The frames of a segment: rows of an entry of a sequence; no entry where there are none."""

    entry: str | None
    rows: slice | np.ndarray
    length: int


class Csd(Corpus):
    """Segments of videos, from one ``.csd`` file per modality and one of labels (Zadeh et al., ACL 2018).

    A file holds a group named after its sequence, in it ``data``, a group per video, and in that ``features``
    ``(n, d)`` and ``intervals`` ``(n, 2)`` in seconds. Each row of the labels is a segment ``video[row]``. Its frames
    in a sequence are those whose interval overlaps the segment's by more than 10 µs, in the order of their starts, at
    the rate that the sequence has: nothing is aligned, averaged or repeated. In a sequence that is cut into segments
    already (``video[row]`` is an entry of its own) they are all frames of that entry. A segment without frames lacks
    the modality (length 0).

    - The modalities that you name: float32 ``(length, d)``.
    - ``targets``: one column of the labels' features, float32.
    - ``ids``: ``video[row]``.

    The last video read is kept, since the files are compressed video by video: reading in order is fast, in random
    order it is not. Convert to a flat cache to train.

    Args:
        folder: of the files.
        split: one of the folds' names, or ``"all"`` without folds.
        sequences: the file of each modality, such as ``{"text": "CMU_MOSI_TimestampedWordVectors.csd"}``.
        labels: the file of the labels, such as ``"CMU_MOSI_Opinion_Labels.csd"``.
        folds: the videos of each split, as a dict or a JSON file of one. Videos in no fold belong to no split, which is
            logged as a warning.
        label_column: which column of the labels; sentiment is the first in MOSI and MOSEI.
        nonfinite: what becomes of NaN and inf (COVAREP holds -inf): ``"error"``, or ``"zero"`` puts 0 there and counts
            them.
        progress: told how far opening is.

    Raises:
        PaddingError: h5py is not installed (``pip install 'multimodal-pad[csd]'``).
        SourceError: not such a file, a sequence of text, widths that differ, NaN labels, no such split; and, when a
            sample is read, NaN and inf. File, video and row are named.
        OSError: a file cannot be read.

    >>> import h5py, tempfile
    >>> files = {"labels": ([[1.5]], [[0.0, 2.0]]), "words": ([[1.0], [2.0], [3.0]], [[0, 1], [1, 2], [2, 3]])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, (features, intervals) in files.items():
    ...         with h5py.File(f"{folder}/{name}.csd", "w") as file:
    ...             file[f"{name}/data/video/features"] = features
    ...             file[f"{name}/data/video/intervals"] = intervals
    ...     corpus = Csd(folder, sequences={"text": "words.csd"}, labels="labels.csd")
    ...     corpus.ids, corpus[0]["text"].tolist(), float(corpus.targets[0])
    (['video[0]'], [[1.0], [2.0]], 1.5)
    """

    kind = "csd"

    def __init__(
        self,
        folder: str | Path,
        split: str = ALL,
        *,
        sequences: Mapping[str, str],
        labels: str,
        folds: Folds | None = None,
        label_column: int = 0,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        check_choice("nonfinite", nonfinite, NonFinite)
        check_names(tuple(sequences))
        folder = Path(folder)
        videos = _fold(folds, split)
        self._sequences = {name: _Sequence(folder / file) for name, file in sequences.items()}
        label_file = _Sequence(folder / labels)
        segments, left_out = _segments(label_file, label_column, videos, _every(folds))
        if not segments:
            raise SourceError(f"{label_file.path}: labels no segment of the split {split!r}")
        check_distinct([segment.name for segment in segments], str(label_file.path))
        self._runs: dict[str, list[_Run]] = {}
        for name, sequence in self._sequences.items():
            if not any(sequence.holds(segment) for segment in segments):
                raise SourceError(
                    f"{sequence.path}: holds none of the {len(segments)} segments of the split {split!r}, such as "
                    f"{segments[0].name}; give the sequence of the same corpus"
                )
            self._runs[name] = []
            for count, segment in enumerate(segments, start=1):
                self._runs[name].append(sequence.run(segment))
                if progress is not None:
                    progress(f"looking through {split}, {name}", count, len(segments))
        self._last: dict[str, tuple[str, np.ndarray]] = {}
        self._reading = threading.Lock()  # of the video that is kept
        super().__init__(
            split,
            lengths=LengthTable.from_columns({name: [run.length for run in runs] for name, runs in self._runs.items()}),
            targets=np.array([segment.label for segment in segments], np.float32),
            ids=[segment.name for segment in segments],
            inputs=[label_file.path, *[sequence.path for sequence in self._sequences.values()]],
            rules={
                "segments": "frames that overlap a label's interval",
                "sequences": {name: str(file) for name, file in sequences.items()},
                "labels": str(labels),
                "label_column": int(label_column),
                "folds": None if folds is None else {name: len(videos) for name, videos in _read_folds(folds).items()},
                "nonfinite": nonfinite,
            },
            nonfinite=nonfinite,
            left_out=left_out,
        )

    @staticmethod
    def split_names(folds: Folds | None) -> list[str]:
        """The names of the folds."""
        return [ALL] if folds is None else list(_read_folds(folds))

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample = {}
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold is inf, and treated as such
            for name, sequence in self._sequences.items():
                run = self._runs[name][index]
                rows = np.empty((0, *sequence.width)) if run.entry is None else self._entry(name, run.entry)[run.rows]
                sample[name] = rows.astype(np.float32)
        return sample

    def _entry(self, name: str, entry: str) -> np.ndarray:
        """The features of a video, read once for its segments."""
        with self._reading:
            if name not in self._last or self._last[name][0] != entry:
                self._last[name] = (entry, self._sequences[name].features(entry))
            return self._last[name][1]

    def _place(self, index: int, modality: str) -> str:
        return f"{self._sequences[modality].path}, {self._runs[modality][index].entry!r}"


class _Sequence:
    """One ``.csd`` file."""

    def __init__(self, path: Path) -> None:
        h5py = _h5py()
        self.path = path
        if not path.is_file():
            raise SourceError(f"{path}: no such file; name the .csd files of the folder {path.parent}")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise SourceError(f"{path}: not an HDF5 file, or one that is cut short ({error}); copy it again") from None
        roots = [name for name in self._file if self._is_group(self._file, name)]
        with_data = [name for name in roots if "data" in self._file[name] and self._is_group(self._file[name], "data")]
        if len(with_data) != 1:
            raise SourceError(
                f"{path}: is no computational sequence: of {list(self._file)}, {len(with_data)} hold a group 'data'; "
                "one should"
            )
        self._data = self._file[with_data[0]]["data"]
        self.entries = list(self._data)
        if not self.entries:
            raise SourceError(f"{path}: holds no videos")
        self.width = self._check(self.entries[0], None)
        self._checked: dict[str, np.ndarray] = {}

    def holds(self, segment: _Segment) -> bool:
        """Whether there are frames of a segment's video."""
        return segment.name in self._data or segment.video in self._data

    def run(self, segment: _Segment) -> _Run:
        """The frames of a segment."""
        if segment.name in self._data:
            length = len(self.intervals(segment.name))
            return _Run(segment.name, slice(0, length), length)
        if segment.video not in self._data:
            return _Run(None, slice(0, 0), 0)
        intervals = self.intervals(segment.video)
        overlap = np.minimum(intervals[:, 1], segment.stop) - np.maximum(intervals[:, 0], segment.start)
        rows = np.flatnonzero(overlap > SHORTEST)
        rows = rows[np.argsort(intervals[rows, 0], kind="stable")]
        in_a_row = len(rows) > 0 and (np.diff(rows) == 1).all()
        return _Run(segment.video, slice(int(rows[0]), int(rows[-1]) + 1) if in_a_row else rows, len(rows))

    def intervals(self, entry: str) -> np.ndarray:
        """``(n, 2)`` seconds, checked once; those of the last entry are kept."""
        if entry not in self._checked:
            self._check(entry, self.width)
            intervals = self._values(entry, "intervals").astype(np.float64)
            if not np.isfinite(intervals).all():
                row = int(np.argwhere(~np.isfinite(intervals))[0, 0])
                raise SourceError(f"{self.path}, {entry!r}: row {row} has the interval {intervals[row].tolist()}")
            self._checked = {entry: intervals}
        return self._checked[entry]

    def features(self, entry: str) -> np.ndarray:
        """``(n, d)``."""
        return self._values(entry, "features")

    def _values(self, entry: str, name: str) -> np.ndarray:
        try:
            return np.asarray(self._dataset(entry, name))
        except OSError as error:
            raise SourceError(f"{self.path}, {entry!r}: {name} can't be read ({error}); copy the file again") from None

    def _check(self, entry: str, width: tuple[int, ...] | None) -> tuple[int, ...]:
        """The feature shape of an entry, whose arrays must fit each other and the file."""
        features, intervals = (self._dataset(entry, name) for name in ("features", "intervals"))
        where = f"{self.path}, {entry!r}"
        if features.dtype.kind not in "biuf" or intervals.dtype.kind not in "biuf":
            raise SourceError(
                f"{where}: holds text ({features.dtype}, {intervals.dtype}); name a sequence of numbers, such as "
                "word vectors"
            )
        if features.ndim < 2 or intervals.shape != (len(features), 2):
            raise SourceError(
                f"{where}: has features of shape {features.shape} and intervals of shape {intervals.shape}; they must "
                "be (n, d) and (n, 2)"
            )
        if width is not None and features.shape[1:] != width:
            raise SourceError(
                f"{where}: has features of shape {features.shape[1:]}, and {self.entries[0]!r} of {width}; give all "
                "the same"
            )
        return features.shape[1:]

    def _dataset(self, entry: str, name: str) -> Any:
        h5py = _h5py()
        group = self._data[entry] if self._is_group(self._data, entry) else None
        if group is None or name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise SourceError(f"{self.path}, {entry!r}: has no array {name!r}; an entry holds features and intervals")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external is not None:
            raise SourceError(f"{self.path}, {entry!r}: {name!r} is no array of this file; copy its data into the file")
        return dataset

    @staticmethod
    def _is_group(parent: Any, name: str) -> bool:
        """Whether a name is a group of this very file: links elsewhere are not followed."""
        h5py = _h5py()
        return isinstance(parent.get(name, getlink=True), h5py.HardLink) and isinstance(parent[name], h5py.Group)


def _segments(
    labels: _Sequence, column: int, videos: set[str] | None, every: set[str] | None
) -> tuple[list[_Segment], list[LeftOut]]:
    """The segments of these videos, or of all, in the order of the file, and those that last no time."""
    (width,) = labels.width if len(labels.width) == 1 else (0,)
    if not 0 <= column < width:
        raise SourceError(f"{labels.path}: has {width} columns of labels; got label_column={column}, which starts at 0")
    segments, left_out, elsewhere = [], [], set()
    for entry in labels.entries:
        video = entry.split("[")[0]
        if every is not None and video not in every:
            elsewhere.add(video)
        if videos is not None and video not in videos:
            continue
        intervals, features = labels.intervals(entry), labels.features(entry)
        names = (
            [entry] if "[" in entry and len(intervals) == 1 else [f"{entry}[{row}]" for row in range(len(intervals))]
        )
        check_finite_targets(features[:, column], names, f"{labels.path}, {entry!r}")
        for name, (start, stop), label in zip(names, intervals.tolist(), features[:, column], strict=True):
            if stop - start < SHORTEST:
                reason = f"lasts {stop - start:g} s, from {start:g} to {stop:g}"
                left_out.append(LeftOut(labels.path.name, None, name, reason))
                logger.warning("%s: left out %s: %s", labels.path, name, reason)
            else:
                segments.append(_Segment(video, name, start, stop, label))
    if elsewhere:
        logger.warning("%s: %d videos are in no fold, such as %s", labels.path, len(elsewhere), min(elsewhere))
    absent = (videos or set()) - {entry.split("[")[0] for entry in labels.entries}
    if absent:
        logger.warning("%s: has no labels of %d videos of the fold, such as %s", labels.path, len(absent), min(absent))
    return segments, left_out


def _fold(folds: Folds | None, split: str) -> set[str] | None:
    """The videos of a split, or None for all."""
    names = Csd.split_names(folds)
    if split not in names:
        raise SourceError(
            f"got the split {split!r}; {'the folds are' if folds is not None else 'without folds it is'} {names}"
        )
    return None if folds is None else set(_read_folds(folds)[split])


def _every(folds: Folds | None) -> set[str] | None:
    """The videos of all folds, none of which is in two."""
    if folds is None:
        return None
    seen: dict[str, str] = {}
    for name, videos in _read_folds(folds).items():
        for video in videos:
            if seen.setdefault(video, name) != name:
                raise SourceError(f"the video {video!r} is in the folds {seen[video]!r} and {name!r}; put it into one")
    return set(seen)


def _read_folds(folds: Folds) -> Mapping[str, Sequence[str]]:
    read: Any = folds
    if not isinstance(folds, Mapping):
        try:
            read = json.loads(Path(folds).read_text(encoding="utf-8"))
        except ValueError as error:
            raise SourceError(f"{folds}: not JSON ({error})") from None
    lists = list(read.values()) if isinstance(read, Mapping) else []
    plain = [isinstance(videos, list | tuple) and all(isinstance(v, str) for v in videos) for videos in lists]
    if not lists or not all(plain):
        where = "the folds" if isinstance(folds, Mapping) else folds
        raise SourceError(f'{where}: must hold the videos of each split, as {{"train": ["03bSnISJMiM", ...], ...}}')
    return read


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise PaddingError(".csd files need h5py; install it with pip install 'multimodal-pad[csd]'") from None
    return h5py
