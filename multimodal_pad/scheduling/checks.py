"""Checks that lengths, batch sizes, grouping and cost go together with a policy."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from multimodal_pad.errors import PaddingError, UncoveredLengthError
from multimodal_pad.lengths.cost import Cost, check_priced, cost_name, position_count, same_cost
from multimodal_pad.lengths.samples import check_choice, check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.policy import Policy

LongSamples = Literal["error", "truncate", "drop"]
"""What to do with a sample that no bucket holds."""


def check_long_samples(long_samples: str) -> None:
    """Raise a PaddingError unless it is a way to treat samples that no bucket holds."""
    check_choice("long_samples", long_samples, LongSamples)


class Holder(Protocol):
    """Anything that covers some lengths and not others: a policy, or a shape plan."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102  see Policy

    def covers(self, lengths: np.ndarray) -> np.ndarray: ...  # noqa: D102

    def why_not(self, lengths: np.ndarray) -> str: ...  # noqa: D102


def choose_cost(policy: Policy, cost: Cost | None) -> Cost:
    """Return the policy's cost, or the one given, or positions.

    Raises:
        PaddingError: a cost of other modalities than the policy's, or another one than its shapes were chosen by.
    """
    chosen = cost or policy.cost or position_count
    check_priced(chosen, policy.modalities)
    if policy.cost is not None and not same_cost(chosen, policy.cost, len(policy.modalities)):
        raise PaddingError(
            f"got cost={cost_name(chosen)} for {policy!r}, whose shapes were chosen by {cost_name(policy.cost)}; leave "
            "cost out, or plan the shapes with it"
        )
    return chosen


def choose_batch_size(policy: Policy, batch_size: int | None) -> int | None:
    """Return the batch size given, or None where the policy has its own.

    Raises:
        PaddingError: it is out of range, the policy has another one, or there is none at all.
    """
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    own = policy.batch_sizes(policy.round_up(policy.truncate(np.ones((1, len(policy.modalities)), np.int64))))
    if own is not None and policy.finite and (shapes := policy.lengths()) is not None:
        own = policy.batch_sizes(shapes)  # a ladder of many modalities has more shapes than memory holds, and no sizes
    if own is None and batch_size is None:
        raise PaddingError(f"got no batch_size, and {policy!r} has none of its own; give one")
    if own is None or batch_size is None:
        return batch_size
    if (own != batch_size).any():
        sizes = sorted(set(np.asarray(own).tolist()))
        raise PaddingError(
            f"got batch_size={batch_size} for {policy!r}, which has batches of {', '.join(map(str, sizes))}; leave "
            "batch_size out, or plan with it"
        )
    return None


def check_covered(lengths: LengthTable, holder: Holder, keep: np.ndarray | None = None) -> None:
    """Raise an UncoveredLengthError that names the first sample (of those kept) that no bucket holds."""
    for start, block in lengths.select(holder.modalities).blocks():
        long = ~holder.covers(block)
        if keep is not None:
            long &= keep[start : start + len(block)]
        if long.any():
            row = int(np.argmax(long))
            raise UncoveredLengthError(
                f"sample {start + row}: {holder.why_not(block[row])}; add a longer bucket, or pass "
                'long_samples="truncate" or "drop" to the batcher'
            )


def check_joint_maxima(holder: Holder, maxima: np.ndarray) -> None:
    """Raise an UncoveredLengthError where a batch of samples that are all covered might not be."""
    if not holder.covers(maxima[None])[0]:
        raise UncoveredLengthError(
            f"a random batch may have the longest of every modality at once, and {holder.why_not(maxima)}; "
            "plan with grouping='random', or use grouping='length'"
        )
