"""Tables of samples: a row for each, with its id, split, targets and other fields, from files of all usual kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.delimited import DelimitedFile
from multimodal_pad.errors import SourceError
from multimodal_pad.json_lines import is_json_lines, read_json_lines, value_at
from multimodal_pad.reading import some
from multimodal_pad.sources.pickles import read_archive

NO_LABEL = -10
"""MERTools' entry for a sample without a label of a kind."""

SPLIT = "split"
"""The default field of the split."""

_KINDS = ".csv, .tsv, .txt, .jsonl, .json, .npz"
_CORPUS = "_corpus"
_FIELD = re.compile(r"\{([^{}]+)\}")


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        path: the file.
        place: the line or the key in it.
        values: by field.
    """

    path: Path
    place: str
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """The file and the place in it, for errors."""
        return f"{self.path}, {self.place}"

    def value(self, field: str) -> Any:
        """Return the value of a field, or of one inside of it, as in ``"recording.duration"``; raises a SourceError."""
        return value_at(self.values, field, self.where)

    def text(self, field: str) -> str:
        """Return the text of a field, or the number in it, as text.

        Raises:
            SourceError: there is no such field, or nothing in it, or neither text nor a whole number.
        """
        value = self.value(field)
        plain = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not (plain or (isinstance(value, str) and value.strip())):
            raise SourceError(f"{self.where}, {field!r}: got {value!r:.80}; it must be text or a whole number")
        return value.strip() if isinstance(value, str) else str(value)

    def filled(self, form: str) -> str:
        """Fill a form such as ``"dia{Dialogue_ID}_utt{Utterance_ID}"`` with the text of the fields."""
        return _FIELD.sub(lambda found: self.text(found[1]), form)


def read_rows(root: Path, table: str) -> list[Row]:
    """Read the rows of a table, or of all tables of a name with ``{split}`` in it, one for each split.

    Args:
        root: the folder.
        table: the file in it: text with a line of column names (``.csv``, ``.tsv``, ``.txt``), JSON lines (``.jsonl``,
            ``.json``, ``.gz`` after it or not), or ``.npz``: an array per column, or as MERTools has them, a dict
            ``{id: {label: value}}`` per split, which is called ``train_corpus`` and so on; their ids are in the field
            ``name``.

    Raises:
        SourceError: no such file, one of another kind, one that is damaged, or no rows.
        OSError: it cannot be read.
    """
    rows = [row for split, path in _tables(root, table).items() for row in _read(path, split)]
    if not rows:
        raise SourceError(f"{root / table}: has no rows; give a row for each sample")
    return rows


def _tables(root: Path, table: str) -> dict[str | None, Path]:
    before, field, after = table.partition(f"{{{SPLIT}}}")
    if not field:
        if not (root / table).exists():
            raise SourceError(f"{root / table}: no such file; name the table of the samples")
        return {None: root / table}
    folder = root / Path(before + "x").parent
    start, end = Path(before + "x").name[:-1], after
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found: dict[str | None, Path] = {
        name[len(start) : len(name) - len(end)]: folder / name
        for name in names
        if len(name) > len(start) + len(end) and name.startswith(start) and name.endswith(end)
    }
    if not found:
        raise SourceError(f"{root / table}: no such files; name the tables of the splits")
    return found


def _read(path: Path, split: str | None) -> Iterator[Row]:
    suffix = path.suffix.lower()
    given = {} if split is None else {SPLIT: split}
    if is_json_lines(path):
        for line, record in read_json_lines(path):
            yield Row(path, f"line {line}", {**record, **given})
    elif suffix in (".csv", ".tsv", ".txt"):
        for line, values in DelimitedFile(path).rows():
            yield Row(path, f"line {line}", {**values, **given})
    elif suffix == ".npz":
        for place, values in _read_npz(path):
            yield Row(path, place, {**values, **given})
    else:
        raise SourceError(f"{path}: got a file of kind {path.suffix!r}; a table of samples is one of {_KINDS}")


def _read_npz(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    arrays = read_archive(path)
    if any(array.ndim == 0 for array in arrays.values()):
        for key, array in arrays.items():
            yield from _corpus(array, path, key)
        return
    sizes = {key: len(array) for key, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise SourceError(f"{path}: has columns of different lengths: {sizes}; give a value for each sample")
    for index, values in enumerate(zip(*(array.tolist() for array in arrays.values()), strict=True)):
        yield f"row {index}", dict(zip(arrays, map(_decoded, values), strict=True))


def _corpus(array: np.ndarray, path: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of ``{id: {label: value}}``, or ``{id: label}``."""
    corpus = array.item() if array.ndim == 0 else None
    if not isinstance(corpus, dict):
        raise SourceError(f"{path}, {key!r}: is no dict {{id: {{label: value}}}}, as MERTools has one for each split")
    for name, labels in corpus.items():
        values = labels if isinstance(labels, dict) else {"label": labels}
        plain = {str(_decoded(label)): None if _is_no_label(x) else _decoded(x) for label, x in values.items()}
        yield f"{key!r}, {name!r:.80}", {**plain, "name": _decoded(name), SPLIT: key.removesuffix(_CORPUS)}


