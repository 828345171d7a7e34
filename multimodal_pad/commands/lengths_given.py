"""Lengths for a command: from a file, or with ``-`` from a CSV on standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import read_lengths
from multimodal_pad.lengths.table import LengthTable

STANDARD_INPUT = "standard input"

_MOST = 1 << 30  # bytes of standard input, which is held in memory and may have no end
_BINARY = (b"\x93NUMPY", b"PK", b"\x1f\x8b")
"""First bytes of NumPy's files and of gzip's."""


def path_or_input(text: str) -> Path | Literal["-"]:
    """Return an argument of the command line; a file of that name is ``./-``.

    >>> path_or_input("-"), path_or_input("lengths.csv").name
    ('-', 'lengths.csv')
    """
    return "-" if text == "-" else Path(text)


def read_given(
    given: Path | Literal["-"], modalities: Sequence[str] | None, fields: Mapping[str, str] | None
) -> LengthTable:
    """Read the lengths of a file, as :func:`~multimodal_pad.lengths.files.read_lengths`, or from standard input.

    Raises:
        SourceError: as there; or standard input has no text, or is a terminal.
    """
    if given == "-":
        return read_lengths(STANDARD_INPUT, modalities, fields=fields, content=_read_input())
    return read_lengths(given, modalities, fields=fields)


def _read_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        got = "is closed" if sys.stdin is None else "is a terminal"
        raise SourceError(
            f"{STANDARD_INPUT} {got}; pipe a CSV into it whose first line names the columns (as in: "
            "cat lengths.csv | multimodal-pad plan -), or name a file"
        )
    content = sys.stdin.buffer.read(_MOST + 1)
    if len(content) > _MOST:
        raise SourceError(f"{STANDARD_INPUT}: has more than {_MOST:,} bytes; write them to a file, and name that")
    if not content.strip():
        raise SourceError(
            f"{STANDARD_INPUT} is empty; a CSV is read from it, whose first line names the columns, such as text,audio"
        )
    if content.startswith(_BINARY) or content.lstrip().startswith(b"{"):
        kind = "JSON lines" if content.lstrip().startswith(b"{") else "packed or binary data"
        raise SourceError(f"{STANDARD_INPUT}: got {kind}, and a CSV is read from it; write it to a file, and name that")
    return content
