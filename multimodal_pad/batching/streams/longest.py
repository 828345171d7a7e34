"""Planning from the first samples of a stream: the longest lengths that may come are known, or taken from these."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimodal_pad.errors import LengthError, UncoveredLengthError
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable


def with_longest(lengths: LengthTable, longest: Mapping[str, int] | None) -> LengthTable:
    """The table and one more row, of the longest lengths that may come, so that a plan for it holds them.

    >>> with_longest(LengthTable(("text", "audio"), np.array([[3, 40], [5, 0]])), {"audio": 99}).values.tolist()
    [[3, 40], [5, 0], [5, 99]]
    """
    if longest is None:
        return lengths
    row = [longest.get(name, maximum) for name, maximum in lengths.maxima.items()]
    return LengthTable(lengths.modalities, np.vstack([lengths.values, row]))


def check_longest(lengths: LengthTable, longest: Mapping[str, int] | None) -> None:
    """Raise where the longest lengths that may come are not those of the first samples.

    Raises:
        LengthError: another modality, or no length.
        UncoveredLengthError: one of the first samples is longer.
    """
    for name, limit in (longest or {}).items():
        if name not in lengths.modalities:
            raise LengthError(f"got longest[{name!r}]; the modalities are {list(lengths.modalities)}")
        check_whole(f"longest[{name!r}]", limit, 0, LengthError)
        column = lengths.values[:, lengths.modalities.index(name)]
        if column.max() > limit:
            number = int(np.argmax(column > limit))
            raise UncoveredLengthError(
                f"sample {number} of the stream: {name!r} has {column[number]} positions and longest[{name!r}] is "
                f"{limit}; give the length that none will exceed"
            )
