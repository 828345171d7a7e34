"""Names of samples: UTF-8 bytes one after the other, decoded on access."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.corpus import check_distinct

_BLOCK = 2**20  # bytes to decode at once, in the check for UTF-8


class Ids(Sequence[str]):
    """N names of samples, which are not in memory before they are accessed."""

    @abstractmethod
    def _name(self, index: int) -> str:
        """Return the name of sample ``index``, which exists."""

    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[str]: ...
    def __getitem__(self, index: int | slice, /) -> str | list[str]:
        places = range(len(self))[index]
        return [self._name(place) for place in places] if isinstance(places, range) else self._name(places)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}, ... {len(self):,} in all]" if len(self) > 3 else f"[{shown}]"


class NumberedIds(Ids):
    """Names for samples that have none.

    >>> NumberedIds("train", 1000)
    ['train[0]', 'train[1]', 'train[2]', ... 1,000 in all]
    """

    def __init__(self, split: str, count: int) -> None:
        self._split, self._count = split, count

    def __len__(self) -> int:
        return self._count

    def _name(self, index: int) -> str:
        return f"{self._split}[{index}]"


class StoredIds(Ids):
    """Names of samples from a flat cache.

    Args:
        data: uint8, the names in UTF-8, one after the other.
        offsets: int64 ``(N + 1,)``: name i has the bytes from ``offsets[i]`` up to ``offsets[i + 1]``.
        where: the file, for errors.

    Raises:
        SourceError: the bytes are no UTF-8.

    >>> data, offsets = encode_ids(["a", "b\\0", "ć"], "the split 'train'")
    >>> data.tobytes(), offsets.tolist(), StoredIds(data, offsets, "ids.npy")
    (b'ab\\x00\\xc4\\x87', [0, 1, 3, 5], ['a', 'b\\x00', 'ć'])
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, where: str) -> None:
        self._data, self._offsets = data, offsets.data
        starts = offsets[:-1][np.diff(offsets) > 0]
        if not _is_utf8(data) or (data[starts] & 0xC0 == 0x80).any():
            raise SourceError(f"{where}: holds ids that are no UTF-8; write it again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _name(self, index: int) -> str:
        return self._data[self._offsets[index] : self._offsets[index + 1]].tobytes().decode()


def _is_utf8(data: np.ndarray) -> bool:
    """Return whether bytes are UTF-8, with a block in memory at a time."""
    start = 0
    while start < len(data):
        block = data[start : start + _BLOCK]
        if block.max() < 0x80:
            start += len(block)
            continue
        try:
            block.tobytes().decode()
            start += len(block)
        except UnicodeDecodeError as error:
            if error.end < len(block) or len(block) < _BLOCK or len(block) - error.start > 3:
                return False
            start += error.start  # the block ends within a character
    return True


def encode_ids(ids: Sequence[Any], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Encode ids as the bytes and offsets that :class:`StoredIds` takes.

    Raises:
        SourceError: an id is no text, or one that UTF-8 has no bytes for, or two samples have it.
    """
    texts = [_encoded(name, index, where) for index, name in enumerate(ids)]
    check_distinct(ids, where)
    offsets = np.fromiter(itertools.accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)
    return np.frombuffer(b"".join(texts), np.uint8), offsets


def _encoded(name: object, index: int, where: str) -> bytes:
    if not isinstance(name, str):
        raise SourceError(
            f"{where}: sample {index} has the id {str(name)[:100]!r}, which is {type(name).__name__}; give text, such "
            f"as {f'sample {index}'!r}"
        )
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"{where}: sample {index} has the id {name!r}, which UTF-8 has no bytes for; give it another name"
        ) from None


def ids_as_text(ids: Any) -> list[Any]:
    """Return ids as a list, whole numbers as their digits; other ids that are no text are refused later."""
    return [str(name) if isinstance(name, int | np.integer) and not isinstance(name, bool) else name for name in ids]
