"""Columns of a table as parts of a sample, and samples from rows of Python values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError, SourceError
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, check_names
from multimodal_pad.sources.arrow_columns import Column, as_plain, check_inner, plain_dtype

Named = str | Sequence[str] | Mapping[str, Any]
"""A column; several in a list, whose numbers become one array; or several by name, which become a dict of arrays."""


class SampleColumns(NamedTuple):
    """The column of each part of a sample."""

    modalities: dict[str, str]
    targets: Any
    position_targets: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Every column that is read, each once."""
        parts = [self.targets, *self.position_targets.values()]
        return list(dict.fromkeys([*self.modalities.values(), *(name for part in parts for name in columns_of(part))]))

    def sample(self, read: Callable[[str], np.ndarray]) -> dict[str, Any]:
        """Return the sample of a row, with the arrays of ``read(column)``."""
        sample: dict[str, Any] = {modality: read(column) for modality, column in self.modalities.items()}
        if self.targets is not None:
            sample[TARGETS] = _mapped(self.targets, read)
        if self.position_targets:
            sample[POSITION_TARGETS] = {m: _mapped(part, read) for m, part in self.position_targets.items()}
        return sample


class Rows:
    """Rows of Python values, lists or arrays, whose widths and dtypes follow from the first rows."""

    def __init__(self, parts: SampleColumns) -> None:
        self._parts, self.known = parts, {}
        self._lists = [
            *parts.modalities.values(),
            *(n for part in parts.position_targets.values() for n in columns_of(part)),
        ]

    def samples(self, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield the samples of rows, in order."""
        waiting: list[tuple[int, Any]] = []
        for number, row in enumerate(rows):
            self.look(row, number)
            waiting.append((number, row))
            if all(name in self.known for name in self._lists):
                yield from (self.sample(row, number) for number, row in waiting)
                waiting = []
        yield from (self.sample(row, number) for number, row in waiting)

    def look(self, row: Any, number: int) -> None:
        """Learn the kinds of columns from the first row with a position in them.

        Raises:
            SourceError: a column is not there, or of text.
            SampleError: it is no row, or holds something other than numbers.
        """
        if not isinstance(row, Mapping):
            raise SampleError(f"row {number} is no mapping but {type(row).__name__}; a row is {{column: value}}")
        check_there(self._parts.names, list(row))
        for name in self._parts.names:
            if (
                name not in self.known
                and not is_missing(row[name])
                and (name not in self._lists or length_of(row[name]))
            ):
                array = value_array(row[name], None, name, number, many=name in self._lists)
                self.known[name] = Column(name, array.ndim, array.dtype, array.shape[1:])

    def sample(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return the sample of a row, whose columns are of the kinds that :meth:`look` has found.

        Raises:
            SampleError: they are not; row and column are named.
            SourceError: there is text in it.
        """
        sample = self._parts.sample(
            lambda name: value_array(row[name], self.known.get(name), name, number, many=name in self._lists)
        )
        for modality, part in self._parts.position_targets.items():
            for name in columns_of(part):
                if length_of(row[name]) != len(sample[modality]):
                    raise SampleError(
                        f"row {number}: {name!r} has {length_of(row[name])} targets, and {modality!r} has "
                        f"{len(sample[modality])} positions; give one for each"
                    )
        return sample


def choose_columns(modalities: Any, targets: Any, position_targets: Any) -> SampleColumns:
    """Return the columns named for the parts of a sample.

    Raises:
        PaddingError: no modality, one twice, targets that name no columns, or position targets of a modality that is
            not there.
    """
    if not isinstance(modalities, Mapping):
        modalities = {name: name for name in check_names(modalities)}
    check_names(tuple(modalities))
    parts = SampleColumns(dict(modalities), targets, dict(position_targets or {}))
    for part in [targets, *parts.position_targets.values()]:
        _check_part(part)
    unknown = [name for name in parts.position_targets if name not in parts.modalities]
    if unknown:
        raise PaddingError(f"got position_targets for {unknown}; the modalities are {list(parts.modalities)}")
    return parts


def check_there(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise a SourceError where a column is not there."""
    absent = [name for name in names if name not in columns]
    if absent:
        raise SourceError(f"the dataset has no column {absent}, only {list(columns)}")


def columns_of(part: Any) -> list[str]:
    """Return the columns of a part of a sample."""
    if part is None or isinstance(part, str):
        return [] if part is None else [part]
    return [name for one in (part.values() if isinstance(part, Mapping) else part) for name in columns_of(one)]


def _check_part(part: Any) -> None:
    """Raise a PaddingError where a part of a sample names no columns."""
    if isinstance(part, Mapping):
        for one in part.values():
            _check_part(one)
    elif not (part is None or isinstance(part, str)) and not (
        isinstance(part, list | tuple) and part and all(isinstance(name, str) for name in part)
    ):
        raise PaddingError(
            f"got {part!r} for targets; give the name of a column, a list of names, or a dict of such by names"
        )


def _mapped(part: Any, read: Callable[[str], np.ndarray]) -> Any:
    """Return a part of a sample with arrays in the place of its columns."""
    if isinstance(part, str):
        return read(part)
    if isinstance(part, Mapping):
        return {key: _mapped(one, read) for key, one in part.items()}
    return stack_columns([read(name) for name in part], part)


def stack_columns(columns: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Stack values of several columns as one array, on a new last axis; float32 where one of them is a float.

    Raises:
        SampleError: they are of unequal shapes.

    >>> stack_columns([np.array(1, np.int32), np.array(0.5, np.float32)], ["happy", "valence"]).tolist()
    [1.0, 0.5]
    """
    shapes = [column.shape for column in columns]
    if len(set(shapes)) > 1:
        raise SampleError(f"the columns {list(names)} have the shapes {shapes}; give a dict of them, or all the same")
    stacked = np.stack(columns, axis=-1)
    return stacked.astype(np.float32) if stacked.dtype.kind == "f" else stacked


def length_of(value: Any) -> int:
    """Return the number of positions of a value."""
    return 0 if is_missing(value) else len(value) if hasattr(value, "__len__") else 1


def is_missing(value: Any) -> bool:
    """Return whether a value is None, or NaN, which ``datasets`` makes of None in rows that hold arrays."""
    return value is None or (isinstance(value, float) and value != value)


def value_array(value: Any, column: Column | None, name: str, row: int, *, many: bool) -> np.ndarray:
    """Return a value of a row as an array: of positions, where it is ``many``, or of targets.

    Raises:
        SampleError: it is no array of numbers, or not like those of other rows; row and column are named.
        SourceError: it is text.
    """
    if value is None or (many and length_of(value) == 0):
        if not many:
            raise SampleError(f"row {row}, column {name!r}: it is None; leave such rows out (dataset.filter)")
        return np.zeros((0,), np.float32) if column is None else column.empty()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise SampleError(
            f"row {row}, column {name!r}: its vectors are of unequal widths ({error}); give each position as many "
            "numbers as the others"
        ) from None
    if array.dtype.kind in "US":
        raise SourceError(f"the column {name!r} holds text; tokenise it first, such as with dataset.map")
    if array.dtype.kind not in "biuf" or (many and not array.ndim):
        raise SampleError(
            f"row {row}, column {name!r}: got {array.dtype} of shape {array.shape}; give a list of numbers, or of "
            "vectors of one width"
        )
    column = column or Column(name, array.ndim, plain_dtype(array.dtype), array.shape[1:])
    if many:
        check_inner(array.shape[1:], column, row)
    return as_plain(array, column, row)
