"""A user's samples of words and audio frames; these lines are not counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def make_samples(count: int = 96, seed: int = 0) -> list[dict[str, Any]]:
    """Make token ids, audio frames, and a class that follows from either."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        words, label = int(rng.integers(1, 12)), number % 2
        samples.append(
            {
                "text": rng.integers(0, 20, words).astype(np.int32) + 20 * label,
                "audio": rng.normal(label, 1, (3 * words, 4)).astype(np.float32),
                "targets": np.int32(label),
            }
        )
    return samples


def make_frame_labels(samples: list[dict[str, Any]]) -> list[np.ndarray]:
    """Make a class for each audio frame."""
    return [(sample["audio"][:, 0] > 0).astype(np.int32) for sample in samples]


class Stream:
    """A stream of samples, anew in each loop, of a length that is not known beforehand."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from make_samples()


def make_dataset() -> Any:
    """Make a Hugging Face dataset of the samples, some without audio."""
    from datasets import Dataset

    rows = [
        {
            "input_ids": sample["text"].tolist(),
            "frames": sample["audio"].tolist() if number % 5 else None,
            "label": int(sample["targets"]),
        }
        for number, sample in enumerate(make_samples())
    ]
    return Dataset.from_list(rows)
