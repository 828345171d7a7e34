"""What a sample and a source are, and what is wrong with one that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, SampleError

TARGETS = "targets"
"""The key of a sample that holds its targets: an array, or a dict of arrays, or of such dicts."""

POSITION_TARGETS = "position_targets"
"""The key of a sample that holds targets of positions: ``{modality: array (length, ...)}``, or dicts of such arrays."""

RESERVED = (TARGETS, POSITION_TARGETS)
"""Every other key of a sample is a modality."""

EMPTY = -1
"""The number of a sample that only fills up a short batch."""

Sample = Mapping[str, Any]
"""``{modality: array (length, *feature_shape), ..., "targets": array (...)}``, and ``"position_targets"`` like it."""


class Source(Protocol):
    """Anything with ``len()`` and ``[i]`` that yields samples: a list of dicts is enough.

    A source that has a ``lengths`` attribute (a :class:`LengthTable`) is never read only to be
    measured.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The modality names as a tuple; at least one, no repeats, none that is reserved."""
    if isinstance(names, str):
        raise LengthError(f"got the string {names!r} for the modalities; give a sequence of names")
    checked = tuple(names)
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


def shown(value: object) -> str:
    """A value as errors show it: as Python does, and no longer than a line.

    >>> shown(2.5), shown(10**400)[:8]
    ('2.5', '10000000')
    """
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}..."


def modality_names(sample: Sample) -> tuple[str, ...]:
    """Every key of a sample that is a modality, in the sample's order."""
    return tuple(name for name in sample if name not in RESERVED)


def check_same_modalities(sample: Sample, names: tuple[str, ...], index: int) -> None:
    """Raise a SampleError where a sample has a modality that the first one lacks."""
    if {*names, *RESERVED}.issuperset(sample):
        return
    extra = [name for name in modality_names(sample) if name not in names]
    if extra:
        raise SampleError(
            f"sample {index} has {extra}, which the first sample lacks (it has {list(names)}); a modality that is "
            "missing in a sample is an array of length 0, or name the modalities that you want"
        )


def read_sample(source: Source, index: int) -> Sample:
    """Sample ``index``; what the source raises goes on with a note that names the sample.

    Raises:
        SampleError: it is no mapping.
    """
    try:
        sample = source[index]
    except Exception as error:
        error.add_note(f"while sample {index} was read")
        raise
    if not isinstance(sample, Mapping):
        raise SampleError(
            f"sample {index} is no mapping but {type(sample).__name__}; a sample is {{modality: array (length, "
            "*feature_shape), ...}"
        )
    return sample


def modality_array(sample: Sample, name: str, index: int) -> np.ndarray:
    """The array of one modality of sample number ``index``, rank 1 or more.

    Raises:
        SampleError: the key is missing, or its value is a scalar or not numeric.
    """
    if name not in sample:
        raise SampleError(
            f"sample {index} has no {name!r}, only {sorted(sample)}; a modality that is missing "
            "in a sample is an array of length 0, with the width and dtype of the others"
        )
    with naming(repr(name), index):
        array = np.asarray(sample[name])
    check_array(array, name, index)
    return array


@contextmanager
def naming(where: str, index: int) -> Iterator[None]:
    """What an array fails by when it is read, with a word about whose it is."""
    try:
        yield
    except ValueError as error:
        raise SampleError(f"sample {index}, {where}: not an array of one shape ({error})") from None
    except Exception as error:
        error.add_note(f"while {where} of sample {index} was read")
        raise


def check_array(array: np.ndarray, name: str, index: int) -> None:
    """Raise a SampleError unless the array is numeric and of rank 1 or more."""
    if array.ndim == 0 or not (array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"):
        raise SampleError(
            f"sample {index}, {name!r}: got shape {array.shape} and dtype {array.dtype}; "
            "a modality is a numeric array (length, *feature_shape) or token ids (length,)"
        )
