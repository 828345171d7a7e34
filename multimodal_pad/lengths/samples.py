"""Samples and sources: what they are, and the errors of those that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, get_args

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, SampleError
from multimodal_pad.lengths.arrays import array_of_positions

TARGETS = "targets"
"""The key of a sample that holds its targets: an array, or a dict of arrays, or of such dicts."""

POSITION_TARGETS = "position_targets"
"""The key of a sample that holds targets of positions: ``{modality: array (length, ...)}``, or dicts of such arrays."""

RESERVED = (TARGETS, POSITION_TARGETS)
"""Every other key of a sample is a modality."""

EMPTY = -1
"""The number of a sample that only fills up a short batch."""

Sample = Mapping[str, Any]
"""``{modality: array (length, *feature_shape), ..., "targets": array (...)}``, and ``"position_targets"`` like it.

Where samples are read, a dataclass, a NamedTuple, a class of attrs and a ``SimpleNamespace`` stand for a dict of their
fields."""


class Source(Protocol):
    """Anything with ``len()`` and ``[i]`` that yields samples: a list of dicts is enough.

    A source that has a ``lengths`` attribute (a :class:`LengthTable`) is never read only to be
    measured.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the modality names as a tuple; at least one, no repeats, none that is reserved."""
    if isinstance(names, str):
        raise LengthError(f"got the string {names!r} for the modalities; give a sequence of names")
    checked = tuple(names)
    if not all(isinstance(name, str) for name in checked):
        raise LengthError(f"got the modalities {list(checked)}; a name is a string")
    if not checked or len(set(checked)) < len(checked) or not set(RESERVED).isdisjoint(checked):
        raise LengthError(
            f"got the modalities {list(checked)}; give at least one name, each once, "
            f"and none of them {TARGETS!r} or {POSITION_TARGETS!r}, which are keys of targets"
        )
    return checked


LARGEST = 2**31 - 1
"""No length, and no number of rows or samples, is larger: batches hold them as int32."""


def check_whole(
    name: str, value: object, least: int, error: type[PaddingError] = PaddingError, *, most: int | None = LARGEST
) -> None:
    """Raise ``error`` unless ``value`` is a whole number of at least ``least``, and at most ``most`` (None: any)."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise error(f"got {name}={shown(value)}; it must be a whole number, at least {least}")
    if most is not None and value > most:
        raise error(f"got {name}={shown(value)}; it must be a whole number, at most {most:,}")


def check_choice(name: str, value: object, allowed: Any) -> None:
    """Raise a PaddingError where an option is not one of those that its Literal type lists."""
    if value not in get_args(allowed):
        raise PaddingError(f"got {name}={value!r}; choose one of {list(get_args(allowed))}")


def shown(value: object) -> str:
    """Return a value as errors show it: as Python does, and no longer than a line.

    >>> shown(2.5), shown(10**400)[:8]
    ('2.5', '10000000')
    """
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}..."


def modality_names(sample: Sample) -> tuple[str, ...]:
    """Return every key of a sample that is a modality, in the sample's order."""
    return tuple(name for name in sample if name not in RESERVED)


def check_same_modalities(sample: Sample, names: tuple[str, ...], index: int) -> None:
    """Raise a SampleError where a sample has a modality that the first one lacks."""
    if {*names, *RESERVED}.issuperset(sample):
        return
    extra = [name for name in modality_names(sample) if name not in names]
    if extra:
        raise SampleError(
            f"sample {index} has {extra}, which the first sample lacks (it has {list(names)}); a modality that is "
            "missing in a sample is an array of length 0 there, [] or None, or name the modalities that you want"
        )


