"""Lengths from a file: CSV, or NumPy's .npy and .npz."""

from __future__ import annotations

import csv
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.errors import LengthError, SourceError
from multimodal_pad.lengths.samples import check_names
from multimodal_pad.lengths.table import LengthTable

DAMAGED = (
    ValueError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
"""What NumPy and zipfile raise at files that are not what they should be."""


def read_lengths(path: str | Path, modalities: Sequence[str] | None = None) -> LengthTable:
    """The length table of a file: a row per sample, a column per modality, in positions.

    Args:
        path: a ``.csv`` whose first line names the columns; a ``.npy`` of shape ``(N, M)`` or with named
            fields; or a ``.npz`` with an array ``(N,)`` per modality.
        modalities: which columns, in which order (all of them by default); for a plain ``.npy`` the
            names of its columns.

    Raises:
        SourceError: another kind of file, one that is damaged, a column that is missing, or a value that
            is no length; the file and the line are named.
        OSError: the file cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz}
    if suffix not in readers:
        raise SourceError(f"{path}: got a file of kind {path.suffix!r}; lengths are read from {', '.join(readers)}")
    names = None if modalities is None else check_names(modalities)
    try:
        return LengthTable.from_columns(readers[suffix](path, names))
    except (*DAMAGED, LengthError, SourceError) as error:
        raise SourceError(f"{path}: {_bad_line(path, names) or error}") from None


def _read_csv(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
        if not header or len(set(header)) < len(header) or all(map(_is_length, header)):
            raise SourceError(f"the first line must name the columns, each once; got {header}")
        wanted = [header.index(name) for name in _present(names, header)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # it is an error of its own
            values = np.loadtxt(file, delimiter=",", usecols=wanted, ndmin=2, comments=None, quotechar='"')
    return {header[place]: column for place, column in zip(wanted, values.T, strict=True)}


def _read_npy(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    values = np.load(path, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        values.close()
        raise SourceError("holds several arrays; name it .npz")
    if values.dtype.names:
        return {name: values[name] for name in _present(names, values.dtype.names)}
    if values.ndim != 2 or names is None or len(names) != values.shape[1]:
        raise SourceError(
            f"holds an array of shape {values.shape}, and got the modalities {list(names or ())}; it must be (samples, "
            "modalities), and a name is needed for each column (on the command line: --modalities)"
        )
    return dict(zip(names, values.T, strict=True))


def _read_npz(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise SourceError("holds a single array; name it .npy")
        columns = {name: arrays[name] for name in _present(names, arrays.files)}
    bad = {name: column.shape for name, column in columns.items() if column.ndim != 1}
    if bad:
        raise SourceError(f"each array must hold one length per sample; got the shapes {bad}")
    return columns


def _present(names: Sequence[str] | None, columns: Sequence[str]) -> Sequence[str]:
    """The names asked for, or all, if the columns are there."""
    absent = [name for name in names or () if name not in columns]
    if absent:
        raise SourceError(f"has no column {absent}, only {list(columns)}")
    return names or columns


def _bad_line(path: Path, names: tuple[str, ...] | None) -> str | None:
    """What is wrong with the first line of a CSV that holds no lengths, or None."""
    if path.suffix.lower() != ".csv":
        return None
    try:
        return _scan_csv(path, names)
    except csv.Error as error:
        return str(error)


def _scan_csv(path: Path, names: tuple[str, ...] | None) -> str | None:
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        for row in lines:
            if row and len(row) != len(header):
                return f"line {lines.line_num}: got {len(row)} values for the columns {header}"
            for name, text in zip(header, row, strict=False):
                if (names is None or name in names) and not _is_length(text):
                    return (
                        f"line {lines.line_num}, {name!r}: got {text!r}; a length is a whole number of positions, 0 "
                        "(missing) or more"
                    )
    return None


def _is_length(text: str) -> bool:
    try:
        return float(text) >= 0 and float(text).is_integer()
    except (ValueError, OverflowError):
        return False
