"""Columns of Arrow tables as NumPy arrays, a row at a time, and their lengths without reading a value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import SampleError, SourceError


class Column(NamedTuple):
    """The contents of a column, alike in each row.

    Attributes:
        name: of the column.
        depth: lists within lists: 0 for a number, 1 for a list of numbers, 2 for a list of vectors.
        dtype: of the arrays: float32 for floats, int32 for wide whole numbers, others as they are.
        inner: the shape of one position, ``depth - 1`` numbers; None as long as no row has shown it.
    """

    name: str
    depth: int
    dtype: np.dtype
    inner: tuple[int, ...] | None = None

    def empty(self) -> np.ndarray:
        """Return an array without positions, for a row whose value is None."""
        return np.zeros((0, *self.known_inner), self.dtype)

    @property
    def known_inner(self) -> tuple[int, ...]:
        """The shape of one position, zeros as long as no row has shown it."""
        return (0,) * max(self.depth - 1, 0) if self.inner is None else self.inner


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype that JAX computes with by default for values of a dtype."""
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(np.int32) if dtype.kind in "iu" and dtype.itemsize > 2 else dtype


def column_of(name: str, kind: Any) -> Column:
    """Describe a column of an Arrow type.

    Raises:
        SourceError: it holds text, or something other than numbers and lists of numbers.
    """
    import pyarrow as pa

    given, inner, depth = kind, [], 0
    while not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_fixed_size_list(kind):
            inner.append(kind.list_size)
            kind, depth = kind.value_type, depth + 1
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            inner.append(None)
            kind, depth = kind.value_type, depth + 1
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            raise SourceError(
                f"the column {name!r} holds text; tokenise it first, such as with dataset.map(lambda row: "
                f"tokenizer(row[{name!r}])), and name the column of ids (labels: dataset.class_encode_column({name!r}))"
            )
        else:
            raise SourceError(
                f"the column {name!r} holds {given}; take a column of numbers or of lists of numbers, which "
                "dataset.map makes of others, such as features of sound or images"
            )
    dtype = plain_dtype(np.dtype(kind.to_pandas_dtype()))
    return Column(name, depth, dtype, None if None in inner[1:] else tuple(inner[1:]))


class ArrowColumn:
    """A column of an Arrow table, whose rows are views of its buffers where these hold the rows' dtype.

    Args:
        chunks: the column, as a chunked array.
        column: its description.
    """

    def __init__(self, chunks: Any, column: Column) -> None:
        self.column = column
        self._chunks = [_storage(chunk) for chunk in chunks.chunks]
        self._starts = np.cumsum([0, *map(len, self._chunks)])
        self._opened: dict[int, tuple[list[_Lists], Any]] = {}

    def lengths(self) -> np.ndarray:
        """Return ``(N,)`` int64: how long the list of each row is, from its offsets; 0 where it is None."""
        from pyarrow import compute

        functions: Any = compute  # generated on import, so type checkers don't find them
        parts = [functions.list_value_length(chunk).cast("int64") for chunk in self._chunks]
        found = [functions.fill_null(part, 0).to_numpy(zero_copy_only=False) for part in parts]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def array(self, place: int, row: int) -> np.ndarray:
        """Return the value of a row as an array ``(length, *inner)``, or a number of rank 0.

        Args:
            place: of the row in the table.
            row: its number, for errors.

        Raises:
            SampleError: a number within it is None, its vectors are of unequal widths, or of another than those of
                other rows; or a whole number does not fit the column's dtype.
        """
        column, number = self.column, int(np.searchsorted(self._starts, place, "right")) - 1
        start = place - int(self._starts[number])
        lists, leaf = self._levels(number)
        if self._chunks[number].null_count and not self._chunks[number][start].is_valid:
            if not column.depth:
                raise SampleError(
                    f"row {row}, column {column.name!r}: it is None; leave such rows out (dataset.filter)"
                )
            return column.empty()
        stop, shape = start + 1, []
        for level, one in enumerate(lists):
            start, stop, widths = one.inside(start, stop)
            if not any(widths):  # no position, or no number in any
                return column.empty() if not level else np.zeros((shape[0], *column.known_inner), column.dtype)
            if len(widths) > 1:
                what = "None" if None in widths else f"lists of {widths} numbers"
                raise SampleError(
                    f"row {row}, column {column.name!r}: got {what} among its positions; give each as many numbers as "
                    "the others"
                )
            shape.append(widths[0])
        cells = leaf[start:stop]
        if cells.null_count:
            raise SampleError(f"row {row}, column {column.name!r}: a number is None; put a number there (dataset.map)")
        array = cells.to_numpy(zero_copy_only=False).reshape(shape)
        check_inner(array.shape[1:], column, row)
        return as_plain(array, column, row)

    def _levels(self, number: int) -> tuple[list[_Lists], Any]:
        """Return the lists of a chunk from the outside in, and the numbers within."""
        if number not in self._opened:
            array, lists = self._chunks[number], []
            for _ in range(self.column.depth):
                lists.append(_Lists(array, array.offsets.to_numpy() if hasattr(array, "offsets") else None))
                array = array.values
            self._opened[number] = lists, array
        return self._opened[number]


class _Lists(NamedTuple):
    """An array of lists; offsets where these may be of unequal lengths."""

    array: Any
    offsets: np.ndarray | None

    def inside(self, start: int, stop: int) -> tuple[int, int, list[int | None]]:
        """Return the range of these lists' items among the values, and the different lengths of the lists."""
        if self.offsets is None:
            size, first = self.array.type.list_size, self.array.offset
            start, stop, found = (first + start) * size, (first + stop) * size, [size] * (stop > start)
            return start, stop, found if not self._none(start // size - first, stop // size - first) else [*found, None]
        edges = self.offsets[start : stop + 1]
        found: list[int | None] = np.unique(np.diff(edges)).tolist()
        return int(edges[0]), int(edges[-1]), [*found, None] if self._none(start, stop) else found

    def _none(self, start: int, stop: int) -> bool:
        """Return whether one of the lists is None."""
        return bool(self.array.null_count and self.array[start:stop].null_count)


def _storage(chunk: Any) -> Any:
    """Return the array without an extension type around its storage."""
    while hasattr(chunk, "storage"):
        chunk = chunk.storage
    return chunk


def check_inner(inner: tuple[int, ...], column: Column, row: int) -> None:
    """Raise a SampleError where the positions of a row differ in shape from those of other rows."""
    if column.depth and column.inner is not None and inner != column.inner:
        raise SampleError(
            f"row {row}, column {column.name!r}: got positions of shape {inner}, and other rows have {column.inner}; "
            "give all rows vectors of the same width"
        )


def as_plain(array: np.ndarray, column: Column, row: int) -> np.ndarray:
    """Cast the array to the column's dtype.

    Raises:
        SampleError: a whole number does not fit it.
    """
    if array.dtype == column.dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(column.dtype)
    if column.dtype.kind in "iu" and (cast != array).any():
        raise SampleError(
            f"row {row}, column {column.name!r}: {array[cast != array].flat[0]} is no whole number that "
            f"{column.dtype} holds; leave the row out (dataset.filter), or cast the column"
        )
    return cast
