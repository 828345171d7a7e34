"""The manifest of a flat cache: checked for its form when it is written and when it is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import TARGETS, shown
from multimodal_pad.lengths.table import LONGEST, LengthTable
from multimodal_pad.reading import file_size, reading, reason
from multimodal_pad.sources.cache_files import IDS, MANIFEST, array_file, offsets_file, vocabulary_file
from multimodal_pad.sources.json_form import each, fields, is_a, or_none, rows

FORMAT, VERSION = "multimodal_pad flat cache", 2
_WITHOUT_DIGESTS = 1
"""The version before: ids are strings of one width, and the manifest has no digests of files."""

QUANTILES = (5, 25, 50, 75, 95, 99)
"""Quantile levels of the lengths in the manifest, in per cent."""

AGAIN = "convert the corpus again, or take the file that convert wrote"


def describe(source: Any, lengths: LengthTable, where: str) -> dict[str, Any]:
    """Return a corpus' description of itself: ``padded_to``, ``rules``, ``nonfinite`` and ``left_out``.

    Raises:
        SourceError: an attribute of such a name is not what corpora have there.
    """
    said = {name: getattr(source, name, default) for name, default in _UNDESCRIBED.items()}
    try:
        for key in ("padded_to", "nonfinite"):
            said[key] = said[key] and {name: said[key][name] for name in lengths.modalities if name in said[key]}
        said["left_out"] = [row._asdict() for row in said["left_out"]]
        said = as_json(said)
        for key, check in _DESCRIBED.items():
            check(said[key], f"its {key}")
        _check_padded(said["padded_to"], lengths.maxima, "its padded_to")
    except SourceError as error:
        raise SourceError(f"{where}: {error}; corpora have {list(_DESCRIBED)} as Corpus says") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"{where}: corpora have {list(_DESCRIBED)} as Corpus says ({reason(error)})") from None
    return said


_UNDESCRIBED = {"padded_to": None, "rules": {}, "nonfinite": {}, "left_out": ()}


def as_json(value: Any) -> Any:
    """Return a value as it comes back from a JSON file: NumPy's numbers as numbers, paths as text."""
    return json.loads(
        json.dumps(value, default=lambda item: item.item() if isinstance(item, np.generic) else str(item))
    )


def summarize(table: LengthTable) -> dict[str, dict[str, Any]]:
    """Summarize the lengths of a split for the manifest: per modality mean, quantiles, maximum, and the missing."""
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
    """Read the manifest of a cache; None where there is none.

    Raises:
        SourceError: no such folder, or a manifest that is damaged or of another version.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; name that of a cache")
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path)
    check_manifest(manifest, str(path))
    return manifest


def require_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a cache.

    Raises:
        SourceError: as :func:`read_manifest`, or there is none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise SourceError(f"{folder}: has no {MANIFEST}; it is no flat cache, or one that was never finished")
    return manifest


def read_json(path: Path) -> Any:
    """Read a JSON file of a cache.

    Raises:
        SourceError: there is no such file, or it is no JSON.
    """
    try:
        file_size(path)
        with reading(path, AGAIN):
            return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; {AGAIN}") from None


def has_digests(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest has the size and SHA-256 of each file."""
    return manifest["version"] > _WITHOUT_DIGESTS


