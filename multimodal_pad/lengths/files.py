"""Lengths from a file: CSV and the like, JSON lines, or NumPy's .npy and .npz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.delimited import DelimitedFile
from multimodal_pad.errors import LengthError, SourceError
from multimodal_pad.json_lines import is_json_lines, read_json_lines
from multimodal_pad.lengths.fields import lengths_of
from multimodal_pad.lengths.samples import check_names
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import file_size, read_npy, read_npz

TEXT_KINDS = (".csv", ".tsv")
JSON_KINDS = (".jsonl", ".jsonl.gz", ".json")
KINDS = (*TEXT_KINDS, ".npy", ".npz", *JSON_KINDS)
"""Files that lengths are read from."""


def read_lengths(
    path: str | Path,
    modalities: Sequence[str] | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> LengthTable:
    """Read the length table of a file: a row per sample, a column per modality, in positions.

    Args:
        path: a ``.csv`` or ``.tsv`` whose first line names the columns, as
            :class:`~multimodal_pad.delimited.DelimitedFile` reads it; a ``.npy`` of shape ``(N, M)`` or with named
            fields; a ``.npz`` with an array ``(N,)`` per modality; or JSON lines (``.jsonl``, ``.json``, ``.gz`` after
            it or not) with an object per sample, such as manifests of NeMo and Lhotse.
        modalities: which columns, in which order (all of them by default); for a plain ``.npy`` the
            names of its columns.
        fields: of text or JSON lines, how long each modality is by which column or field, as
            :class:`~multimodal_pad.lengths.fields.LengthField` reads it: ``"duration@50"`` for seconds at 50 positions
            per second, ``"supervisions.text:words"`` for text by its words.
        content: the bytes of a table of text, where they were read already, such as from a pipe; ``path`` is then what
            errors call it.

    Raises:
        SourceError: another kind of file, one that is damaged, a column that is missing, or a value that
            is no length; the file and the line are named.
        LengthError: a field that can't be read.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "manifest.json")
    ...     _ = path.write_text('{"audio_filepath": "a.wav", "duration": 3.13, "text": "oh my god"}\\n')
    ...     table = read_lengths(path, fields={"audio": "duration@50", "text": "text:words"})
    >>> table.maxima
    {'audio': 156, 'text': 3}
    """
    path = Path(path)
    suffix = path.suffix.lower() if content is None else TEXT_KINDS[0]
    lines = content is None and is_json_lines(path)
    if suffix not in KINDS and not lines:
        raise SourceError(
            f"{path}: got a file of kind {path.suffix!r}; lengths are read from {', '.join(KINDS)} (a corpus has them "
            "once multimodal-pad convert has made a flat cache of it)"
        )
    names = None if modalities is None else check_names(modalities)
    if fields is not None and not (lines or suffix in TEXT_KINDS):
        raise SourceError(
            f"{path}: got fields={dict(fields)}, and a {suffix} holds lengths as they are; leave them out"
        )
    if lines or fields is not None:
        columns = _read_records(path, names, fields, content)
    else:
        columns = _read_text(path, names, content) if suffix in TEXT_KINDS else _read_arrays(path, names)
    try:
        return LengthTable.from_columns(columns)
    except LengthError as error:
        raise SourceError(f"{path}: {error}") from None


def _read_records(
    path: Path, names: tuple[str, ...] | None, fields: Mapping[str, str] | None, content: bytes | None
) -> dict[str, np.ndarray]:
    """Read the lengths of each row of text or JSON, by its fields."""
    if fields is None and names is not None:
        fields = {name: name for name in names}
    lines = content is None and is_json_lines(path)
    rows = read_json_lines(path) if lines else DelimitedFile(path, content=content).rows()
    columns = lengths_of(((f"{path}, line {line}", values) for line, values in rows), fields)
    return {name: columns[name] for name in _present(names, list(columns), path)}


def _read_text(path: Path, names: tuple[str, ...] | None, content: bytes | None) -> dict[str, np.ndarray]:
    table = DelimitedFile(path, names or (), content=content)
    if all(map(_is_length, table.columns)):
        raise SourceError(
            f"{path}: the first line must name the columns, each once; got {list(table.columns)}, which are lengths"
        )
    wanted = names or table.columns
    try:
        values = table.numbers(wanted)
    except SourceError:
        _check_values(table, wanted)
        raise
    if not ((values >= 0) & (values == np.floor(values))).all():
        _check_values(table, wanted)
    return dict(zip(wanted, values.T, strict=True))


def _check_values(table: DelimitedFile, names: Sequence[str]) -> None:
    """Raise a SourceError that names the first line with a value that is no length."""
    for line, values in table.rows():
        for name in names:
            if not _is_length(values[name]):
                raise SourceError(
                    f"{table.path}, line {line}, {name!r}: got {values[name]!r}; a length is a whole number of "
                    "positions, 0 (missing) or more"
                )


def _read_arrays(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    file_size(path)  # refuses a pipe, which would be waited for
    with path.open("rb") as file:
        start = file.read(2)
    archive = start == b"PK" or (path.suffix.lower() == ".npz" and start != b"\x93N")  # content decides, not the name
    return _read_npz(path, names) if archive else _read_npy(path, names)


def _read_npy(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    values = read_npy(path)
    if values.dtype.names:
        return {name: values[name] for name in _present(names, values.dtype.names, path)}
    if values.ndim == 1 and names is not None and len(names) == 1:
        values = values[:, None]
    if values.ndim != 2 or names is None or len(names) != values.shape[1]:
        raise SourceError(
            f"{path}: holds an array of shape {values.shape}, and got the modalities {list(names or ())}; it must be "
            "(samples, modalities), and a name is needed for each column (on the command line: --modalities)"
        )
    return dict(zip(names, values.T, strict=True))


def _read_npz(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    columns = read_npz(path, names)
    bad = {name: column.shape for name, column in columns.items() if column.ndim != 1}
    if bad:
        raise SourceError(f"{path}: each array must hold one length per sample; got the shapes {bad}")
    return columns


def _present(names: Sequence[str] | None, columns: Sequence[str], path: Path) -> Sequence[str]:
    """Return the names asked for, or all, if the columns are there."""
    absent = [name for name in names or () if name not in columns]
    if absent:
        raise SourceError(f"{path}: has no column {absent}, only {list(columns)}")
    return names or columns


def _is_length(text: str) -> bool:
    try:
        return float(text) >= 0 and float(text).is_integer()
    except (ValueError, OverflowError):
        return False
