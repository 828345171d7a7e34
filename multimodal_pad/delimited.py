"""Tables of text with a line of column names: CSV, with semicolons or tabs, as spreadsheets save them."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import file_size

SEPARATORS = (",", ";", "\t", "|")

_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # by the byte order mark: a spreadsheet's "Unicode text"
_HINT = re.compile(r"sep=(.)\s*")  # a first line that names the separator for spreadsheets


class Row(NamedTuple):
    """A row of a table: the number of its last line in the file, from 1, and its values by column."""

    line: int
    values: dict[str, str]


class DelimitedFile:
    """A file of rows of text, the first of which names the columns.

    Values are separated by commas, semicolons, tabs or bars, by whichever the first line has most columns (of those
    required, then at all), and may be quoted. The text is UTF-8, or UTF-16 with a byte order mark; such a mark is no
    part of the first name.

    Args:
        path: the file.
        required: columns that must be there.
        content: its bytes, where they were read already; ``path`` is then only its name in errors.

    Attributes:
        path: the file.
        columns: the names of the columns, without spaces around them.
        separator: the text between two values.

    Raises:
        SourceError: no regular file, no such text, columns that don't have a name each, or one that is missing.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.csv")
    ...     _ = path.write_text("\\ufeffname;valence\\na;0.5\\nb;-1\\n", encoding="utf-8")
    ...     table = DelimitedFile(path, required=["name"])
    ...     table.columns, [row.values["name"] for row in table.rows()], table.numbers(["valence"]).tolist()
    (('name', 'valence'), ['a', 'b'], [[0.5], [-1.0]])
    """

    def __init__(self, path: str | Path, required: Sequence[str] = (), *, content: bytes | None = None) -> None:
        self.path, self._content = Path(path), content
        if content is None:
            file_size(self.path)  # refuses a pipe, which would be waited for
        with self._bytes() as file:
            self._encoding = _ENCODINGS.get(file.read(2), "utf-8-sig")
        self._before = 0  # lines before the names of the columns
        with self._open() as file:
            hint = _HINT.fullmatch(file.readline())
        self._before = int(hint is not None)
        separators = (hint[1],) if hint else SEPARATORS
        headers = {separator: self._header(separator) for separator in separators}
        self.separator = max(headers, key=lambda s: (len(set(required) & set(headers[s])), len(headers[s])))
        self.columns = headers[self.separator]
        where = f"{self.path}, line {1 + self._before}"
        if not any(self.columns) or len(set(self.columns)) < len(self.columns):
            raise SourceError(f"{where}: the first line must name the columns, each once; got {list(self.columns)}")
        absent = [name for name in required if name not in self.columns]
        if absent:
            raise SourceError(
                f"{where}: has no column {absent}, only {list(self.columns)} (separated by {self.separator!r})"
            )

    def rows(self) -> Iterator[Row]:
        """Yield the rows, in order; empty lines are passed over.

        Raises:
            SourceError: a row of more or fewer values than there are columns, quotes that don't close, or bytes that
                are no text; the line is named.
        """
        with self._open() as file:
            records = self._records(file, self.separator)
            next(records)
            for line, values in records:
                if len(values) != len(self.columns):
                    raise SourceError(
                        f"{self.path}, line {line}: got {len(values)} values for the {len(self.columns)} columns "
                        f"{list(self.columns)}; mend or remove the row"
                    )
                yield Row(line, dict(zip(self.columns, values, strict=True)))

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Return columns of numbers, float64 ``(rows, len(names))``; other columns may hold anything.

        Raises:
            SourceError: as :meth:`rows`, or a value that is no number; line and column are named.
        """
        try:
            return self._fast_numbers(names)
        except (ValueError, csv.Error):  # quotes over several lines, or a fault, which reading by rows names
            return self._slow_numbers(names)

    def _fast_numbers(self, names: Sequence[str]) -> np.ndarray:
        with self._open() as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            next(self._records(file, self.separator))
            return np.loadtxt(
                self._counted_lines(file),
                delimiter=self.separator,
                usecols=[self.columns.index(name) for name in names],
                ndmin=2,
                comments=None,
                quotechar='"',
            ).reshape(-1, len(names))

    def _counted_lines(self, file: TextIO) -> Iterator[str]:
        """Yield the lines of a file, each a whole row: NumPy takes too long rows where columns are left out."""
        between = len(self.columns) - 1
        for line in file:
            if (line.count(self.separator) != between or line.count('"') % 2) and not line.isspace():
                raise ValueError
            yield line

    def _slow_numbers(self, names: Sequence[str]) -> np.ndarray:
        found = []
        for line, values in self.rows():
            for name in names:
                try:
                    found.append(float(values[name].replace("_", "no digit")))
                except ValueError:
                    raise SourceError(
                        f"{self.path}, line {line}, {name!r}: got {values[name]!r}; it must be a number, such as 0.5"
                    ) from None
        return np.array(found, np.float64).reshape(-1, len(names))

    def _header(self, separator: str) -> tuple[str, ...]:
        """Return the names by a separator; none where quotes don't go with it."""
        with self._open() as file:
            try:
                names = next(filter(None, csv.reader(file, delimiter=separator, strict=True)), [])
            except csv.Error:
                names = []
        return tuple(name.strip("\ufeff \t\r\n") for name in names)

    def _records(self, file: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and values of the header and of each row; raises a SourceError that names the line."""
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            for values in reader:
                if values:
                    yield self._before + reader.line_num, values
        except csv.Error as error:
            raise SourceError(
                f"{self.path}, line {self._before + reader.line_num}: not a row of a CSV file: {error}; mend the row"
            ) from None

    def _bytes(self) -> BinaryIO:
        return self.path.open("rb") if self._content is None else io.BytesIO(self._content)

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        """Yield the text from the names of the columns on; raises a SourceError where bytes are no text."""
        try:
            with io.TextIOWrapper(self._bytes(), encoding=self._encoding, newline="") as file:
                for _ in range(self._before):
                    file.readline()
                yield file
        except UnicodeError as error:
            raise self._undecodable(error) from None

    def _undecodable(self, error: UnicodeError) -> SourceError:
        """Return the error of a file that is no text, with the line where it ends to be text."""
        with self._bytes() as file:
            data = file.read()
        line = ""
        try:
            data.decode(self._encoding)
        except UnicodeDecodeError as found:
            line = f", line {data[: found.start].decode(self._encoding, 'ignore').count(chr(10)) + 1}"
        name = "UTF-8" if self._encoding.startswith("utf-8") else "the UTF-16 that it begins as"
        return SourceError(
            f"{self.path}{line}: not {name} ({error}); convert the file to UTF-8, such as with iconv -f cp1252 -t utf-8"
        )
