"""Files of JSON lines, such as manifests: an object per line, packed with gzip or not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import check_unpacked, file_size, reading

SUFFIXES = (".jsonl", ".ndjson", ".json")
"""Endings of such files, ``.gz`` after it or not."""

_LONGEST_LINE = 1 << 24  # bytes


def is_json_lines(path: Path) -> bool:
    """Return whether a file has the ending of one of JSON lines.

    >>> [is_json_lines(Path(name)) for name in ("cuts.jsonl.gz", "manifest.json", "lengths.csv")]
    [True, True, False]
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line, from 1, and its object; empty lines are passed over.

    Raises:
        SourceError: no regular file, a line that is no JSON object, or longer than 16 MiB, bytes that are no UTF-8, or
            a packed file that is damaged, or holds more than 100 times its size. The line is named.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "manifest.jsonl")
    ...     _ = path.write_text('{"duration": 2.5}\\n')
    ...     list(read_json_lines(path))
    [(1, {'duration': 2.5})]
    """
    size = file_size(path)
    unpacked = 0
    with reading(path), gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
            where = f"{path}, line {number}"
            unpacked += len(line)
            check_unpacked(unpacked, size, where)
            if len(line) > _LONGEST_LINE:
                raise SourceError(f"{where}: has more than 16 MiB; each line is an object, such as {{...}}")
            if not line.isspace():
                yield number, _object(line, where)


def value_at(record: dict[str, Any], field: str, where: str) -> Any:
    """Return the value of a field of an object: ``"duration"``, or one inside of it: ``"recording.duration"``.

    A list on the way gives the list of its items' values.

    Raises:
        SourceError: there is no such field; the error lists those that there are.

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
