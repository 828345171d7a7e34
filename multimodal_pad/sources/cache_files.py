"""The names of the files of a flat cache, and the digest of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from multimodal_pad.lengths.samples import RESERVED

MANIFEST = "manifest.json"
IDS = "ids"
OFFSETS = ".offsets"

_LONGEST_NAME = 255 - len(".vocabulary.json")  # bytes, as most file systems allow

ALLOWED_NAMES = (
    f"it names a file: give letters and digits, without '/', no dot first, none of {[*RESERVED, IDS]}, not ending in "
    f"'{OFFSETS}' or '.json', and at most {_LONGEST_NAME} bytes"
)
"""The rule for names of modalities and splits, for errors."""


def names_a_file(name: object) -> bool:
    """Return whether something can be the name of a modality or of a split, whose files lie within the cache.

    >>> names_a_file("audio"), names_a_file("../audio"), names_a_file("ids"), names_a_file(3)
    (True, False, False, False)
    """
    if not isinstance(name, str) or not name.isprintable() or name in (*RESERVED, IDS) or set(name) & set("/\\"):
        return False
    return (
        not name.startswith(".") and not name.endswith((OFFSETS, ".json")) and 0 < len(name.encode()) <= _LONGEST_NAME
    )


def array_file(name: str) -> str:
    """Return the name of the file that holds an array."""
    return f"{name}.npy"


def offsets_file(name: str) -> str:
    """Return the name of the file with the place in an array where each sample begins."""
    return f"{name}{OFFSETS}.npy"


def vocabulary_file(modality: str) -> str:
    """Return the name of the file that holds the vocabulary of a modality."""
    return f"{modality}.vocabulary.json"


def digest_file(path: Path, tell: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file; ``tell`` is called with the size of each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            if tell is not None:
                tell(len(block))
    return digest.hexdigest()
