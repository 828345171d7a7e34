"""The CMU Multimodal SDK's computational sequences (``.csd``, HDF5), cut into segments by the labels' intervals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import check_choice, check_names
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import (
    Corpus,
    LeftOut,
    NonFinite,
    Progress,
    as_float32,
    check_distinct,
    float_targets,
)
from multimodal_pad.sources.csd_sequence import SHORTEST, ComputationalSequence, Run, Segment
from multimodal_pad.sources.folds import ALL, Folds, read_folds
from multimodal_pad.sources.label_columns import (
    LabelColumns,
    check_label_columns,
    describe_label_columns,
    select_labels,
)

logger = logging.getLogger(__name__)


class Csd(Corpus):
    """Segments of videos, from one ``.csd`` file per modality and one of labels (Zadeh et al., ACL 2018).

    A file holds a group named after its sequence, in it ``data``, a group per video, and in that ``features``
    ``(n, d)`` and ``intervals`` ``(n, 2)`` in seconds. Each row of the labels is a segment ``video[row]``. Its frames
    in a sequence are those whose interval overlaps the segment's by more than 10 µs, in the order of their starts, at
    the rate that the sequence has: nothing is aligned, averaged or repeated. In a sequence that is cut into segments
    already (``video[row]`` is an entry of its own) they are all frames of that entry. A segment without frames lacks
    the modality (length 0).

    - The modalities that you name: float32 ``(length, d)``.
    - ``targets``: one column of the labels' features, or ``(K,)`` of several, float32.
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
        label_column: which columns of the labels, by number, name (as the file has them) or range, or a list of
            these, as :func:`~multimodal_pad.sources.label_columns.select_labels` takes them; sentiment is the first in
            MOSI and MOSEI. None where only the intervals are given, as in a blind test set.
        nonfinite: what to do with NaN and inf (COVAREP holds -inf): ``"error"``, or ``"zero"`` puts 0 there and counts
            them.
        progress: progress callback while the corpus is opened.

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
        label_column: LabelColumns = 0,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        check_choice("nonfinite", nonfinite, NonFinite)
        check_names(tuple(sequences))
        check_label_columns(label_column)
        folder = Path(folder)
        chosen = None if folds is None else read_folds(folds, "videos")
        videos, every = _fold(chosen, split), _every(chosen)
        self._sequences = {name: ComputationalSequence(folder / file) for name, file in sequences.items()}
        label_file = ComputationalSequence(folder / labels)
        segments, left_out = _segments(label_file, label_column is not None, videos, every)
        if not segments:
            raise SourceError(
                f"{label_file.path}: labels no segment of the split {split!r}; give folds with its videos"
            )
        ids = [segment.name for segment in segments]
        check_distinct(ids, str(label_file.path))
        targets = None if label_column is None else _targets(label_file, segments, label_column, ids)
        self._runs: dict[str, list[Run]] = {}
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
            targets=targets,
            ids=ids,
            inputs=[label_file.path, *[sequence.path for sequence in self._sequences.values()]],
            rules={
                "segments": "frames that overlap a label's interval",
                "sequences": {name: str(file) for name, file in sequences.items()},
                "labels": str(labels),
                "label_column": describe_label_columns(label_column),
                "folds": None if chosen is None else {name: len(fold) for name, fold in chosen.items()},
                "nonfinite": nonfinite,
            },
            nonfinite=nonfinite,
            left_out=left_out,
        )

    @staticmethod
    def split_names(folds: Folds | None) -> list[str]:
        """Return the names of the folds."""
        return [ALL] if folds is None else list(read_folds(folds, "videos"))

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample = {}
        for name, sequence in self._sequences.items():
            run = self._runs[name][index]
            rows = np.empty((0, *sequence.width)) if run.entry is None else self._entry(name, run.entry)[run.rows]
            sample[name] = as_float32(rows)
        return sample

    def _entry(self, name: str, entry: str) -> np.ndarray:
        """Return the features of a video, read once for its segments."""
        with self._reading:
            if name not in self._last or self._last[name][0] != entry:
                self._last[name] = (entry, self._sequences[name].features(entry))
            return self._last[name][1]

    def _place(self, index: int, modality: str) -> str:
        return f"{self._sequences[modality].path}, {self._runs[modality][index].entry!r}"


def _segments(
    labels: ComputationalSequence, labelled: bool, videos: set[str] | None, every: set[str] | None
) -> tuple[list[Segment], list[LeftOut]]:
    """Return the segments of these videos, or of all, in the order of the file, and those of no duration."""
    segments, left_out, elsewhere = [], [], set()
    for entry in labels.entries:
        video = entry.split("[")[0]
        if every is not None and video not in every:
            elsewhere.add(video)
        if videos is not None and video not in videos:
            continue
        intervals = labels.intervals(entry)
        rows = labels.features(entry) if labelled else [None] * len(intervals)
        names = (
            [entry] if "[" in entry and len(intervals) == 1 else [f"{entry}[{row}]" for row in range(len(intervals))]
        )
        for name, (start, stop), label in zip(names, intervals.tolist(), rows, strict=True):
            if stop - start < SHORTEST:
                reason = f"lasts {stop - start:g} s, from {start:g} to {stop:g}"
                left_out.append(LeftOut(labels.path.name, None, name, reason))
                logger.warning("%s: left out %s: %s", labels.path, name, reason)
            else:
                segments.append(Segment(video, name, start, stop, label))
    if elsewhere:
        logger.warning("%s: %d videos are in no fold, such as %s", labels.path, len(elsewhere), min(elsewhere))
    absent = (videos or set()) - {entry.split("[")[0] for entry in labels.entries}
    if absent:
        logger.warning("%s: has no labels of %d videos of the fold, such as %s", labels.path, len(absent), min(absent))
    return segments, left_out


def _targets(
    labels: ComputationalSequence, segments: Sequence[Segment], chosen: LabelColumns, ids: Sequence[str]
) -> np.ndarray | None:
    rows = np.stack([segment.label for segment in segments if segment.label is not None])
    found = select_labels(rows, chosen, str(labels.path), labels.column_names())
    return None if found is None else float_targets(found, ids, str(labels.path))


def _fold(folds: Mapping[str, Sequence[str]] | None, split: str) -> set[str] | None:
    """Return the videos of a split, or None for all."""
    names = Csd.split_names(folds)
    if split not in names:
        raise SourceError(
            f"got the split {split!r}; {'the folds are' if folds is not None else 'without folds it is'} {names}"
        )
    return None if folds is None else set(folds[split])


def _every(folds: Mapping[str, Sequence[str]] | None) -> set[str] | None:
    """Return the videos of all folds; raises a SourceError where one is in two."""
    if folds is None:
        return None
    seen: dict[str, str] = {}
    for name, videos in folds.items():
        for video in videos:
            if seen.setdefault(video, name) != name:
                raise SourceError(f"the video {video!r} is in the folds {seen[video]!r} and {name!r}; put it into one")
    return set(seen)
