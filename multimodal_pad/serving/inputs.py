"""Checks of requests: modality names, feature shapes, dtypes, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from multimodal_pad.batching.held import held_sample
from multimodal_pad.errors import PaddingError, SampleError
from multimodal_pad.layouts.arrays import check_all_finite
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.lengths.samples import Sample, as_sample, modality_array
from multimodal_pad.sources.standardizing import FeatureStatistics


class Kind(NamedTuple):
    """The kind of one modality's arrays.

    Attributes:
        feature_shape: of each position.
        dtype: as the model takes it.
        vocabulary_size: token ids are below it; None where they are no token ids, or it isn't known.
    """

    feature_shape: tuple[int, ...]
    dtype: np.dtype
    vocabulary_size: int | None = None


class Inputs:
    """The conversion of requests to samples, or the errors of those that are none.

    Args:
        kinds: of each modality.
        standardize: statistics of the modalities whose features come unstandardised.
        check_finite: refuse NaN and inf.

    >>> inputs = Inputs({"audio": Kind((2,), np.dtype("float32"))})
    >>> inputs.arrays({"audio": [[1.0, 2.0]], "targets": 1}, 0)
    {'audio': array([[1., 2.]], dtype=float32)}
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        standardize: Mapping[str, FeatureStatistics] | None = None,
        *,
        check_finite: bool = True,
    ) -> None:
        self.kinds, self.standardize, self.check_finite = dict(kinds), dict(standardize or {}), check_finite
        for name, found in self.standardize.items():
            kind = self.kinds.get(name)
            if kind is None or kind.dtype.kind in "biu" or np.shape(found.mean) != kind.feature_shape:
                raise PaddingError(
                    f"got statistics to standardise {name!r} by, of shape {np.shape(found.mean)}, and the model takes "
                    f"{'no such modality' if kind is None else f'{kind.dtype}{list(kind.feature_shape)} of it'}; give "
                    "those that its corpus was standardised with"
                )

    def arrays(self, sample: Sample, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of a sample as the model takes them; targets and other keys are left out.

        Raises:
            SampleError: a modality is missing, has another feature shape, or values that the model's dtype doesn't
                hold, that are NaN or inf, or that are no token ids of the vocabulary.
        """
        # Copies: requests wait for their batch, and the caller's arrays may be written to meanwhile.
        held = held_sample(as_sample(sample, f"sample {number}"), tuple(self.kinds), number, targets=False, copy=True)
        return {name: self._array(modality_array(held, name, number), name, number) for name in self.kinds}

    def _array(self, array: np.ndarray, name: str, number: int) -> np.ndarray:
        kind = self.kinds[name]
        if not len(array):
            return np.empty((0, *kind.feature_shape), kind.dtype)  # a missing modality has neither width nor dtype
        if array.shape[1:] != kind.feature_shape:
            raise SampleError(
                f"sample {number}, {name!r}: got feature shape {array.shape[1:]}, and the model takes "
                f"{kind.feature_shape}; give arrays of (length, *feature_shape)"
            )
        if self.check_finite and array.dtype.kind not in "biu":
            check_all_finite([array], name, [number])
        if name in self.standardize:
            found = self.standardize[name]
            array = ((array - found.mean) / found.std).astype(np.float32)
        cast = self._cast(array, kind, name, number)
        if kind.vocabulary_size is not None and cast.dtype.kind in "iu":
            low, high = int(cast.min()), int(cast.max())
            if low < 0 or high >= kind.vocabulary_size:
                raise SampleError(
                    f"sample {number}, {name!r}: got the token id {low if low < 0 else high}; ids run from 0 to "
                    f"{kind.vocabulary_size - 1}"
                )
        return cast

    def _cast(self, array: np.ndarray, kind: Kind, name: str, number: int) -> np.ndarray:
        """Convert to the dtype of the model, where that changes values by rounding only."""
        if array.dtype == kind.dtype:
            return array
        whole, wanted = array.dtype.kind in "biu", kind.dtype.kind
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(kind.dtype)
        if wanted in "biu":
            fits = whole and (wanted != "b" or array.dtype.kind == "b") and bool((cast == array).all())
        else:
            fits = bool((np.isfinite(cast.astype(np.float32)) | ~np.isfinite(array)).all())
        if not fits:
            raise SampleError(
                f"sample {number}, {name!r}: got {array.dtype} with values that {kind.dtype}, which the model takes, "
                "does not hold; give that dtype"
            )
        return cast


def kinds_of(example: Sample | Batch, modalities: tuple[str, ...]) -> dict[str, Kind]:
    """Return the kinds of the arrays of a sample, or of a batch's first sample, in the dtypes that JAX takes them in.

    Raises:
        SampleError: it lacks a modality, or has something other than numbers there.
        PaddingError: a batch without a sample.
    """
    sample = example if isinstance(example, Mapping) else _first_of(example)
    kinds = {}
    for name in modalities:
        array = modality_array(sample, name, 0)
        kinds[name] = Kind(array.shape[1:], np.dtype(jax.dtypes.canonicalize_dtype(array.dtype)))
    return kinds


def as_configured(kinds: Mapping[str, Kind], feature_widths: Mapping[str, int]) -> dict[str, Kind]:
    """Return the kinds that the model takes, even where the example is empty, or of a dtype that holds only it.

    Args:
        kinds: of an example; those with a vocabulary are token ids.
        feature_widths: of the other modalities, as far as the model's config has them.

    >>> kinds = {"text": Kind((), np.dtype("uint8"), 9000), "audio": Kind((), np.dtype("int32"))}
    >>> for name, kind in as_configured(kinds, {"audio": 74}).items():
    ...     print(name, kind.feature_shape, kind.dtype)
    text () int32
    audio (74,) float32
    """
    found = {}
    for name, kind in kinds.items():
        if kind.vocabulary_size is not None and (kind.dtype.kind not in "iu" or kind.dtype.itemsize < 4):
            kind = kind._replace(dtype=np.dtype(np.int32))
        elif name in feature_widths:
            width = feature_widths[name]
            shape = kind.feature_shape if math.prod(kind.feature_shape) == width else (width,)
            kind = kind._replace(feature_shape=shape)
            if kind.dtype.kind in "biu":
                kind = kind._replace(dtype=np.dtype(np.float32))
        found[name] = kind
    return found


def _first_of(batch: Any) -> Sample:
    samples = batch.layout.take_apart(batch)
    if not samples:
        raise PaddingError("got an example batch without a sample; give a sample, or a batch that has one")
    return samples[0]
