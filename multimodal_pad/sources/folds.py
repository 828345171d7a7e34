"""Assigning samples to splits, where a corpus doesn't: by name, or by the pattern of names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import file_size

ALL = "all"
"""The name of the only split, where there are no others."""

Folds = Mapping[str, Sequence[str]] | str | Path
"""The names, or patterns of names, of each split; or a JSON file of them."""


def read_folds(folds: Folds, what: str) -> Mapping[str, Sequence[str]]:
    """Return the folds, read from a JSON file where they are the path of one.

    Args:
        folds: by split.
        what: the contents, for errors: ``"videos"``.

    Raises:
        SourceError: the file is no JSON, or holds something other than folds.
    """
    read: Any = folds
    if not isinstance(folds, Mapping):
        file_size(Path(folds))
        try:
            read = json.loads(Path(folds).read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{folds}: not JSON ({error}); give {{split: [...]}}") from None
    lists = list(read.values()) if isinstance(read, Mapping) else []
    plain = [isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) for names in lists]
    if not lists or not all(plain):
        where = "the folds" if isinstance(folds, Mapping) else folds
        raise SourceError(f'{where}: must hold the {what} of each split, as {{"train": ["03bSnISJMiM", ...], ...}}')
    return read


def folds_of(names: Sequence[str], folds: Mapping[str, Sequence[str]], where: str) -> list[str | None]:
    """Return the split of each name; None where it is in no fold.

    A ``*`` in the folds stands for any characters.

    Raises:
        SourceError: a name is in two folds, or an entry of the folds matches no name.

    >>> folds_of(["Ses01_a", "Ses02_a", "Ses05_b"], {"train": ["Ses01*", "Ses02_a"], "test": ["Ses05*"]}, "label.npz")
    ['train', 'train', 'test']
    """
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name, []).append(number)
    found: list[str | None] = [None] * len(names)
    for split, entries in folds.items():
        for entry in entries:
            if "*" in entry:
                pattern = re.compile(".*".join(map(re.escape, entry.split("*"))), re.DOTALL)
                matching = [number for number, name in enumerate(names) if pattern.fullmatch(name)]
            else:
                matching = numbers.get(entry, [])
            if not matching:
                raise SourceError(
                    f"{where}: the fold {split!r} names {entry!r}, and no sample is called so; mend the fold"
                )
            for number in matching:
                if found[number] not in (None, split):
                    raise SourceError(
                        f"{where}: {names[number]!r} is in the folds {found[number]!r} and {split!r}; put it into one"
                    )
                found[number] = split
    return found
