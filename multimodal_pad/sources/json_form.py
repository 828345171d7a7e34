"""The form of a JSON file: checks of each of its values, so that its readers need none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import shown
from multimodal_pad.sources.cache_files import ALLOWED_NAMES, names_a_file

Check = Callable[[Any, str], None]
"""A check that raises a SourceError, with the value's place, where a value is not what it must be."""


def is_a(what: str, test: Callable[[Any], bool]) -> Check:
    """Make a check that a value passes a test; ``what`` it must be, for errors.

    >>> fields(["rate"], samples=is_a("a number", lambda value: type(value) is int))({"samples": "many"}, "split")
    Traceback (most recent call last):
    multimodal_pad.errors.SourceError: split.samples is 'many', not a number
    """

    def check(value: Any, place: str) -> None:
        if not test(value):
            raise SourceError(f"{place} is {shown(value)}, not {what}")

    return check


def each(check: Check, *, names: bool = False, least: int = 0) -> Check:
    """Make a check of a dict whose values pass a check; its keys may have to be names of modalities or splits."""

    def check_all(value: Any, place: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            raise SourceError(f"{place} is {shown(value)}, not a dict{' with something in it' if least else ''}")
        for key, item in value.items():
            if names and not names_a_file(key):
                raise SourceError(f"{place} has the name {shown(key)}; {ALLOWED_NAMES}")
            check(item, f"{place}.{key}")

    return check_all


def rows(check: Check) -> Check:
    """Make a check of a list whose values pass a check."""

    def check_all(value: Any, place: str) -> None:
        if not isinstance(value, list):
            raise SourceError(f"{place} is {shown(value)}, not a list")
        for index, item in enumerate(value):
            check(item, f"{place}[{index}]")

    return check_all


def or_none(check: Check) -> Check:
    """Make a check that allows null, too."""
    return lambda value, place: None if value is None else check(value, place)


def fields(optional: Sequence[str] = (), /, **checks: Check) -> Check:
    """Make a check of a dict with values by name, some of which may be missing; other keys are ignored."""

    def check_fields(value: Any, place: str) -> None:
        inside = f"{place}." if place else ""
        if not isinstance(value, dict):
            raise SourceError(f"{place} is {shown(value)}, not a dict")
        for key, check in checks.items():
            if key in value:
                check(value[key], f"{inside}{key}")
            elif key not in optional:
                raise SourceError(f"{f'{place} ' if place else ''}has no {key!r}")

    return check_fields
