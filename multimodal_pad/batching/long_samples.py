"""Samples that are longer than every bucket: an error, cut, or left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.checks import LongSamples, check_covered, check_long_samples
from multimodal_pad.scheduling.policy import Policy


@dataclass(frozen=True, eq=False)
class CoveredLengths:
    """Lengths that a policy covers.

    Attributes:
        measured: lengths of the samples as they are.
        table: the same, cut where asked for.
        keep: bool ``(N,)``: False where a sample is left out.
        dropped: samples left out.
        truncated: samples cut.
    """

    measured: LengthTable
    table: LengthTable
    keep: np.ndarray
    dropped: int
    truncated: int


def cover(measured: LengthTable, policy: Policy, long_samples: LongSamples) -> CoveredLengths:
    """Raise for long samples, cut them, or leave them out.

    Raises:
        PaddingError: ``long_samples`` is none of the three.
        UncoveredLengthError: a sample is longer than every bucket, and that is to be an error.

    Warns:
        PlanWarning: the policy was made for other lengths, and serves these much worse.

    >>> from multimodal_pad import Fixed
    >>> table = LengthTable(("text",), np.array([[3], [9]]))
    >>> found = cover(table, Fixed({"text": 8}), "truncate")
    >>> found.table.values.ravel().tolist(), found.truncated
    ([3, 8], 1)
    """
    check_long_samples(long_samples)
    table, keep, truncated = measured, np.ones(len(measured), bool), 0
    if long_samples == "drop":
        keep = np.concatenate([policy.covers(block) for _, block in table.blocks()])
    elif long_samples == "truncate":
        table = LengthTable(policy.modalities, policy.truncate(table.values))
        truncated = int((table.values < measured.values).any(axis=1).sum())
    check_covered(table, policy, keep)
    policy.check_lengths(table, keep)
    return CoveredLengths(measured, table, keep, int((~keep).sum()), truncated)
