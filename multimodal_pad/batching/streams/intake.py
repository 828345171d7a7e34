"""From a stream's samples to those that wait for a batch: measured, checked to be alike, cut or left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.batching.alike import AlikeSamples
from multimodal_pad.batching.held import held_sample
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.lengths.samples import (
    POSITION_TARGETS,
    RESERVED,
    Sample,
    as_sample,
    check_same_modalities,
    modality_array,
    modality_names,
)
from multimodal_pad.lengths.targets import cut_position_targets
from multimodal_pad.scheduling.checks import LongSamples, check_long_samples
from multimodal_pad.scheduling.policy import Policy

CHUNK = 256
"""Samples read before any of them is measured: one that is too long is reported before a large buffer is full."""


class Waiting(NamedTuple):
    """A sample that waits for its batch.

    Attributes:
        number: in the stream.
        sample: its arrays, cut where it was too long, and its targets.
    """

    number: int
    sample: dict[str, Any]


class Intake:
    """Checks samples where they come in, so that an error names the sample and not its batch.

    Args:
        policy: decides which samples are too long.
        long_samples: what to do with those.

    Raises:
        PaddingError: ``long_samples`` is not one of its values.

    Attributes:
        alike: the check that samples are alike.
        whole: whether a sample may have no other modalities than the policy's.
        first: the first sample, or None before it.
        dropped: samples left out because no bucket holds them.
        truncated: samples cut to a bucket.
        notices: warnings for the user.
    """

    def __init__(self, policy: Policy, long_samples: LongSamples) -> None:
        check_long_samples(long_samples)
        self._policy, self._long_samples, self.whole = policy, long_samples, False
        self.alike = AlikeSamples()
        self.first: Waiting | None = None
        self.dropped, self.truncated = 0, 0
        self.notices: deque[str] = deque()

    def held(self, number: int, sample: Any) -> dict[str, Any]:
        """Return a sample as it was read, so that later writes to what it was read into don't change it.

        Samples wait for long, and an iterable may go on writing to an array that it has given: such arrays are copied.

        Raises:
            SampleError: it is no sample, or a modality is missing or no array.
        """
        sample = as_sample(sample, f"sample {number} of the stream")
        names = modality_names(sample) if self.whole else self._policy.modalities
        return held_sample(sample, names, number, copy=True)

    def measure(self, number: int, sample: Any) -> Waiting:
        """Return the arrays of a held sample, checked to be like those of the first one.

        Raises:
            SampleError: they are not alike, or a modality is missing or no array.
        """
        names = self._policy.modalities
        sample = as_sample(sample, f"sample {number} of the stream")
        if self.whole:
            check_same_modalities(sample, names, number)
        kept: dict[str, Any] = {name: modality_array(sample, name, number) for name in names}
        kept |= {key: sample[key] for key in RESERVED if key in sample}
        for name in names:
            array = kept[name]
            if len(array):
                self.alike.check(number, name, array.shape[1:], array.dtype)
        self.alike.check_targets(number, kept)
        waiting = Waiting(number, kept)
        self.first = self.first or waiting
        return waiting

    @property
    def knows_all(self) -> bool:
        """Whether each modality was there in one of the samples."""
        return all(self.alike.kind(name) is not None for name in self._policy.modalities)

    def look_ahead(self, read_ahead: Callable[[int], Sequence[Sample]], most: int) -> None:
        """Measure the first samples of a stream, until each modality was there in one of them.

        Args:
            read_ahead: gives the first samples, as many as are asked for or as there are.
            most: samples that are looked at.
        """
        count = 0
        while not self.knows_all and count < most:
            samples = read_ahead(count + 1)
            if len(samples) == count:
                break
            self.measure(count, samples[count])
            count += 1

    def admit(self, samples: Iterable[tuple[int, Sample]]) -> tuple[np.ndarray, np.ndarray, list[Waiting]]:
        """Measure some samples, and cut or leave out those that are too long.

        Returns:
            The lengths of all, int64 ``(n, M)``; the lengths of those that are to wait, and these samples.

        Raises:
            SampleError: a sample does not fit the others.
            UncoveredLengthError: a sample is too long, and is to be an error.
        """
        names = self._policy.modalities
        measured = [self.measure(number, sample) for number, sample in samples]
        lengths = np.array([[len(kept[name]) for name in names] for _, kept in measured], np.int64)
        lengths = lengths.reshape(-1, len(names))
        covered = self._policy.covers(lengths)
        if covered.all():
            return lengths, lengths, measured
        first = int(np.argmin(covered))
        why = f"sample {measured[first].number} of the stream: {self._policy.why_not(lengths[first])}"
        if self._long_samples == "error":
            raise UncoveredLengthError(
                f'{why}; pass long_samples="truncate" or "drop", or plan for longer samples, such as with longest= in '
                "StreamBatcher.planned"
            )
        if self._long_samples == "drop":
            if not self.dropped:
                self.notices.append(f"{why}; it is left out, as all that are too long: stats.dropped counts them")
            self.dropped += int((~covered).sum())
            kept = [sample for sample, is_covered in zip(measured, covered.tolist(), strict=True) if is_covered]
            return lengths, lengths[covered], kept
        if not self.truncated:
            self.notices.append(f"{why}; it is cut, as all that are too long: stats.truncated counts them")
        self.truncated += int((~covered).sum())
        shorter = self._policy.truncate(lengths)
        for place in np.flatnonzero(~covered).tolist():
            measured[place] = _cut(measured[place], names, shorter[place].tolist())
        return lengths, shorter, measured


def _cut(waiting: Waiting, names: tuple[str, ...], lengths: list[int]) -> Waiting:
    # Copies: a view would keep the whole of a sample that was too long.
    cut: dict[str, Any] = {
        name: waiting.sample[name][:length].copy() for name, length in zip(names, lengths, strict=True)
    }
    if POSITION_TARGETS in waiting.sample:
        cut[POSITION_TARGETS] = cut_position_targets(
            waiting.sample[POSITION_TARGETS], dict(zip(names, lengths, strict=True))
        )
    return Waiting(waiting.number, {**waiting.sample, **cut})
