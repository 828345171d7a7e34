"""The manifest of a flat cache: held to one form, when it is written and when it is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.table import LONGEST, LengthTable
from multimodal_pad.reading import file_size, reading
from multimodal_pad.sources.cache_files import (
    ALLOWED_NAMES,
    IDS,
    MANIFEST,
    array_file,
    names_a_file,
    offsets_file,
    vocabulary_file,
)

FORMAT, VERSION = "multimodal_pad flat cache", 2
_WITHOUT_DIGESTS = 1
"""The version before: ids are strings of one width, and nothing is said of the files."""

QUANTILES = (5, 25, 50, 75, 95, 99)
"""Per cent: of the lengths, in the manifest."""

AGAIN = "convert the corpus again, or take the file that convert wrote"

Check = Callable[[Any, str], None]
"""Raises a SourceError where a value, whose place is given, is not what it must be."""


def summarize(table: LengthTable) -> dict[str, dict[str, Any]]:
    """What a manifest says of the lengths of a split: of each modality mean, quantiles and maximum, and the missing."""
    lengths, missing = {}, {}
    for name, column in zip(table.modalities, table.values.T, strict=True):
        quantiles = np.percentile(column, QUANTILES).round(1).tolist()
        lengths[name] = {
            "mean": round(float(column.mean()), 3),
            **{f"p{level}": value for level, value in zip(QUANTILES, quantiles, strict=True)},
            "max": int(column.max()),
        }
        missing[name] = int((column == 0).sum())
    return {"lengths": lengths, "missing": missing}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the manifest of a cache says, or None where there is none.

    Raises:
        SourceError: no such folder, or a manifest that is damaged or of another version.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path)
    check_manifest(manifest, str(path))
    return manifest


def read_json(path: Path) -> Any:
    """What a JSON file of a cache holds.

    Raises:
        SourceError: there is no such file, or it is none.
    """
    try:
        file_size(path)
        with reading(path, AGAIN):
            return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None


def has_digests(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says of each file how long it is, and its SHA-256."""
    return manifest["version"] > _WITHOUT_DIGESTS


def check_manifest(manifest: Any, where: str) -> None:
    """Hold a manifest to its form, so that what reads it need not.

    Raises:
        SourceError: it is of another format or version, or a value is not what it must be; its place is named.

    >>> check_manifest({"format": "multimodal_pad flat cache", "version": 2, "splits": []}, "manifest.json")
    Traceback (most recent call last):
    multimodal_pad.errors.SourceError: manifest.json: has no 'source'; convert the corpus again, or take the file that \
convert wrote
    """
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if found not in [(FORMAT, version) for version in (_WITHOUT_DIGESTS, VERSION)]:
        raise SourceError(f"{where}: is {_short(found)}, not {(FORMAT, VERSION)}; convert the corpus again")
    with _of_the(where):
        _MANIFEST(manifest, "")
        modalities, digests = manifest["modalities"], has_digests(manifest)
        for name, facts in manifest["standardized"].items():
            _check_statistics(facts, modalities.get(name), f"standardized.{name}")
        for split, facts in manifest["splits"].items():
            _check_split(facts, modalities, f"splits.{split}")
            if digests:
                _check_files(facts, modalities, f"splits.{split}")
        if digests:
            _DIGEST(manifest.get("sha256"), "sha256")
            wanted = {vocabulary_file(name) for name, facts in modalities.items() if "vocabulary_size" in facts}
            _same_names(manifest.get("files"), wanted, "files")


def digest_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says, but for this itself."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_vocabulary(vocabulary: Any, size: int, where: str) -> None:
    """Raise a SourceError unless it is token to number, the greatest of which the vocabulary's size follows from."""
    with _of_the(where):
        _each(_WHOLE)(vocabulary, "the vocabulary")
        found = vocabulary_size(vocabulary)
        if found != size:
            raise SourceError(f"has numbers up to {found - 1}, and the manifest says that there are {size}")


def vocabulary_size(vocabulary: Mapping[str, int]) -> int:
    """How many numbers there are: 0 is nothing, and 1 what is unknown."""
    return 1 + max(vocabulary.values(), default=1)


@contextmanager
def _of_the(where: str) -> Iterator[None]:
    """Errors with the name of the file that they are about."""
    try:
        with reading("as a whole"):  # such as lists within lists a thousand times
            yield
    except SourceError as error:
        raise SourceError(f"{where}: {error}; {AGAIN}") from None


def _is(what: str, test: Callable[[Any], bool]) -> Check:
    def check(value: Any, place: str) -> None:
        if not test(value):
            raise SourceError(f"{place} is {_short(value)}, not {what}")

    return check


