"""Text for a terminal: all output and errors are printed here, with names that can't act as control codes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from multimodal_pad.text_table import terminal_width

# Control characters, marks that turn the writing direction, and bytes of names that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return text with control characters written out; lines and tabs stay.

    >>> print(plain("a\x1b[31mb\udcffc"))
    a\x1b[31mb\udcffc
    """
    return _UNPRINTABLE.sub(_written_out, text)


def in_a_line(text: str) -> str:
    r"""Write out control characters as :func:`plain`, and line ends, too.

    >>> print(in_a_line("a\nb"))
    a\nb
    """
    return plain(text).replace("\n", r"\n")


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


class _Console(Console):
    """A console on which only the styles that this package gives are more than text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


def output_console() -> Console:
    """Make the console for a command's answer: as wide as the terminal, or 160 columns in a file or a pipe."""
    file = _able(sys.stdout)
    width = None if file is not None and file.isatty() else terminal_width() or 160
    return _Console(file=file, width=width, quiet=not file)


def progress_console() -> Console:
    """Make the console for bars and errors, on standard error."""
    file = _able(sys.stderr)
    return _Console(file=file, stderr=file is None, quiet=not file)


def tell(console: Console, text: str) -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(plain(text), markup=False, highlight=False, soft_wrap=True)


def tell_error(line: str) -> None:
    """Print a line to standard error, if that is still there."""
    with suppress(OSError):  # the terminal is closed
        print(in_a_line(line), file=_able(sys.stderr), flush=True)


def as_cell(text: str) -> str:
    """Return a name for a cell of a table, or a bar: on one line, and without markup."""
    return escape(in_a_line(text))


def _able(file: Any) -> IO[str] | None:
    """Return the file, set to write out what its encoding lacks; None where it was closed before the command began."""
    if file is not None and hasattr(file, "reconfigure"):
        file.reconfigure(errors="backslashreplace")
    return file
