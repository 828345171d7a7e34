"""Pickles of splits, and the ids in them: read within bounds, whatever parts they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import check_unpacked, some
from multimodal_pad.sources.pickles import FileMapping, read_pickle

Container = TypeVar("Container", dict, list)

MOST_SPLITS = 100
"""Most splits: each is opened, converted and described by itself."""

_LONGEST = 1000
"""Most characters of a key or an id."""

_PARTS = 8
"""Most parts of an id."""


def read_splits(path: Path, kind: type[Container], holding: str) -> tuple[dict[str, Container], FileMapping]:
    """Read a pickled dict of splits, by name; return it with the mapping of the file.

    Args:
        path: the pickle.
        kind: the type of each split.
        holding: its contents, in words.

    Raises:
        SourceError: as :func:`~multimodal_pad.sources.pickles.read_pickle`, or no such dict.
        OSError: the file cannot be read.
    """
    data, mapping = read_pickle(path)
    if not isinstance(data, dict) or not data:
        raise SourceError(
            f"{path}: holds a {type(data).__name__}; it must be a dict of splits, such as train, valid, test"
        )
    splits = with_text_keys(data, str(path))
    if len(splits) > MOST_SPLITS:
        raise SourceError(
            f"{path}: holds {len(splits):,} entries, such as {some(splits, 3)}; it must be a dict of splits, such as "
            f"train, valid, test, and at most {MOST_SPLITS}"
        )
    odd = [name for name, found in splits.items() if not isinstance(found, kind)]
    if odd:
        raise SourceError(
            f"{path}: {odd[0]!r} holds a {type(splits[odd[0]]).__name__}; the file must be a dict of splits, each a "
            f"{kind.__name__} of {holding}"
        )
    return splits, mapping


def with_text_keys(data: dict[Any, Any], where: str) -> dict[str, Any]:
    """Return the dict with text keys: Python 2's are bytes."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        text = key.decode("latin-1") if isinstance(key, bytes) else str(key)
        if len(text) > _LONGEST:
            raise SourceError(f"{where}: has a key of {len(text):,} characters, {text[:80]!r}...; keys are short names")
        if text in found:
            raise SourceError(f"{where}: has the key {text!r} twice, as text and as bytes; keep one of them")
        found[text] = value
    return found


def id_texts(items: Sequence[Any], size: int, where: str) -> list[str]:
    """Return values as ids; those of several parts (video, start, end) become ``video[start,end]``.

    Args:
        items: a value for each sample.
        size: bytes of the file. Parts that it shares are copied for each sample, which is bounded.
        where: the file and the key, for errors.

    Raises:
        SourceError: one that is neither text, UTF-8 bytes nor a number, nor a few of them, or too long.
    """
    ids: list[str] = []
    characters = 0
    for index, item in enumerate(items):
        text = _id_text(item)
        if text is None or len(text) > _LONGEST:
            what = repr(item[:80]) if isinstance(item, bytes | str) else f"a {type(item).__name__}"
            raise SourceError(
                f"{where}: sample {index} has the id {what}; an id is text, UTF-8 bytes or a number, or a few of them, "
                f"of at most {_LONGEST:,} characters"
            )
        characters += len(text)
        check_unpacked(characters, size, where)
        ids.append(text)
    return ids


def _id_text(item: Any) -> str | None:
    """Return the text of an id: of one value, or of the parts of one."""
    several = isinstance(item, list | tuple)
    parts = [_part_text(part) for part in item[: _PARTS + 1]] if several else [_part_text(item)]
    texts = [part for part in parts if part is not None]
    if not texts or len(texts) < len(parts) or len(parts) > _PARTS:
        return None
    first, *rest = texts
    return f"{first}[{','.join(rest)}]" if rest else first


def _part_text(part: Any) -> str | None:
    if isinstance(part, np.ndarray) and part.size == 1:
        part = part.reshape(-1)[0]
    if isinstance(part, bytes):
        try:
            return part.decode("utf-8")
        except UnicodeDecodeError:
            return None
    plain = isinstance(part, str | float | np.number) or (isinstance(part, int) and abs(part) < 2**64)
    return str(part) if plain else None
