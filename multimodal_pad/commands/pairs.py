"""Options of the command line that are pairs: NAME=VALUE."""

from __future__ import annotations

import argparse
from typing import Any

from multimodal_pad.errors import PaddingError


def pair(text: str) -> tuple[str, str]:
    """Split ``"audio=features/hubert"`` into name and value, for argparse.

    >>> pair("audio=features/hubert")
    ('audio', 'features/hubert')
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"got {text!r}; give NAME=VALUE")
    return name, value


def once(pairs: list[tuple[str, str]], option: str) -> dict[str, str]:
    """Return the values by name; raises a PaddingError where a name comes twice."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise PaddingError(f"got {option} for {names}; name each modality once")
    return dict(pairs)


def add_field_option(parser: Any) -> None:
    """Add ``--field``, for lengths from the fields of a manifest, to a parser."""
    parser.add_argument(
        "--field",
        action="append",
        type=pair,
        metavar="NAME=FIELD",
        help="a modality by a field of a manifest: audio=duration@50 (seconds at 50 Hz), text=text:words; repeatable",
    )


def chosen_fields(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the fields given with ``--field``; None where there are none."""
    return once(options.field, "--field") if options.field else None