def _is_no_label(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and value == NO_LABEL


def _decoded(value: Any) -> Any:
    """Decode a value that is bytes, as in Python 2 and arrays of bytes, to text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def find_ids(rows: Sequence[Row], ids: str | None) -> list[str]:
    """Return the id of each row: of a field, or of a form with fields in braces; of ``id`` or ``name`` by default.

    Raises:
        SourceError: there is no such field, or both, or a row has no value there.
    """
    if ids is None:
        there = [field for field in ("id", "name") if field in rows[0].values]
        if len(there) != 1:
            raise SourceError(
                f"{rows[0].where}: has {'both' if there else 'neither'} 'id' {'and' if there else 'nor'} 'name'; say "
                f"which field holds the ids with ids=... (--ids): {some(rows[0].values)}"
            )
        ids = there[0]
    return [row.filled(ids) if _FIELD.search(ids) else row.text(ids) for row in rows]


def targets_of(
    rows: Sequence[Row], chosen: Sequence[int], names: Sequence[str], classes: Sequence[str] | None
) -> tuple[np.ndarray, list[str] | None]:
    """Return the targets of some rows, and the classes where they are numbers of classes.

    The kind of a column follows from all rows, so that it is the same in every split: whole numbers, other numbers, or
    names of classes, which are numbered in the order of ``classes``, by default that of the alphabet.

    Args:
        rows: of the table.
        chosen: the rows whose targets are wanted.
        names: of the columns: of one, targets are its values; of several, ``(K,)``.
        classes: names of the classes, in order.

    Returns:
        An array of a row each, float64 or int64; and the names of the classes, or None.

    Raises:
        SourceError: a column that is not there, a row without a target, or one that is neither number nor class.
    """
    columns, known = [], None
    for name in names:
        values = [row.value(name) for row in rows]
        numbers = None if classes is not None else _numbers(rows, name, values)
        for index in chosen:
            if _is_missing(values[index]):
                raise SourceError(
                    f"{rows[index].where}: has no {name!r}; choose targets that every sample has, or none, or take the "
                    "sample out"
                )
        if numbers is None:
            if len(names) > 1:
                raise SourceError(
                    f"{rows[0].where}: {name!r} holds names of classes; targets of several columns {list(names)} are "
                    "numbers"
                )
            known = list(classes or sorted({str(value).strip() for value in values if not _is_missing(value)}))
            numbers = _classes(rows, chosen, name, values, known)
        columns.append(_stacked(rows, chosen, name, numbers))
    return columns[0] if len(names) == 1 else np.stack(columns, axis=1), known


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _numbers(rows: Sequence[Row], name: str, values: list[Any]) -> list[Any] | None:
    """Return the values as numbers, None where there is none; or None where they are names of classes."""
    texts = [index for index, value in enumerate(values) if isinstance(value, str) and value.strip()]
    if not texts:
        return values
    parsed = [_parsed(value) if isinstance(value, str) else value for value in values]
    odd = [index for index in texts if parsed[index] is None]
    if len(odd) == len([value for value in values if not _is_missing(value)]):
        return None
    if odd:
        raise SourceError(
            f"{rows[odd[0]].where}, {name!r}: got {values[odd[0]]!r:.80}, where other rows have numbers; mend it, "
            "leave it empty where there is no label, or name all with classes=[...] (--classes)"
        )
    return parsed


def _parsed(text: str) -> int | float | None:
    """Parse a text as a number; None where it is none."""
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _classes(
    rows: Sequence[Row], chosen: Sequence[int], name: str, values: list[Any], known: list[str]
) -> list[int | None]:
    order = {label: number for number, label in enumerate(known)}
    numbers = [None if _is_missing(value) else order.get(str(value).strip()) for value in values]
    for index in chosen:
        if numbers[index] is None:
            raise SourceError(
                f"{rows[index].where}, {name!r}: got {values[index]!r:.80}, which is none of the classes {some(known)}"
            )
    return numbers


def _stacked(rows: Sequence[Row], chosen: Sequence[int], name: str, values: Sequence[Any]) -> np.ndarray:
    """Return the chosen values as an array; whole numbers where all values of the table are."""
    first: tuple[int, ...] | None = None
    found = []
    for index in chosen:
        try:
            array = np.asarray(values[index])
        except ValueError:
            array = np.empty((), object)
        if array.dtype.kind not in "biuf" or (first is not None and array.shape != first):
            raise SourceError(
                f"{rows[index].where}, {name!r}: got {values[index]!r:.80}; a target is a number, or a list of as many "
                "numbers as the others have"
            )
        first = array.shape
        found.append(array)
    whole = all(_is_whole(value) for value in values if not _is_missing(value))
    stacked = np.stack(found)
    return stacked if whole else stacked.astype(np.float64)


def _is_whole(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_whole, value))
    return isinstance(value, int | np.integer | np.bool_)
