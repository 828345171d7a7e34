"""Files of JSON lines, such as manifests: an object per line, packed with gzip or not."""

from __future__ import annotations

import gzip
import json
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from multimodal_pad.errors import SourceError

SUFFIXES = (".jsonl", ".ndjson", ".json")
"""What such files are called, ``.gz`` after it or not."""

_LONGEST_LINE = 1 << 24  # bytes
_MOST_PACKED = 200
"""Times as large as a packed file: manifests make 10 to 40, and a file that makes more was made to fill the memory."""


def is_json_lines(path: Path) -> bool:
    """Whether a file is called like one of JSON lines.

    >>> [is_json_lines(Path(name)) for name in ("cuts.jsonl.gz", "manifest.json", "lengths.csv")]
    [True, True, False]
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line, from 1, and its object; empty lines are passed over.

    Raises:
        SourceError: no regular file, a line that is no JSON object, or longer than 16 MiB, bytes that are no UTF-8, or
            a packed file that is damaged, or holds 200 times its size. The line is named.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "manifest.jsonl")
    ...     _ = path.write_text('{"duration": 2.5}\\n')
    ...     list(read_json_lines(path))
    [(1, {'duration': 2.5})]
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise SourceError(f"{path}: is no regular file; give a file of JSON lines, such as manifest.jsonl")
    packed = path.name.lower().endswith(".gz")
    most = _MOST_PACKED * path.stat().st_size + _LONGEST_LINE
    number = 0
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            for number, line in enumerate(_lines(file, path, most), start=1):
                if not line.isspace():
                    yield number, _object(line, f"{path}, line {number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}, line {number + 1}: damaged or cut short ({error}); copy the file again") from None


def value_at(record: dict[str, Any], field: str, where: str) -> Any:
    """The value of a field of an object: ``"duration"``, or one inside of it: ``"recording.duration"``.

    A list on the way gives the list of what its items have there.

    Raises:
        SourceError: there is no such field; it says which there are.

    >>> value_at({"supervisions": [{"text": "oh"}, {"text": "no"}]}, "supervisions.text", "cuts.jsonl, line 1")
    ['oh', 'no']
    """
    if field in record:
        return record[field]
    value: Any = record
    for depth, name in enumerate(names := field.split(".")):
        if isinstance(value, list):
            inner = ".".join(names[depth:])
            return [value_at(item if isinstance(item, dict) else {}, inner, where) for item in value]
        if not isinstance(value, dict) or name not in value:
            there = list(value) if isinstance(value, dict) else f"a {type(value).__name__}"
            within = f" in {'.'.join(names[:depth])!r}" if depth else ""
            raise SourceError(f"{where}: has no field {name!r}{within}, only {there}")
        value = value[name]
    return value


def _lines(file: IO[bytes], path: Path, most: int) -> Iterator[bytes]:
    total = 0
    for number in range(1, 1 << 62):
        line = file.readline(_LONGEST_LINE + 1)
        if not line:
            return
        total += len(line)
        if len(line) > _LONGEST_LINE or total > most:
            what = "a line of more than 16 MiB" if len(line) > _LONGEST_LINE else f"more than {_MOST_PACKED} times its size"
            raise SourceError(f"{path}, line {number}: {what}; give a file of JSON lines, an object per line")
        yield line


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: not UTF-8 ({error}); convert the file to UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON ({error}); each line must be an object, such as {{...}}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{where}: holds a {type(found).__name__}; each line must be an object, such as {{...}}")
    return found
