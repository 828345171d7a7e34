"""Features of mean 0 and variance 1, by the statistics of one split's real frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError
from multimodal_pad.lengths.samples import Source, modality_array, read_sample
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import Progress


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and standard deviation of each feature of one modality.

    Attributes:
        mean: float64 ``feature_shape``.
        std: of the same shape; 1 where a feature is constant, so that it becomes 0.
        frames: number of frames measured.

    >>> found = FeatureStatistics.measure([{"audio": np.array([[1.0, 5.0], [3.0, 5.0]])}], "audio")
    >>> found.mean.tolist(), found.std.tolist(), found.frames
    ([2.0, 5.0], [1.0, 1.0], 2)
    """

    mean: np.ndarray
    std: np.ndarray
    frames: int

    @classmethod
    def measure(cls, source: Source, modality: str, progress: Progress | None = None) -> FeatureStatistics:
        """Measure the statistics of all real frames of a source, without padding and missing modalities.

        Computed in float64 and sample by sample (Chan, Golub and LeVeque 1983, eq. 2.1), so that the size of the
        corpus takes neither memory nor digits.

        Raises:
            PaddingError: the modality is token ids, or missing in every sample.

        >>> source = [{"audio": np.array([[1.0], [3.0]])}, {"audio": np.array([[5.0], [7.0]])}]
        >>> FeatureStatistics.measure(source, "audio")
        FeatureStatistics(mean=array([4.]), std=array([2.23606798]), frames=4)
        """
        frames, mean, squares = 0, np.zeros(()), np.zeros(())
        low, high = np.array(np.inf), np.array(-np.inf)
        for index in range(len(source)):
            array = modality_array(read_sample(source, index), modality, index)
            if len(array) and array.dtype.kind in "biu":
                raise PaddingError(
                    f"{modality!r} holds {array.dtype}, such as token ids; only floating point is standardised"
                )
            if len(array):
                own = array.mean(axis=0, dtype=np.float64)
                total = frames + len(array)
                between = (own - mean) ** 2 * (frames * len(array) / total)
                squares = squares + ((array - own) ** 2).sum(axis=0) + between
                mean = mean + (own - mean) * (len(array) / total)
                low, high = np.minimum(low, array.min(axis=0)), np.maximum(high, array.max(axis=0))
                frames = total
            if progress is not None:
                progress(f"statistics of {modality}", index + 1, len(source))
        if not frames:
            raise PaddingError(f"{modality!r} is missing in every sample; there is nothing to standardise it by")
        # Rounding leaves a constant feature a tiny deviation; dividing by it would blow up the rounding.
        return cls(mean, np.where(high > low, np.sqrt(squares / frames), 1.0), frames)


class Standardized:
    """A source with some modalities standardised: ``(features - mean) / std``, float32.

    Args:
        source: of the samples.
        statistics: of each modality that is to be standardised.

    Attributes:
        lengths: the length table.

    Raises:
        SampleError: a sample that does not fit the others.

    >>> samples = [{"audio": np.array([[1.0], [3.0]])}, {"audio": np.array([[5.0]])}]
    >>> source = Standardized(samples, {"audio": FeatureStatistics(np.array([3.0]), np.array([2.0]), frames=3)})
    >>> source[0]["audio"].tolist(), source.lengths.maxima
    ([[-1.0], [0.0]], {'audio': 2})
    """

    def __init__(self, source: Source, statistics: Mapping[str, FeatureStatistics]) -> None:
        self.source, self.statistics = source, dict(statistics)
        self.lengths = LengthTable.measure(source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = dict(read_sample(self.source, index))
        for name, found in self.statistics.items():
            array = modality_array(sample, name, index)
            if len(array) and array.shape[1:] != found.mean.shape:
                raise SampleError(
                    f"sample {index}, {name!r}: got features of shape {array.shape[1:]}, and its statistics are of "
                    f"{found.mean.shape}; give features of that shape"
                )
            sample[name] = ((array - found.mean) / found.std).astype(np.float32) if len(array) else array
        return sample


def measure_statistics(
    source: Source, modalities: Sequence[str], progress: Progress | None = None
) -> dict[str, FeatureStatistics]:
    """Measure the statistics of several modalities."""
    return {name: FeatureStatistics.measure(source, name, progress) for name in modalities}
