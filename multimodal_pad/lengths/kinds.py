"""The kind of a modality's positions: one in all samples that have some, whatever the other modalities are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from multimodal_pad.lengths.arrays import MISSING


class PositionKind(NamedTuple):
    """The shape and dtype of each position of an array.

    Attributes:
        shape: of a position: the feature shape.
        dtype: of its values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, array: np.ndarray) -> PositionKind:
        """Return the kind of an array ``(length, ...)``."""
        return cls(array.shape[1:], array.dtype)

    @property
    def empty(self) -> np.ndarray:
        """Return an array of this kind without positions."""
        return np.empty((0, *self.shape), self.dtype)


def common_kind(arrays: Iterable[np.ndarray]) -> PositionKind:
    """Return the kind of the first array that has a position; where none has, of the one that says most about its kind.

    >>> common_kind([np.zeros(0), np.zeros((0, 74), np.float32)])
    PositionKind(shape=(74,), dtype=dtype('float32'))
    """
    best = MISSING
    for array in arrays:
        if len(array):
            return PositionKind.of(array)
        if 0 not in array.shape[1:] and (array.ndim > best.ndim or best is MISSING):
            best = array
    return PositionKind.of(best)


def all_of_kind(arrays: list[np.ndarray], kind: PositionKind) -> list[np.ndarray]:
    """Return the arrays, those without positions as empty arrays of a kind."""
    empty = kind.empty
    return [array if len(array) else empty for array in arrays]