def fields_of(given: Any) -> Sample | None:
    """Return the fields of a dataclass, NamedTuple, attrs class or namespace by their names; None for anything else.

    >>> fields_of(SimpleNamespace(text=[3, 1], targets=2))
    {'text': [3, 1], 'targets': 2}
    """
    if isinstance(given, type):
        return None
    if isinstance(given, SimpleNamespace):
        return dict(vars(given))
    if dataclasses.is_dataclass(given):
        names = [field.name for field in dataclasses.fields(given)]
    elif isinstance(given, tuple) and hasattr(given, "_fields"):
        names = getattr(given, "_fields")  # noqa: B009  type checkers find it on no type
    else:
        names = [field.name for field in getattr(type(given), "__attrs_attrs__", ())]
    return {name: getattr(given, name) for name in names} if names else None


def as_sample(given: Any, what: str) -> Sample:
    """Return a mapping from names, or the named fields of an object.

    Raises:
        SampleError: it is none, and has no named fields.

    >>> as_sample((np.zeros(3), 1), "sample 4")
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 4 is no mapping but tuple; name its parts (2), such as \
named_samples(samples, ("text", "audio", "targets")), with None for what is to be left out
    """
    if isinstance(given, Mapping):
        return given
    fields = fields_of(given)
    if fields is not None:
        return fields
    if isinstance(given, tuple | list):
        instead = (
            f'name its parts ({len(given)}), such as named_samples(samples, ("text", "audio", "targets")), with None '
            "for what is to be left out"
        )
    elif given is None:
        instead = (
            "leave such samples out before (Grain's filter leaves None in their places until to_iter_dataset(), whose "
            "samples StreamIterDataset or StreamBatcher takes)"
        )
    else:
        instead = "a sample is {modality: array (length, *feature_shape), ...}"
    raise SampleError(f"{what} is no mapping but {type(given).__name__}; {instead}")


def check_indexable(samples: Any, error: type[PaddingError] = LengthError) -> int:
    """Return the number of samples.

    Raises:
        PaddingError: what was given has no ``len()`` and ``[i]``, gives no samples by their numbers, or has no end.
    """
    named = type(samples).__name__
    if isinstance(samples, Mapping | str | bytes) or hasattr(samples, "iloc"):
        raise error(
            f"got samples of type {named}; give a sequence of samples, {{modality: array, ...}} each (of columns: "
            "[dict(zip(columns, row)) for row in zip(*columns.values())])"
        )
    try:
        count = len(samples)
    except TypeError:
        count = None
    if count is None or not hasattr(samples, "__getitem__"):
        raise error(
            f"got samples of type {named}; give something with len() and [i], such as a list, or take StreamBatcher, "
            "which reads any iterable"
        )
    if count > LARGEST:
        raise error(
            f"got samples of type {named}, of which there are {count:,}, as where they are repeated without end; leave "
            ".repeat() out: a batcher runs as many epochs as it is asked for"
        )
    return count


def read_sample(source: Source, index: int) -> Sample:
    """Read sample ``index``; an error that the source raises gets a note that names the sample.

    Raises:
        SampleError: it is no mapping, and has no named fields.
    """
    try:
        sample = source[index]
    except Exception as error:
        error.add_note(f"while sample {index} was read")
        raise
    return sample if isinstance(sample, Mapping) else as_sample(sample, f"sample {index}")


def modality_array(sample: Sample, name: str, index: int) -> np.ndarray:
    """Return the array of one modality of sample number ``index``, rank 1 or more, in the byte order of this machine.

    None, and whatever has no positions, is a modality that is missing: an array of length 0.

    Raises:
        SampleError: the key is missing, or its value is a scalar, not numeric, masked, or has no numbers at its
            positions.
    """
    if name not in sample:
        raise SampleError(
            f"sample {index} has no {name!r}, only {sorted(map(str, sample))}; a modality that is missing in a sample "
            "is an array of length 0 there, [] or None"
        )
    array = array_of_positions(sample[name], index, repr(name))
    if not array.ndim:
        raise SampleError(
            f"sample {index}, {name!r}: got shape () and dtype {array.dtype}; a modality is a numeric array (length, "
            "*feature_shape) or token ids (length,), and [] or None where it is missing; what is to be predicted is "
            "under 'targets'"
        )
    return array