def check_manifest(manifest: Any, where: str) -> None:
    """Check the form of a manifest, so that its readers need not.

    Raises:
        SourceError: it is of another format or version, or a value is not what it must be; its place is named.

    >>> check_manifest({"format": "multimodal_pad flat cache", "version": 2, "splits": []}, "manifest.json")
    Traceback (most recent call last):
    multimodal_pad.errors.SourceError: manifest.json: has no 'source'; convert the corpus again, or take the file that \
convert wrote
    """
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if found not in [(FORMAT, version) for version in (_WITHOUT_DIGESTS, VERSION)]:
        raise SourceError(f"{where}: is {shown(found)}, not {(FORMAT, VERSION)}; convert the corpus again")
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
    """Return the SHA-256 of a manifest without this digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_vocabulary(vocabulary: Any, size: int, where: str) -> None:
    """Raise a SourceError unless a vocabulary is token to number, up to the size that the manifest has."""
    with _of_the(where):
        each(_WHOLE)(vocabulary, "the vocabulary")
        found = vocabulary_size(vocabulary)
        if found != size:
            raise SourceError(f"has numbers up to {found - 1}, and the manifest says that there are {size}")


def vocabulary_size(vocabulary: Mapping[str, int]) -> int:
    """Return the size of a vocabulary, with 0 for padding and 1 for unknown tokens."""
    return 1 + max(vocabulary.values(), default=1)


@contextmanager
def _of_the(where: str) -> Iterator[None]:
    """Add to errors the name of the file that they are about."""
    try:
        with reading("as a whole"):  # such as lists within lists a thousand times
            yield
    except SourceError as error:
        raise SourceError(f"{where}: {error}; {AGAIN}") from None


_WHOLE = is_a("a whole number", lambda value: type(value) is int and 0 <= value < 2**63)
_SOME = is_a("a whole number, at least 1", lambda value: type(value) is int and 1 <= value < 2**63)
_LENGTH = is_a(f"a length, 0 to {LONGEST:,}", lambda value: type(value) is int and 0 <= value <= LONGEST)
_MEAN = is_a("a mean of lengths", lambda value: type(value) in (int, float) and 0 <= value <= LONGEST)
_TEXT = is_a("text", lambda value: isinstance(value, str))
_PRINTED = is_a("text that can be printed", lambda value: isinstance(value, str) and _encodes(value))
_DIGEST = is_a("a SHA-256", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)
_SHAPE = rows(_WHOLE)
_ANYTHING = is_a("anything", lambda _: True)
_FILES = each(fields(bytes=_WHOLE, sha256=_DIGEST))
_LENGTHS = fields(mean=_MEAN, **{f"p{level}": _MEAN for level in QUANTILES}, max=_LENGTH)


def _encodes(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _source(value: Any, place: str) -> None:
    _SOURCE(value, place)  # which a cache of a cache has within


_SOURCE = fields(
    ["converted_from"],
    kind=_PRINTED,
    inputs=rows(fields(["files"], path=_PRINTED, bytes=_WHOLE, sha256=_DIGEST, files=_WHOLE)),
    converted_from=_source,
)
_DESCRIBED = {
    "padded_to": or_none(each(_LENGTH)),
    "rules": each(_ANYTHING),
    "nonfinite": each(_WHOLE),
    "left_out": rows(fields(file=_TEXT, line=or_none(_WHOLE), utterance=_TEXT, reason=_TEXT)),
}
_SPLIT = fields(
    ["files"],
    samples=_SOME,
    targets=or_none(fields(dtype=_TEXT, shape=_SHAPE)),
    lengths=each(_LENGTHS),
    missing=each(_WHOLE),
    files=_FILES,
    **_DESCRIBED,
)
_MANIFEST = fields(
    ["files"],
    source=_source,
    modalities=each(
        fields(["vocabulary_size"], dtype=_TEXT, feature_shape=_SHAPE, vocabulary_size=_SOME), names=True, least=1
    ),
    standardized=each(fields(frames=_SOME, split=_TEXT)),
    splits=each(_SPLIT, names=True, least=1),
    files=_FILES,
)


def _same_names(value: Mapping[str, Any] | None, wanted: set[str], place: str) -> None:
    if value is None or value.keys() != wanted:
        found = None if value is None else sorted(value)
        raise SourceError(f"{place} is of {shown(found)}, and should be of {sorted(wanted)}")


def _check_split(facts: Mapping[str, Any], modalities: Mapping[str, Any], place: str) -> None:
    for key in ("lengths", "missing"):
        _same_names(facts[key], set(modalities), f"{place}.{key}")
    _check_padded(
        facts["padded_to"], {name: row["max"] for name, row in facts["lengths"].items()}, f"{place}.padded_to"
    )


def _check_padded(padded_to: Mapping[str, int] | None, longest: Mapping[str, int], place: str) -> None:
    """Raise a SourceError where a modality's padded length is below its longest sample, or missing."""
    if padded_to is None:
        return
    for name, length in longest.items():
        if padded_to.get(name, -1) < length:
            raise SourceError(f"{place}.{name} is {padded_to.get(name)}, and a sample has {length} positions")


def _check_files(facts: Mapping[str, Any], modalities: Mapping[str, Any], place: str) -> None:
    files = facts.get("files")
    wanted = {file(name) for name in modalities for file in (array_file, offsets_file)}
    if facts["targets"] is not None:
        wanted.add(array_file(TARGETS))
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
            raise SourceError(f"{place}.{key} is {shown(facts.get(key))}, not finite numbers of the shape {shape}")
        if key == "std" and (values <= 0).any():
            raise SourceError(f"{place}.std is not above 0")
