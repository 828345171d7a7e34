"""Planning from the first samples of a stream: the longest lengths that may come are known, or taken from these."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimodal_pad.errors import LengthError, UncoveredLengthError
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.checks import LongSamples, check_long_samples


def with_longest(lengths: LengthTable, longest: Mapping[str, int] | None) -> LengthTable:
    """Return the table and one more row, of the longest lengths that may come, so that a plan for it holds them.

    >>> with_longest(LengthTable(("text", "audio"), np.array([[3, 40], [5, 0]])), {"audio": 99}).values.tolist()
    [[3, 40], [5, 0], [5, 99]]
    """
    if longest is None:
        return lengths
    row = [longest.get(name, maximum) for name, maximum in lengths.maxima.items()]
    return LengthTable(lengths.modalities, np.vstack([lengths.values, row]))


def within_longest(lengths: LengthTable, longest: Mapping[str, int] | None, long_samples: LongSamples) -> LengthTable:
    """Return lengths of the first samples as they are planned for: none is longer than the longest that may come.

    Args:
        lengths: of the first samples.
        longest: the longest that may come, per modality.
        long_samples: what to do with samples that are longer.

    Raises:
        LengthError: another modality, or no length.
        UncoveredLengthError: one of the first samples is longer, and that is to be an error, or all are, and are to be
            left out.

    >>> table = LengthTable(("text",), np.array([[3], [90]]))
    >>> [within_longest(table, {"text": 50}, what).values.ravel().tolist() for what in ("truncate", "drop")]
    [[3, 50], [3]]
    """
    check_long_samples(long_samples)
    limits = np.full(len(lengths.modalities), np.iinfo(np.int64).max)
    for name, limit in (longest or {}).items():
        if name not in lengths.modalities:
            raise LengthError(f"got longest[{name!r}]; the modalities are {list(lengths.modalities)}")
        check_whole(f"longest[{name!r}]", limit, 0, LengthError)
        limits[lengths.modalities.index(name)] = limit
    longer = lengths.values > limits
    if not longer.any():
        return lengths
    number, column = np.argwhere(longer)[0].tolist()
    kept = ~longer.any(axis=1)
    if long_samples == "truncate":
        return LengthTable(lengths.modalities, np.minimum(lengths.values, limits))
    if long_samples == "drop" and kept.any():
        return LengthTable(lengths.modalities, lengths.values[kept])
    name = lengths.modalities[column]
    raise UncoveredLengthError(
        f"sample {number} of the stream: {name!r} has {lengths.values[number, column]} positions and "
        f"longest[{name!r}] is {limits[column]}; give the length that none will exceed, or long_samples="
        + ('"truncate" (all of the first samples are longer)' if long_samples == "drop" else '"truncate" or "drop"')
    )