def _each(check: Check, *, names: bool = False, least: int = 0) -> Check:
    """A dict whose values pass a check; its keys may have to be names of modalities or splits."""

    def check_all(value: Any, place: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            raise SourceError(f"{place} is {_short(value)}, not a dict{' with something in it' if least else ''}")
        for key, item in value.items():
            if names and not names_a_file(key):
                raise SourceError(f"{place} has the name {_short(key)}; {ALLOWED_NAMES}")
            check(item, f"{place}.{key}")

    return check_all


def _rows(check: Check) -> Check:
    """A list whose values pass a check."""

    def check_all(value: Any, place: str) -> None:
        if not isinstance(value, list):
            raise SourceError(f"{place} is {_short(value)}, not a list")
        for index, item in enumerate(value):
            check(item, f"{place}[{index}]")

    return check_all


def _or_none(check: Check) -> Check:
    return lambda value, place: None if value is None else check(value, place)


def _fields(optional: Sequence[str] = (), /, **checks: Check) -> Check:
    """A dict with values by name."""

    def check_fields(value: Any, place: str) -> None:
        inside = f"{place}." if place else ""
        if not isinstance(value, dict):
            raise SourceError(f"{place} is {_short(value)}, not a dict")
        for key, check in checks.items():
            if key in value:
                check(value[key], f"{inside}{key}")
            elif key not in optional:
                raise SourceError(f"{f'{place} ' if place else ''}has no {key!r}")

    return check_fields


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


_WHOLE = _is("a whole number", lambda value: type(value) is int and 0 <= value < 2**63)
_SOME = _is("a whole number, at least 1", lambda value: type(value) is int and 1 <= value < 2**63)
_LENGTH = _is(f"a length, 0 to {LONGEST:,}", lambda value: type(value) is int and 0 <= value <= LONGEST)
_MEAN = _is("a mean of lengths", lambda value: type(value) in (int, float) and 0 <= value <= LONGEST)
_TEXT = _is("text", lambda value: isinstance(value, str))
_PRINTED = _is("text that can be printed", lambda value: isinstance(value, str) and _encodes(value))
_DIGEST = _is("a SHA-256", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)
_SHAPE = _rows(_WHOLE)
_ANYTHING = _is("anything", lambda _: True)
_FILES = _each(_fields(bytes=_WHOLE, sha256=_DIGEST))
_LENGTHS = _fields(mean=_MEAN, **{f"p{level}": _MEAN for level in QUANTILES}, max=_LENGTH)


def _encodes(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _source(value: Any, place: str) -> None:
    _SOURCE(value, place)  # which a cache of a cache has within


_SOURCE = _fields(
    ["converted_from"],
    kind=_PRINTED,
    inputs=_rows(_fields(["files"], path=_PRINTED, bytes=_WHOLE, sha256=_DIGEST, files=_WHOLE)),
    converted_from=_source,
)
_SPLIT = _fields(
    ["files"],
    samples=_SOME,
    targets=_or_none(_fields(dtype=_TEXT, shape=_SHAPE)),
    lengths=_each(_LENGTHS),
    missing=_each(_WHOLE),
    padded_to=_or_none(_each(_LENGTH)),
    rules=_each(_ANYTHING),
    nonfinite=_each(_WHOLE),
    left_out=_rows(_fields(file=_TEXT, line=_or_none(_WHOLE), utterance=_TEXT, reason=_TEXT)),
    files=_FILES,
)
_MANIFEST = _fields(
    ["files"],
    source=_source,
    modalities=_each(
        _fields(["vocabulary_size"], dtype=_TEXT, feature_shape=_SHAPE, vocabulary_size=_SOME), names=True, least=1
    ),
    standardized=_each(_fields(frames=_SOME, split=_TEXT)),
    splits=_each(_SPLIT, names=True, least=1),
    files=_FILES,
)


def _same_names(value: Mapping[str, Any] | None, wanted: set[str], place: str) -> None:
    if value is None or value.keys() != wanted:
        found = None if value is None else sorted(value)
        raise SourceError(f"{place} is of {_short(found)}, and should be of {sorted(wanted)}")


def _check_split(facts: Mapping[str, Any], modalities: Mapping[str, Any], place: str) -> None:
    for key in ("lengths", "missing"):
        _same_names(facts[key], set(modalities), f"{place}.{key}")
    for name, length in (facts["padded_to"] or dict.fromkeys(modalities, LONGEST)).items():
        if name in modalities and length < facts["lengths"][name]["max"]:
            raise SourceError(f"{place}.padded_to.{name} is {length}, and a sample is longer")
    if facts["padded_to"] is not None and not facts["padded_to"].keys() >= modalities.keys():
        raise SourceError(f"{place}.padded_to is not of all modalities, but {_short(sorted(facts['padded_to']))}")


def _check_files(facts: Mapping[str, Any], modalities: Mapping[str, Any], place: str) -> None:
    files = facts.get("files")
    wanted = {file(name) for name in modalities for file in (array_file, offsets_file)}
    if facts["targets"] is not None:
        wanted.add(array_file("targets"))
    if files is not None and array_file(IDS) in files:
        wanted |= {array_file(IDS), offsets_file(IDS)}
    _same_names(files, wanted, f"{place}.files")


def _check_statistics(facts: Mapping[str, Any], modality: Mapping[str, Any] | None, place: str) -> None:
    if modality is None:
        raise SourceError(f"{place} is of no modality of the cache")
    for key in ("mean", "std"):
        try:
            values = np.array(facts.get(key))
        except ValueError:  # lists of unequal lengths
            values = np.array(None)
        shape = tuple(modality["feature_shape"])
        if values.dtype.kind not in "iuf" or values.shape != shape or not np.isfinite(values).all():
            raise SourceError(f"{place}.{key} is {_short(facts.get(key))}, not finite numbers of the shape {shape}")
        if key == "std" and (values <= 0).any():
            raise SourceError(f"{place}.std is not above 0")
