"""One computational sequence (``.csd``): the entries of its videos, and which frames a segment overlaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import check_unpacked, reading, some
from multimodal_pad.sources.hdf5 import Hdf5

SHORTEST = 1e-5
"""Seconds: shorter overlaps and durations count as none (the SDK's own tolerance)."""


class Segment(NamedTuple):
    """A labelled stretch of a video, in seconds."""

    video: str
    name: str
    start: float
    stop: float
    label: np.ndarray | None


class Run(NamedTuple):
    """The frames of a segment: rows of a sequence's entry; no entry where there are none."""

    entry: str | None
    rows: slice | np.ndarray
    length: int


class ComputationalSequence:
    """One ``.csd`` file.

    Attributes:
        path: the file.
        entries: of the videos, in the order of the file.
        width: the feature shape of all of them.

    Raises:
        SourceError: no such file, or one that is damaged; file and entry are named.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise SourceError(f"{path}: no such file; name the .csd files of the folder {path.parent}")
        self._file = Hdf5(path)
        roots = [self._file.group(self._file.root, name) for name in self._file.names(self._file.root)]
        data = [(root, self._file.group(root, "data")) for root in roots if root is not None]
        with_data = [(root, group) for root, group in data if group is not None]
        if len(with_data) != 1:
            raise SourceError(
                f"{path}: is no computational sequence: of {some(self._file.names(self._file.root))}, "
                f"{len(with_data)} hold a group 'data'; one should"
            )
        self._root, self._data = with_data[0]
        self.entries = self._file.names(self._data)
        if not self.entries:
            raise SourceError(f"{path}: holds no videos; name another file")
        self._names = set(self.entries)
        self.width = self._check(self.entries[0], None)
        self._checked: dict[str, Times] = {}
        self._frames = 0

    def holds(self, segment: Segment) -> bool:
        """Return whether there are frames of a segment's video."""
        return segment.name in self._names or segment.video in self._names

    def run(self, segment: Segment) -> Run:
        """Return the frames of a segment."""
        if segment.name in self._names:
            length = len(self.intervals(segment.name))
            return Run(segment.name, slice(0, length), length)
        if segment.video not in self._names:
            return Run(None, slice(0, 0), 0)
        rows = self._times(segment.video).rows(segment.start, segment.stop)
        self._frames += len(rows)  # segments can share frames, any number of them
        check_unpacked(16 * self._frames, self._file.size, f"{self.path}, the frames of {segment.name!r} and before")
        in_a_row = len(rows) > 0 and (np.diff(rows) == 1).all()
        return Run(segment.video, slice(int(rows[0]), int(rows[-1]) + 1) if in_a_row else rows, len(rows))

    def intervals(self, entry: str) -> np.ndarray:
        """Return the intervals ``(n, 2)`` in seconds, checked once; those of the last entry are kept."""
        return self._times(entry).intervals

    def features(self, entry: str) -> np.ndarray:
        """Return the features ``(n, d)``."""
        return self._values(entry, "features")

    def column_names(self) -> list[str]:
        """Return the columns' names in the metadata; none where there are none, or not one for each."""
        where = f"{self.path}, 'metadata'"
        metadata = self._file.group(self._root, "metadata")
        dataset = None if metadata is None else self._file.dataset(metadata, "dimension names", where)
        if dataset is None:
            return []
        found = self._file.values(dataset, f"{where}: 'dimension names'").reshape(-1)
        try:  # the SDK writes one text, JSON of a list
            names = json.loads(found[0]) if len(found) == 1 else [name.decode("utf-8") for name in found]
        except (ValueError, TypeError, AttributeError, RecursionError):
            return []
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return names if named and len(names) == self.width[0] == len(set(names)) else []

    def _times(self, entry: str) -> Times:
        if entry not in self._checked:
            self._check(entry, self.width)
            intervals = self._values(entry, "intervals").astype(np.float64)
            if not np.isfinite(intervals).all():
                row = int(np.argwhere(~np.isfinite(intervals))[0, 0])
                raise SourceError(
                    f"{self.path}, {entry!r}: row {row} has the interval {intervals[row].tolist()}; it must be two "
                    "finite numbers of seconds"
                )
            self._checked = {entry: Times(intervals)}
        return self._checked[entry]

    def _values(self, entry: str, name: str) -> np.ndarray:
        return self._file.values(self._dataset(entry, name), f"{self.path}, {entry!r}: {name}")

    def _check(self, entry: str, width: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the feature shape of an entry, after checking that its arrays fit each other and the file."""
        features, intervals = (self._dataset(entry, name) for name in ("features", "intervals"))
        where = f"{self.path}, {entry!r}"
        with reading(where):
            if features.dtype.kind not in "biuf" or intervals.dtype.kind not in "biuf":
                raise SourceError(
                    f"{where}: holds text ({features.dtype}, {intervals.dtype}); name a sequence of numbers, such as "
                    "word vectors"
                )
            shape = features.shape
            if len(shape) < 2 or 0 in shape[1:] or intervals.shape != (shape[0], 2):
                raise SourceError(
                    f"{where}: has features of shape {shape} and intervals of shape {intervals.shape}; they must be "
                    "(n, d) and (n, 2)"
                )
        if width is not None and shape[1:] != width:
            raise SourceError(
                f"{where}: has features of shape {shape[1:]}, and {self.entries[0]!r} of {width}; give all the same"
            )
        return shape[1:]

    def _dataset(self, entry: str, name: str) -> Any:
        where = f"{self.path}, {entry!r}"
        group = self._file.group(self._data, entry)
        dataset = None if group is None else self._file.dataset(group, name, where)
        if dataset is None:
            raise SourceError(f"{where}: has no array {name!r}; an entry holds features and intervals")
        return dataset


class Times:
    """The intervals of a video's frames, searched for overlaps with a segment without a pass over all of them."""

    def __init__(self, intervals: np.ndarray) -> None:
        self.intervals = intervals
        self._order = np.argsort(intervals[:, 0], kind="stable")
        self._starts, self._stops = intervals[self._order].T
        self._latest = np.maximum.accumulate(self._stops)  # no frame up to here ends later

    def rows(self, start: float, stop: float) -> np.ndarray:
        """Return the frames that overlap a stretch, in the order of their starts."""
        first, end = np.searchsorted(self._latest, start), np.searchsorted(self._starts, stop)
        overlap = np.minimum(self._stops[first:end], stop) - np.maximum(self._starts[first:end], start)
        return self._order[first:end][overlap > SHORTEST]
