"""The choice of columns of labels as targets: by number, by name, or a range of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError

LabelColumn = int | str | slice | range
"""One column by number, from 0, or by name; or a range of them."""

LabelColumns = LabelColumn | Sequence[LabelColumn] | None
"""One column, whose targets are scalars; several, whose targets are ``(K,)``; or None, for no targets."""

ALL_COLUMNS = slice(None)
"""All columns; where there is a single one, targets are scalars."""

WITHOUT_LABELS = "label_column=None (--unlabeled SPLIT)"
"""The way to read a blind test set, for errors."""


def select_labels(labels: np.ndarray, chosen: LabelColumns, where: str, names: Sequence[str] = ()) -> np.ndarray | None:
    """Select columns of labels, as targets of samples.

    Args:
        labels: ``(N, K)``; or ``(N,)``, one column; axes of size 1 beside these don't count, as in ``(N, 1, 1)``.
        chosen: which columns.
        where: the file and the key, for errors.
        names: of the K columns, where they have any.

    Returns:
        ``(N,)`` for one column by number or name, or where ``chosen`` is :data:`ALL_COLUMNS` of one; else ``(N, k)``,
        in the order in which they are chosen. None where ``chosen`` is None.

    Raises:
        PaddingError: ``chosen`` is neither numbers, names nor ranges, or no column, or one twice.
        SourceError: labels of another shape, or all NaN, or a column that is not there.

    >>> labels = np.array([[0.5, 1, 0], [-1.0, 0, 1]])
    >>> select_labels(labels, 0, "labels.csd").tolist(), select_labels(labels, slice(1, 3), "labels.csd").tolist()
    ([0.5, -1.0], [[1.0, 0.0], [0.0, 1.0]])
    >>> select_labels(labels, ["sad", "sentiment"], "labels.csd", ["sentiment", "happy", "sad"]).tolist()
    [[0.0, 0.5], [1.0, -1.0]]
    """
    check_label_columns(chosen)
    if chosen is None:
        return None
    columns = as_columns(labels, where)
    found = columns[:, find_columns(chosen, columns.shape[1], where, names)]
    if found.dtype.kind == "f" and len(found) and np.isnan(found).all():
        raise SourceError(f"{where}: all labels are NaN; a split without labels is read with {WITHOUT_LABELS}")
    return found


def as_columns(labels: np.ndarray, where: str) -> np.ndarray:
    """Return labels ``(N,)``, ``(N, K)``, ``(N, 1, K)`` and so on as ``(N, K)``.

    Raises:
        SourceError: they have several axes beside the first.
    """
    sizes = [size for size in labels.shape[1:] if size != 1]
    if not labels.ndim or len(sizes) > 1:
        raise SourceError(f"{where}: has the shape {labels.shape}; labels are (samples,) or (samples, columns)")
    return labels.reshape(len(labels), *(sizes or [1]))


def find_columns(chosen: LabelColumns, width: int, where: str, names: Sequence[str] = ()) -> int | list[int]:
    """Return the numbers of chosen columns of ``width``: one, or a list of them.

    Raises:
        PaddingError: as :func:`select_labels`.
        SourceError: a column that is not there.
    """
    check_label_columns(chosen)
    if not width:
        raise SourceError(f"{where}: has no columns of labels; take None for no targets")
    if chosen == ALL_COLUMNS:
        return 0 if width == 1 else list(range(width))
    if isinstance(chosen, int | np.integer | str):
        return _numbers(chosen, width, where, names)[0]
    items = [chosen] if isinstance(chosen, slice | range) else chosen or ()
    found = [number for item in items for number in _numbers(item, width, where, names)]
    if not found or len(set(found)) < len(found):
        raise PaddingError(f"got label_column={chosen!r}, which are the columns {found}; name at least one, each once")
    return found


def check_label_columns(chosen: Any) -> None:
    """Raise a PaddingError where it names no columns; whether they exist is checked later."""
    if chosen is None:
        return
    for item in chosen if isinstance(chosen, list | tuple) else [chosen]:
        if isinstance(item, slice):
            bounds = [bound for bound in (item.start, item.stop, item.step) if bound is not None]
            good = all(map(_is_whole, bounds)) and item.step != 0
        else:
            good = isinstance(item, str | range) or _is_whole(item)
        if not good:
            raise PaddingError(
                f"got label_column={chosen!r}; give a number from 0, a name, a range such as slice(1, 7), a list of "
                "these, or None for no targets"
            )


def describe_label_columns(chosen: LabelColumns) -> Any:
    """Return the chosen columns as JSON has them, for the record of a corpus.

    >>> describe_label_columns([0, slice(4, 7), "fear"])
    [0, '4:7', 'fear']
    """
    if isinstance(chosen, list | tuple):
        return [describe_label_columns(item) for item in chosen]
    if isinstance(chosen, slice | range):
        step = "" if chosen.step in (None, 1) else f":{chosen.step}"
        return f"{'' if chosen.start is None else chosen.start}:{'' if chosen.stop is None else chosen.stop}{step}"
    return int(chosen) if isinstance(chosen, np.integer) else chosen


def parse_label_columns(words: Sequence[str]) -> LabelColumns:
    """Parse words of a command line: numbers, ranges such as ``1:7``, ``:`` for all, or names.

    >>> parse_label_columns(["0"]), parse_label_columns(["sentiment"]), parse_label_columns(["0", "4:7"])
    (0, 'sentiment', [0, slice(4, 7, None)])
    """
    found: list[LabelColumn] = []
    for word in words:
        bounds = re.fullmatch(r"(\d*):(\d*)", word)
        if bounds:
            found.append(slice(*(int(bound) if bound else None for bound in bounds.groups())))
        else:
            found.append(int(word) if word.isdecimal() else word)
    return found[0] if len(found) == 1 else found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _numbers(item: LabelColumn, width: int, where: str, names: Sequence[str]) -> list[int]:
    """Return the columns that one item names."""
    if isinstance(item, str):
        if item not in names:
            known = f"only {list(names)}" if names else f"and its columns no names; give numbers, from 0 to {width - 1}"
            raise SourceError(f"{where}: has no column of labels {item!r}, {known}")
        return [list(names).index(item)]
    if isinstance(item, slice):
        start, stop = item.start or 0, width if item.stop is None else item.stop
        numbers = range(start, stop, 1 if item.step is None else item.step)
    else:
        numbers = item if isinstance(item, range) else range(item, item + 1)
    outside = [number for number in (numbers[:1], numbers[-1:]) if number and not 0 <= number[0] < width]
    if outside:
        raise SourceError(
            f"{where}: has {width} columns of labels; got label_column={item!r}, and they are counted from 0 to "
            f"{width - 1}"
        )
    return list(numbers)
