"""The steps of an epoch, or some of them: which samples are in which batch, and at which batch shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from multimodal_pad.lengths.samples import EMPTY


@dataclass(frozen=True, eq=False)
class Steps:
    """Consecutive steps, as arrays.

    Attributes:
        lengths: int64 ``(steps, M)``: the bucket lengths of each step, in the policy's column order.
        starts: int64 ``(steps + 1,)``: where the rows of each step begin in ``ids``, and where they end.
        ids: int64 ``(rows,)``: sample numbers, step after step; EMPTY (-1) where a row only fills up.

    >>> steps = Steps(np.array([[8], [4]]), np.array([0, 2, 6]), np.array([7, EMPTY, 0, 1, 2, 5]))
    >>> [(shape.tolist(), ids.tolist()) for shape, ids in steps]
    [([8], [7, -1]), ([4], [0, 1, 2, 5])]
    >>> [(shape.tolist(), ids.tolist()) for shape, ids in steps.shard(1, 2)]
    [([8], [-1]), ([4], [2, 5])]
    """

    lengths: np.ndarray
    starts: np.ndarray
    ids: np.ndarray

    @property
    def batch_sizes(self) -> np.ndarray:
        """Rows of each step, int64 ``(steps,)``."""
        return np.diff(self.starts)

    @property
    def samples(self) -> np.ndarray:
        """Samples in each step, without those that only fill up, int64 ``(steps,)``."""
        return np.add.reduceat(self.ids != EMPTY, self.starts[:-1], dtype=np.int64)

    def take(self, places: np.ndarray) -> Steps:
        """Return the steps at these places, in this order."""
        sizes = self.batch_sizes[places]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[:-1][places] - starts[:-1], sizes)
        return Steps(self.lengths[places], starts, self.ids[rows])

    def part(self, start: int, stop: int) -> Steps:
        """Return the steps from ``start`` up to ``stop``."""
        starts = self.starts[start : stop + 1]
        return Steps(self.lengths[start:stop], starts - starts[0], self.ids[starts[0] : starts[-1]])

    def shard(self, index: int, count: int) -> Steps:
        """Return the rows of one shard of ``count``: run number ``index`` of as many equal runs of each step's rows.

        ``count`` divides the rows of every step; the shapes are those of the whole.
        """
        if count == 1:
            return self
        sizes = np.repeat(self.batch_sizes // count, self.batch_sizes)
        places = np.arange(len(self.ids)) - np.repeat(self.starts[:-1], self.batch_sizes)
        return Steps(self.lengths, self.starts // count, self.ids[places // sizes == index])

    @classmethod
    def join(cls, parts: list[Steps]) -> Steps:
        """Join steps one after another; at least one part."""
        sizes = np.concatenate([part.batch_sizes for part in parts])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return cls(
            np.concatenate([part.lengths for part in parts]), starts, np.concatenate([part.ids for part in parts])
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for shape, start, stop in zip(self.lengths, self.starts, self.starts[1:], strict=False):
            yield shape, self.ids[start:stop]
