"""Columns of Arrow tables as NumPy arrays, a row at a time, and their lengths without reading a value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import SampleError, SourceError


class Column(NamedTuple):
    """What a column holds in each row.

    Attributes:
        name: of the column.
        depth: lists within lists: 0 for a number, 1 for a list of numbers, 2 for a list of vectors.
        dtype: of the arrays: float32 for floats, int32 for wide whole numbers, others as they are.
        inner: the shape of one position, ``depth - 1`` numbers; None where that is not known yet.
    """

    name: str
    depth: int
    dtype: np.dtype
    inner: tuple[int, ...] | None = None

    def empty(self) -> np.ndarray:
        """An array without positions: what a row has whose value is None."""
        return np.zeros((0, *self.known_inner), self.dtype)

    @property
    def known_inner(self) -> tuple[int, ...]:
        """The shape of one position, zeros where no row has said it."""
        return (0,) * max(self.depth - 1, 0) if self.inner is None else self.inner


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """What a dtype becomes: what JAX computes with unless it is told otherwise."""
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(np.int32) if dtype.kind in "iu" and dtype.itemsize > 2 else dtype


def column_of(name: str, kind: Any) -> Column:
    """What a column of an Arrow type holds.

    Raises:
        SourceError: it holds text, or something else than numbers and lists of numbers.
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


def list_lengths(column: Any) -> np.ndarray:
    """``(N,)`` int64: how long the list of each row of a chunked column is; 0 where it is None."""
    return np.concatenate([np.zeros(0, np.int64), *(_value_lengths(storage(chunk), 0) for chunk in column.chunks)])


def _value_lengths(lists: Any, none: int) -> np.ndarray:
    """How long each list of an Arrow array is, int64, with another number where it is None."""
    from pyarrow import compute

    functions: Any = compute  # made when it is imported, so that type checkers don't know them
    return functions.fill_null(functions.list_value_length(lists).cast("int64"), none).to_numpy(zero_copy_only=False)


def storage(chunk: Any) -> Any:
    """The array without the extension type that tells readers more about it."""
    while hasattr(chunk, "storage"):
        chunk = chunk.storage
    return chunk


def row_array(cells: Any, column: Column, row: int) -> np.ndarray:
    """The value of the first of some cells as an array ``(length, *inner)``, or a number of rank 0.

    Args:
        cells: an Arrow array, or a chunked one.
        column: what it holds.
        row: its number, for errors.

    Raises:
        SampleError: a number within it is None, its lists are of unequal lengths, or its vectors have another width
            than those of other rows.
    """
    chunks = [chunk for chunk in getattr(cells, "chunks", [cells]) if len(chunk)]
    cells = storage(chunks[0])[:1]
    if cells.null_count:
        if not column.depth:
            raise SampleError(f"row {row}, column {column.name!r}: it is None; leave such rows out (dataset.filter)")
        return column.empty()
    shape: list[int] = []
    for level in range(column.depth):
        widths = np.unique(_value_lengths(cells, -1)).tolist()
        if not any(widths):  # no position, or no number in any
            return column.empty() if not level else np.zeros((shape[0], *column.known_inner), column.dtype)
        if len(widths) > 1 or widths[0] < 0:
            what = "None" if widths[0] < 0 else f"lists of {widths} numbers"
            raise SampleError(
                f"row {row}, column {column.name!r}: got {what} among its positions; give each as many numbers as the "
                "others"
            )
        shape += widths
        cells = cells.flatten()
    if cells.null_count:
        raise SampleError(f"row {row}, column {column.name!r}: a number is None; put a number there (dataset.map)")
    array = cells.to_numpy(zero_copy_only=False).reshape(shape)
    check_inner(array.shape[1:], column, row)
    return as_plain(array, column, row)


def check_inner(inner: tuple[int, ...], column: Column, row: int) -> None:
    """Raise a SampleError where the positions of a row have another shape than those of other rows."""
    if column.depth and column.inner is not None and inner != column.inner:
        raise SampleError(
            f"row {row}, column {column.name!r}: got positions of shape {inner}, and other rows have {column.inner}; "
            "give all rows vectors of the same width"
        )


def as_plain(array: np.ndarray, column: Column, row: int) -> np.ndarray:
    """The array in the column's dtype.

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
            f"{column.dtype} holds"
        )
    return cast
