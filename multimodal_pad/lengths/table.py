"""The length table: how many positions each sample has in each modality."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from multimodal_pad.errors import LengthError
from multimodal_pad.lengths.samples import (
    LARGEST,
    Source,
    check_indexable,
    check_names,
    check_same_modalities,
    modality_array,
    modality_names,
    read_sample,
)

LONGEST = LARGEST
"""The longest length allowed; a longer one is damage."""

_BLOCK = 2**18  # samples: arrays of so many stay in the cache


@dataclass(frozen=True, eq=False, repr=False)
class LengthTable:
    """Lengths of N samples in M named modalities.

    Attributes:
        modalities: the M names, in the order of the columns.
        values: int64 array ``(N, M)``, read-only; positions (tokens, frames), 0 = missing. An int64 array that is
            read-only already is taken as it is, so that a memory-mapped file stays one; others are copied.

    Raises:
        LengthError: no samples, no modalities, a column count that does not match the names, a
            repeated name, or a length that is negative or not a whole number.

    >>> table = LengthTable(("text", "audio"), np.array([[3, 40], [5, 0]]))
    >>> len(table), table.maxima
    (2, {'text': 5, 'audio': 40})
    """

    modalities: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        names = check_names(self.modalities)
        values = np.asarray(self.values)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise LengthError(
                f"got a length table of shape {values.shape} for {len(names)} modalities "
                f"{list(names)}; it must be (samples, {len(names)}), one column per modality"
            )
        if not len(values):
            raise LengthError("got no samples; a length table needs at least one row")
        object.__setattr__(self, "modalities", names)
        object.__setattr__(self, "values", _whole_lengths(names, values))

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> LengthTable:
        """Make a table from one sequence of N lengths per modality.

        >>> LengthTable.from_columns({"text": [3, 5], "audio": [40, 0]}).values.tolist()
        [[3, 40], [5, 0]]
        """
        stacked = [_as_column(name, column) for name, column in columns.items()]
        sizes = {name: len(column) for name, column in zip(columns, stacked, strict=True)}
        if len(set(sizes.values())) > 1:
            raise LengthError(f"got columns of {sizes} lengths; the columns must have one length per sample each")
        return cls(tuple(columns), np.stack(stacked, axis=1) if stacked else np.empty((0, 0)))

    @classmethod
    def measure(cls, source: Source, modalities: Sequence[str] | None = None) -> LengthTable:
        """Read every sample of ``source`` once, or take its own ``lengths`` where it has them.

        Args:
            source: indexable samples.
            modalities: which modalities, in which order; by default every key of the first
                sample that is no key of targets.

        Raises:
            LengthError: there are no samples, or something without ``len()`` and ``[i]``, or without end.
            SampleError: a sample lacks a modality, holds a scalar for it, or has one that the first
                sample lacks while ``modalities`` is not given.
        """
        known = getattr(source, "lengths", None)
        if isinstance(known, cls):
            return known if modalities is None else known.select(modalities)
        count = check_indexable(source)
        if not count:
            raise LengthError("got no samples; give at least one")
        names = check_names(modality_names(read_sample(source, 0)) if modalities is None else modalities)
        rows = np.empty((count, len(names)), np.int64)
        for index in range(count):
            sample = read_sample(source, index)
            if modalities is None:
                check_same_modalities(sample, names, index)
            rows[index] = [len(modality_array(sample, name, index)) for name in names]
        return cls(names, rows)

    def select(self, modalities: Sequence[str]) -> LengthTable:
        """Return the same samples with the columns named, in the order named.

        Raises:
            LengthError: a name that the table does not have.
        """
        if tuple(modalities) == self.modalities:
            return self
        absent = [name for name in modalities if name not in self.modalities]
        if absent:
            raise LengthError(
                f"the length table has the modalities {list(self.modalities)}, not {absent}; "
                "name the same modalities in the table and in the policy"
            )
        columns = [self.modalities.index(name) for name in modalities]
        return LengthTable(tuple(modalities), self.values[:, columns])

    @property
    def maxima(self) -> dict[str, int]:
        """The longest length of each modality."""
        return dict(zip(self.modalities, self.longest().tolist(), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names and the lengths, in their order: equal where a schedule would be.

        >>> LengthTable(("text",), np.array([[3], [5]])).fingerprint[:8]
        'a1d234be'
        """
        digest = hashlib.sha256(json.dumps([self.modalities, self.values.shape]).encode())
        for _, block in self.blocks():
            digest.update(np.ascontiguousarray(block, "<i8").data)
        return digest.hexdigest()

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield blocks of the table, or of these rows of it: the place of the block's first row, and its lengths.

        A computation over a large table then takes the memory of a block, not of the table.
        """
        for start in range(0, len(self) if rows is None else len(rows), _BLOCK):
            yield (
                start,
                self.values[start : start + _BLOCK] if rows is None else self.values[rows[start : start + _BLOCK]],
            )

    def longest(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the longest length of each modality, ``(M,)``, of all samples or of these rows."""
        return np.max([block.max(axis=0) for _, block in self.blocks(rows)], axis=0)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        longest = ", ".join(f"{name} up to {length:,}" for name, length in self.maxima.items())
        return f"LengthTable({len(self):,} {'sample' if len(self) == 1 else 'samples'}: {longest})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a table in a memory-mapped file by its path, so that another process maps it and copies nothing."""
        mapped = self.values if isinstance(self.values, np.memmap) else self.values.base
        if isinstance(mapped, np.memmap) and mapped.filename and mapped.shape == self.values.shape:
            order = "C" if mapped.flags.c_contiguous else "F"
            return _open_mapped, (self.modalities, str(mapped.filename), mapped.offset, mapped.shape, order)
        return LengthTable, (self.modalities, self.values)


