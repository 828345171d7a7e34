"""Samples of one run are alike: the same feature shapes, dtypes and targets, from the first one on."""

from __future__ import annotations

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.samples import TARGETS, Sample, target_array


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
        self._first: dict[str, tuple[int, tuple[tuple[int, ...], np.dtype] | None]] = {}

    def check(self, number: int, modality: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Raise a SampleError where sample ``number`` has another feature shape or dtype than the first one."""
        kind = (shape, dtype)
        first, wanted = self._first.setdefault(modality, (number, kind))
        if kind != wanted and wanted is not None:
            raise SampleError(
                f"sample {number}, {modality!r}: got feature shape {shape} and dtype {dtype}, but sample {first} "
                f"has {wanted[0]} and {wanted[1]}; give every sample the same"
            )

    def check_targets(self, number: int, sample: Sample) -> None:
        """Raise a SampleError where the targets have another shape or dtype than the first one's, or one has none."""
        kind = None
        if TARGETS in sample:
            targets = target_array(sample, number)
            kind = (targets.shape, targets.dtype)
        first, wanted = self._first.setdefault(TARGETS, (number, kind))
        if kind != wanted:
            raise SampleError(
                f"sample {number}, {TARGETS!r}: got {_describe(kind)}, but sample {first} has {_describe(wanted)}; "
                "give all samples the same"
            )


def _describe(kind: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "none" if kind is None else f"shape {kind[0]} and dtype {kind[1]}"
