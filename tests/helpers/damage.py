"""Ways in which a file may be damaged, at random."""

from __future__ import annotations

import os
import random
from pathlib import Path

EDGE = 2048
"""Bytes at both ends of a file, where most of its structure is."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy of a file's bytes with one or two faults, more often where its structure is."""
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice(FAULTS)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    places = [rng.randrange(len(data) or 1), rng.randrange(min(EDGE, len(data)) or 1)]
    places.append(max(0, len(data) - 1 - places[1]))
    place = rng.choice(places)
    while place < len(data) - 1 and not data[place] and rng.random() < 0.98:  # zeros are rarely structure
        place += 1
    return place


def _changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if changed:
            place = _place(data, rng)
            changed[place] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256), changed[place] ^ 1 << rng.randrange(8)))
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _removed(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.randint(1, 16) :]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[: place + rng.randint(1, 64)] + data[place:]


def _digits(data: bytes, rng: random.Random) -> bytes:
    """Another number where one is written as text."""
    places = [place for place in range(min(EDGE, len(data))) if data[place : place + 1].isdigit()]
    if not places:
        return _changed(data, rng)
    place = rng.choice(places)
    return data[:place] + rng.choice((b"9" * 400, b"-1", b"9" * 19, b"True", b"nan", b"0")) + data[place + 1 :]


FAULTS = (_changed, _changed, _changed, _cut, _removed, _doubled, _digits)


def no_file(path: Path, kind: str) -> None:
    """Put something in the place of a file that can't be read to its end."""
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
