"""A synthetic corpus with MELD's joint lengths, and labels that need two modalities at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.lengths.table import LengthTable

WIDTHS = {"text": 300, "audio": 74, "visual": 35}
"""Features per position: GloVe, COVAREP and Facet, as in CMU-MOSEI."""

AUDIO_RATE = 20
"""Audio frames per second, as in MulT."""

VISUAL_RATE = 15
"""Visual frames per second, as in MulT."""

# Quantiles of the 13,704 utterances of MELD (Poria et al., ACL 2019) of more than 0 and at most 40 s.
_LEVELS = np.array([0, 1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 100]) / 100
_WORDS = np.array([1, 1, 1, 1, 3, 6, 11, 17, 20, 24, 26, 30, 38, 69])
_SECONDS = np.array([0.14, 0.36, 0.67, 1.0, 1.54, 2.46, 3.92, 6.28, 7.88, 10.01, 11.63, 13.17, 17.29, 28.53])
_COPULA = 0.74  # correlation of the normal variates that gives the lengths a Pearson correlation of 0.71

_SIGNAL = 0.5  # size of a planted direction, in standard deviations of the noise


class Synthetic:
    """``num_samples`` utterances of text (words), audio (20 Hz) and visual (15 Hz) features.

    Lengths follow the quantiles of MELD in words and seconds, joined by a Gaussian copula (Pearson
    0.71). They are stratified: whatever the size, the sample holds the shortest and the longest
    utterance, so that padding costs here what it costs on the corpus.

    Text carries one hidden class and audio another, each planted as a direction of its own on every
    position; the target is their sum modulo ``num_classes``. Each hidden class is independent of the
    target, so either modality alone holds no information about it and the two together determine it.
    Visual is noise.

    Args:
        num_samples: how many.
        num_classes: classes of the target.
        missing: share of the samples that lack a modality (text, audio or visual, evenly).
        seed: everything follows from it; samples are made when they are read.

    Attributes:
        lengths: the length table.
        targets: int32 ``(N,)``.

    Raises:
        PaddingError: fewer than 2 samples or classes, or a share outside 0 to 1.
        IndexError: a sample beyond the end.

    >>> source = Synthetic(100)
    >>> {m: x.shape for m, x in source[0].items()}
    {'text': (7, 300), 'audio': (65, 74), 'visual': (49, 35), 'targets': ()}
    """

    def __init__(self, num_samples: int = 2000, *, num_classes: int = 3, missing: float = 0.0, seed: int = 0) -> None:
        if num_samples < 2 or num_classes < 2:
            raise PaddingError(f"got num_samples={num_samples} and num_classes={num_classes}; both must be at least 2")
        if not 0 <= missing <= 1:
            raise PaddingError(f"got missing={missing}; it is a share of the samples, from 0 to 1")
        rng = np.random.default_rng(seed)
        self._seed = seed
        values = _joint_lengths(num_samples, rng)
        absent = rng.permutation(num_samples)[: round(missing * num_samples)]
        values[absent, rng.integers(0, len(WIDTHS), len(absent))] = 0
        self.lengths = LengthTable(tuple(WIDTHS), values)
        self._hidden = rng.integers(0, num_classes, (num_samples, 2))
        self.targets = (self._hidden.sum(axis=1) % num_classes).astype(np.int32)
        self._directions = {
            m: _SIGNAL * rng.standard_normal((num_classes, WIDTHS[m]), np.float32) for m in ("text", "audio")
        }

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self._seed, index])
        lengths = self.lengths.values[index].tolist()
        sample: dict[str, Any] = {
            m: rng.standard_normal((length, width), np.float32)
            for (m, width), length in zip(WIDTHS.items(), lengths, strict=True)
        }
        for hidden, (name, directions) in zip(self._hidden[index], self._directions.items(), strict=True):
            sample[name] += directions[hidden]
        sample[TARGETS] = self.targets[index]
        return sample


def _joint_lengths(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return words, audio frames and visual frames, int64 ``(count, 3)``."""
    first, second = rng.standard_normal((2, count))
    second = _COPULA * first + np.sqrt(1 - _COPULA**2) * second
    words, seconds = (
        np.interp(np.argsort(np.argsort(normal)) / (count - 1), _LEVELS, quantiles)
        for normal, quantiles in ((first, _WORDS), (second, _SECONDS))
    )
    columns = [words, seconds * AUDIO_RATE, seconds * VISUAL_RATE]
    return np.maximum(1, np.rint(np.stack(columns, axis=1))).astype(np.int64)
