"""Samples of one run are alike: the same feature shapes, dtypes and targets, from the first one on."""

from __future__ import annotations

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample
from multimodal_pad.lengths.targets import target_arrays

_Kind = tuple[tuple[int, ...], np.dtype]
_TARGETS = repr(TARGETS)


class AlikeSamples:
    """Holds each sample against the first one.

    >>> alike = AlikeSamples()
    >>> alike.check(0, "audio", (74,), np.dtype("float32"))
    >>> alike.check(6, "audio", (35,), np.dtype("float32"))
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 6, 'audio': got feature shape (35,) and dtype float32, but sample 0 has \
(74,) and float32; give every sample the same
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, _Kind]] = {}
        self._targets: tuple[int, dict[str, _Kind]] | None = None

    def check(self, number: int, modality: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Raise a SampleError where sample ``number`` has another feature shape or dtype than the first one."""
        kind = (shape, dtype)
        first, wanted = self._first.setdefault(modality, (number, kind))
        if kind != wanted:
            raise SampleError(
                f"sample {number}, {modality!r}: got feature shape {shape} and dtype {dtype}, but sample {first} "
                f"has {wanted[0]} and {wanted[1]}; give every sample the same"
            )

    def check_targets(self, number: int, sample: Sample) -> None:
        """Hold targets, and those of positions, against the first sample's.

        Raises:
            SampleError: they have another shape or dtype, or one has some where the other has none.
        """
        if self._targets is not None and POSITION_TARGETS not in sample:  # the usual: one array, or none at all
            targets, kinds = sample.get(TARGETS), self._targets[1]
            if not kinds and TARGETS not in sample:
                return
            if isinstance(targets, np.ndarray | np.generic) and kinds == {_TARGETS: (targets.shape, targets.dtype)}:
                return
        kinds = {where: (x.shape, x.dtype) for where, x in target_arrays(sample, TARGETS, number).items()}
        for where, x in target_arrays(sample, POSITION_TARGETS, number).items():
            kinds[where] = (x.shape[1:], x.dtype)
        if self._targets is None:
            self._targets = (number, kinds)
        first, wanted = self._targets
        for where in [*wanted, *kinds]:
            if kinds.get(where) != wanted.get(where):
                raise SampleError(
                    f"sample {number}, {where}: got {_describe(kinds.get(where))}, but sample {first} has "
                    f"{_describe(wanted.get(where))}; give all samples the same"
                )


def _describe(kind: _Kind | None) -> str:
    return "none" if kind is None else f"shape {kind[0]} and dtype {kind[1]}"