Lengths = LengthTable | Mapping[str, Any] | Source
"""All that lengths are taken from: a length table, ``{modality: N lengths}``, or samples to measure."""


def as_lengths(lengths: Lengths) -> LengthTable:
    """Return the length table given, or make one of columns, or of samples, each of which is read once.

    Raises:
        LengthError: it is none of them, or has no samples.
        SampleError: a sample that is measured does not fit the others.

    >>> as_lengths({"text": [3, 5]}), as_lengths([{"text": [7, 8, 9]}])
    (LengthTable(2 samples: text up to 5), LengthTable(1 sample: text up to 3))
    """
    if isinstance(lengths, LengthTable):
        return lengths
    if isinstance(lengths, Mapping):
        return LengthTable.from_columns(lengths)
    indexed = hasattr(lengths, "__len__") and hasattr(lengths, "__getitem__") and not isinstance(lengths, str)
    if not indexed and not isinstance(getattr(lengths, "lengths", None), LengthTable):
        raise LengthError(
            f"got {type(lengths).__name__} for the lengths; give a LengthTable, a dict of columns such as "
            '{"text": [3, 5]}, or samples with len() and [i], such as a list (a stream is planned by '
            "StreamBatcher.planned)"
        )
    if isinstance(lengths, list | tuple | np.ndarray) and len(lengths) and _is_numbers(lengths[0]):
        raise LengthError(
            f"got a {type(lengths).__name__} of numbers for the lengths, which don't say of which modality they are; "
            'give a dict of columns, such as {"text": [3, 5], "audio": [40, 80]}, or LengthTable(("text", "audio"), '
            "[[3, 40], [5, 80]])"
        )
    return LengthTable.measure(lengths)


def _is_numbers(first: Any) -> bool:
    """Return whether what should be a sample is a length, or a row of lengths, or a dict of them."""
    if isinstance(first, Mapping):
        return bool(first) and all(isinstance(one, int | np.integer) for one in first.values())
    is_row = isinstance(first, list | tuple) or (isinstance(first, np.ndarray) and first.ndim == 1)
    row = list(first) if is_row else [first]
    return bool(row) and all(isinstance(one, int | float | np.number) for one in row)


def _as_column(name: str, column: Any) -> np.ndarray:
    """One modality's lengths as an array, ``(N,)``."""
    try:
        array = np.asarray(column)
    except ValueError:  # lists of unequal lengths
        array = np.empty((0, 0))
    if isinstance(column, np.ma.MaskedArray) and np.ma.count_masked(column):
        raise LengthError(
            f"the column of {name!r} has masked values; give 0 where the modality is missing (x.filled(0))"
        )
    if array.ndim != 1:
        raise LengthError(
            f"the column of {name!r} is no sequence of one number for each sample; give their lengths, such as "
            "[len(x) for x in ...], or the samples themselves"
        )
    return array


def _open_mapped(
    modalities: tuple[str, ...], path: str, offset: int, shape: tuple[int, ...], order: Literal["C", "F"]
) -> LengthTable:
    return LengthTable(modalities, np.memmap(path, np.int64, "r", offset, shape, order))


def _whole_lengths(names: tuple[str, ...], values: np.ndarray) -> np.ndarray:
    """Return the lengths as a read-only int64 array, or a LengthError that names the first bad one."""
    if values.dtype.kind not in "iuf":
        raise LengthError(f"got lengths of dtype {values.dtype}; lengths are whole numbers of positions")
    if values.dtype == np.float16:  # which has no number as large as the longest length
        values = values.astype(np.float32)
    for start in range(0, len(values), _BLOCK):
        _check_lengths(names, values[start : start + _BLOCK], start)
    whole = values.astype(np.int64, copy=values.flags.writeable)
    whole.flags.writeable = False
    return whole


def _check_lengths(names: tuple[str, ...], values: np.ndarray, start: int) -> None:
    bad = (values < 0) | (values > LONGEST)
    if values.dtype.kind == "f":
        bad |= ~np.isfinite(values) | (values != np.trunc(values))
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise LengthError(
            f"sample {start + row}, {names[column]!r}: got the length {values[row, column]}; lengths are "
            f"whole numbers of positions, 0 (missing) to {LONGEST:,}"
        )
