"""Samples that are tuples, with names for their parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.samples import Sample


def named_samples(samples: Any, names: Sequence[Any]) -> Any:
    """Give names to the parts of samples that are tuples, so that they serve wherever samples of dicts do.

    Args:
        samples: with ``len()`` and ``[i]``, or any iterable; each gives a tuple or a list.
        names: a name for each part: of a modality, ``"targets"`` or ``"position_targets"``; None for a part that is
            left out, or names again where a part is a tuple of parts.

    Returns:
        Samples with ``len()`` and ``[i]``, or an iterable; an iterator where an iterator was given.

    Raises:
        SampleError: no name, or one twice; from reading: a sample of another number of parts, named by its number.

    >>> samples = named_samples([(([7, 8], [0.5, 0.1]), 1, "id of it")], (("text", "audio"), "targets", None))
    >>> len(samples), samples[0]
    (1, {'text': [7, 8], 'audio': [0.5, 0.1], 'targets': 1})
    """
    flat = list(_flat_names(names))
    if isinstance(names, str) or not flat or len(set(flat)) < len(flat) or not all(isinstance(n, str) for n in flat):
        raise SampleError(
            f'got the names {names!r}; give a name for each part of a sample, such as ("text", "audio", "targets"), '
            "each once, and None for a part that is left out"
        )
    if isinstance(samples, Iterator):
        return (_named_parts(sample, names, f"sample {i} of the stream") for i, sample in enumerate(samples))
    indexed = hasattr(samples, "__len__") and hasattr(samples, "__getitem__")
    return (_NamedSource if indexed else _NamedStream)(samples, tuple(names))


class _NamedSource:
    def __init__(self, samples: Any, names: tuple[Any, ...]) -> None:
        self._samples, self._names = samples, names
        self.lengths = getattr(samples, "lengths", None)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return _named_parts(self._samples[index], self._names, f"sample {index}")


class _NamedStream:
    def __init__(self, samples: Any, names: tuple[Any, ...]) -> None:
        self._samples, self._names = samples, names

    def __iter__(self) -> Iterator[Sample]:
        return iter(named_samples(iter(self._samples), self._names))


def _flat_names(names: Any) -> Iterator[Any]:
    """Yield all names, those of parts of parts too."""
    for name in names:
        if isinstance(name, tuple | list):
            yield from _flat_names(name)
        elif name is not None:
            yield name


def _named_parts(parts: Any, names: Sequence[Any], what: str) -> dict[str, Any]:
    """Return the parts of a sample by their names."""
    if not isinstance(parts, tuple | list) or len(parts) != len(names):
        has = f"{len(parts)} parts" if isinstance(parts, tuple | list) else type(parts).__name__
        raise SampleError(f"{what}: got {has} for the names {list(names)}; give a tuple with a part for each name")
    sample: dict[str, Any] = {}
    for name, part in zip(names, parts, strict=True):
        if isinstance(name, tuple | list):
            sample |= _named_parts(part, name, what)
        elif name is not None:
            sample[name] = part
    return sample
