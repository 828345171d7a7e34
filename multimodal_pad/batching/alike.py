"""Samples of one run are alike: the same feature shapes, dtypes and targets, from the first one that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.arrays import alike_arrays
from multimodal_pad.lengths.kinds import PositionKind
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample
from multimodal_pad.lengths.targets import target_arrays
from multimodal_pad.lengths.trees import Tree, leaves_of

_Kind = tuple[tuple[int, ...], np.dtype]
_TARGETS = repr(TARGETS)


class AlikeSamples:
    """A check of each sample against the first one that has the same parts.

    A modality that is missing has neither feature shape nor dtype, whatever its array of length 0 says, nor have the
    targets of its positions.

    >>> alike = AlikeSamples()
    >>> alike.check(0, "audio", (74,), np.dtype("float32"))
    >>> alike.check(6, "audio", (35,), np.dtype("float32"))
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 6, 'audio': got feature shape (35,) and dtype float32, but sample 0 has \
(74,) and float32; give every sample the same
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[int | None, _Kind]] = {}
        self._targets: tuple[int, dict[str, _Kind | None]] | None = None

    def check(self, number: int, modality: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Raise a SampleError where sample ``number`` has another feature shape or dtype than the first one."""
        kind = (shape, dtype)
        first, wanted = self._first.setdefault(modality, (number, kind))
        if kind != wanted and first is None:
            raise SampleError(
                f"sample {number}, {modality!r}: got feature shape {shape} and dtype {dtype}, and batches before it, "
                f"whose samples all lack it, were made with {wanted[0]} and {wanted[1]}; give these samples "
                f"np.zeros({(0, *shape)}, np.{dtype}) for it"
            )
        if kind != wanted:
            raise SampleError(
                f"sample {number}, {modality!r}: got feature shape {shape} and dtype {dtype}, but sample {first} "
                f"has {wanted[0]} and {wanted[1]}; give every sample the same"
            )

    def kind(self, name: str) -> PositionKind | None:
        """Return the kind of a modality's positions; None before the first sample that has one."""
        found = self._first.get(name)
        return None if found is None else PositionKind(*found[1])

    def check_targets(self, number: int, sample: Sample) -> None:
        """Check targets, and those of positions, against the first sample's.

        Raises:
            SampleError: they have another shape or dtype, or one has some where the other has none.
        """
        if self._targets is not None and POSITION_TARGETS not in sample:  # the usual case: one array, or none at all
            targets, kinds = sample.get(TARGETS), self._targets[1]
            if not kinds and targets is None:
                return
            if isinstance(targets, np.ndarray | np.generic) and kinds == {_TARGETS: (targets.shape, targets.dtype)}:
                return
        kinds: dict[str, _Kind | None] = {
            where: (x.shape, x.dtype) for where, x in target_arrays(sample, TARGETS, number).items()
        }
        of_positions = target_arrays(sample, POSITION_TARGETS, number)
        kinds |= dict.fromkeys(of_positions)
        if self._targets is None:
            self._targets = (number, kinds)
        first, wanted = self._targets
        for where in [*wanted, *kinds]:
            if where not in kinds or where not in wanted or kinds[where] != wanted[where]:
                self._differ(number, where, kinds, first, wanted)
            x = of_positions.get(where)
            if x is not None and x.ndim and len(x):
                kind = (x.shape[1:], x.dtype)
                before, other = self._first.setdefault(where, (number, kind))
                if kind != other:
                    self._differ(number, where, {where: kind}, before, {where: other})

    def arrays(
        self, samples: list[Sample], modalities: Sequence[str], numbers: Sequence[int]
    ) -> dict[str, list[np.ndarray]]:
        """Return the arrays of each modality of a batch's samples, alike among themselves and with those before.

        A modality that all of them lack takes its kind from other samples, and so do the targets of its positions: a
        sample that has others is replaced in ``samples``.

        Raises:
            SampleError: a sample is not like the others.
        """
        found = {name: alike_arrays(samples, name, numbers, self.kind(name)) for name in modalities}
        for name, arrays in found.items():
            place = 0 if len(arrays[0]) else next((i for i, array in enumerate(arrays) if len(array)), None)
            if place is not None:
                self.check(numbers[place], name, arrays[place].shape[1:], arrays[place].dtype)
                continue
            self._assume(name, PositionKind.of(arrays[0]))
            for place, sample in enumerate(samples):
                given = sample.get(POSITION_TARGETS) or {}
                if name in given:
                    tree = self._no_positions(given[name], f"{POSITION_TARGETS!r}[{name!r}]")
                    samples[place] = {**sample, POSITION_TARGETS: {**given, name: tree}}
        for number, sample in zip(numbers, samples, strict=True):  # within a batch samples are alike
            self.check_targets(number, sample)
            if all(map(np.size, leaves_of(sample.get(POSITION_TARGETS)))):
                break
        return found

    def _assume(self, name: str, kind: PositionKind) -> None:
        """Take the kind that batches were made of as that of all later samples."""
        self._first.setdefault(name, (None, (kind.shape, kind.dtype)))

    def _no_positions(self, tree: Tree, where: str) -> Tree:
        """Return targets of no positions, each of the kind that other samples have."""
        if isinstance(tree, Mapping):
            return {key: self._no_positions(branch, f"{where}[{key!r}]") for key, branch in tree.items()}
        self._assume(where, PositionKind.of(tree))
        kind = self.kind(where)
        return tree if kind is None else kind.empty

    @staticmethod
    def _differ(
        number: int,
        where: str,
        kinds: Mapping[str, _Kind | None],
        first: int | None,
        wanted: Mapping[str, _Kind | None],
    ) -> NoReturn:
        raise SampleError(
            f"sample {number}, {where}: got {_describe(where, kinds)}, but {_named(first)} has "
            f"{_describe(where, wanted)}; give all samples the same"
        )


def _named(first: int | None) -> str:
    return "a batch before, whose samples lack it all," if first is None else f"sample {first}"


def _describe(where: str, kinds: Mapping[str, _Kind | None]) -> str:
    if where not in kinds:
        return "none"
    kind = kinds[where]
    return "targets of positions" if kind is None else f"shape {kind[0]} and dtype {kind[1]}"
