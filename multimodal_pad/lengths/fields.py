"""Lengths from the fields of records: durations at a rate, text by its words, or lengths as they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import LengthError, SourceError
from multimodal_pad.json_lines import value_at
from multimodal_pad.lengths.samples import check_names, shown

_COUNTS: dict[str, Callable[[str], int]] = {"words": lambda text: len(text.split()), "characters": len}


class LengthField(NamedTuple):
    """The length of a modality by a field of a record.

    Attributes:
        field: the name of the field, or a path to it: ``"recording.duration"``.
        rate: positions per second, where the field holds seconds.
        unit: ``"words"`` (what stands between spaces) or ``"characters"``, where it holds text, or a list of texts.
    """

    field: str
    rate: float | None = None
    unit: str | None = None

    @classmethod
    def parse(cls, text: str) -> LengthField:
        """Parse ``"FIELD"``, ``"FIELD@RATE"``, ``"FIELD:words"`` or ``"FIELD:characters"``.

        Raises:
            LengthError: it is none of these.

        >>> LengthField.parse("duration@50"), LengthField.parse("supervisions.text:words").unit
        (LengthField(field='duration', rate=50.0, unit=None), 'words')
        """
        if isinstance(text, str):
            mark = "@" if "@" in text else ":"
            field, found, rest = text.rpartition(mark)
            if not found and text:
                return cls(text)
            rate = _number(rest) if mark == "@" else None
            if field and ((rate or 0) > 0 or (mark == ":" and rest in _COUNTS)):
                return cls(field, rate, rest if mark == ":" else None)
        raise LengthError(
            f"got {text!r} for the length of a modality; give FIELD, FIELD@RATE for seconds at so many positions per "
            f"second, or FIELD:{' or FIELD:'.join(_COUNTS)} for text"
        )

    def length(self, record: Mapping[str, Any], where: str) -> int:
        """Return the length by a record: at least 1, unless there is no second or no text at all.

        Raises:
            SourceError: the record has no such field, or one that is no length.

        >>> LengthField("duration", rate=50).length({"duration": 3.13}, "line 1")
        156
        """
        value = value_at(dict(record), self.field, where)
        if self.unit is not None:
            texts = value if isinstance(value, list) else [value]
            if not all(isinstance(text, str) for text in texts):
                raise SourceError(f"{where}, {self.field!r}: got {shown(value)}; {self.unit} are those of text")
            return sum(map(_COUNTS[self.unit], texts))
        number = _number(value)
        if number is None or not 0 <= number < 2**53:
            what = (
                "a length is a whole number of positions" if self.rate is None else "a duration is a number of seconds"
            )
            raise SourceError(f"{where}, {self.field!r}: got {shown(value)}; {what}, 0 (missing) or more")
        if self.rate is not None:
            if number * self.rate >= 2**63:
                raise SourceError(
                    f"{where}, {self.field!r}: got {shown(value)}; at {self.rate} positions per second, too many: give "
                    "seconds, and the rate of the features"
                )
            return max(1, round(number * self.rate)) if number else 0
        if not number.is_integer():
            raise SourceError(
                f"{where}, {self.field!r}: got {shown(value)}; a length is a whole number of positions, and seconds "
                f"become one by a rate: {self.field}@50"
            )
        return int(number)


def lengths_of(
    records: Iterable[tuple[str, Mapping[str, Any]]], fields: Mapping[str, str] | None
) -> dict[str, np.ndarray]:
    """Return the lengths of records by modality, int64 ``(N,)`` each.

    Args:
        records: pairs of a record's place, for errors, and the record.
        fields: as :meth:`LengthField.parse` reads them, by modality; None where each field of the first record is the
            length of the modality of its name.

    Raises:
        SourceError: a record lacks a field, or it is no length.
        LengthError: a field that can't be read, or names of modalities that are none.

    >>> records = [("line 1", {"duration": 2.0, "text": "oh my"}), ("line 2", {"duration": 0.5, "text": ""})]
    >>> columns = lengths_of(records, {"audio": "duration@50", "text": "text:words"})
    >>> {name: lengths.tolist() for name, lengths in columns.items()}
    {'audio': [100, 25], 'text': [2, 0]}
    """
    chosen = None if fields is None else {name: LengthField.parse(fields[name]) for name in check_names(tuple(fields))}
    found: list[list[int]] = []
    for where, record in records:
        if chosen is None:
            chosen = {name: LengthField(name) for name in record}
        found.append([field.length(record, where) for field in chosen.values()])
    values = np.array(found, np.int64).reshape(len(found), len(chosen or ()))
    return dict(zip(chosen or (), values.T, strict=True))


def _number(value: Any) -> float | None:
    """Return a finite number, or text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in str(value)[:80] else None
