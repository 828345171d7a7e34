"""The groupings: batches drawn from a random order, or of samples of like shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.checks import check_joint_maxima
from multimodal_pad.scheduling.dealing import Kinds, LengthDeal, RandomDeal, batch_sizes_at, find_kinds, shuffled
from multimodal_pad.scheduling.policies import Exact
from multimodal_pad.scheduling.policy import Deal, Grouping, Policy
from multimodal_pad.scheduling.steps import Steps


@dataclass(frozen=True)
class RandomGrouping(Grouping):
    """Draw the batches from a random order and round each up, as Algorithm 1 draws them."""

    name: str = "random"
    draws_first: bool = True

    def prepare(
        self,
        lengths: LengthTable,
        policy: Policy,
        *,
        batch_size: int | None,
        window: int,  # noqa: ARG002  a random order needs no window
        seed: int,  # noqa: ARG002  the order is made with it
        cost: Cost,  # noqa: ARG002  batches are drawn before they have a cost
        keep: np.ndarray | None,
    ) -> Callable[[np.ndarray, int], Deal]:
        """Find the batch size, at the longest lengths that may meet.

        Raises:
            UncoveredLengthError: a batch of samples that are all covered might not be.
        """
        longest = lengths.longest(keep)
        check_joint_maxima(policy, longest)
        size = int(batch_sizes_at(policy, policy.round_up(longest[None]), batch_size)[0])

        def deal(order: np.ndarray, epoch: int) -> RandomDeal:
            del epoch
            return RandomDeal(order if keep is None else keep[order], lengths, policy, size)

        return deal

    def paid(
        self,
        lengths: LengthTable,
        *,
        batch_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        keep: np.ndarray | None = None,
    ) -> Iterator[Steps]:
        """Return the batches of an epoch, at their own maxima."""
        kept = None if keep is None else np.flatnonzero(keep)
        order = shuffled(len(lengths) if kept is None else len(kept), seed, epoch)
        deal = RandomDeal(order if kept is None else kept[order], lengths, Exact(lengths.modalities), batch_size)
        for number in range(len(deal.starts) - 1):
            yield deal.window(number)


@dataclass(frozen=True)
class LengthGrouping(Grouping):
    """Deal samples to the cheapest shape that holds them, window by window of the random order."""

    name: str = "length"
    draws_first: bool = False

    def prepare(
        self,
        lengths: LengthTable,
        policy: Policy,
        *,
        batch_size: int | None,
        window: int,
        seed: int,
        cost: Cost,
        keep: np.ndarray | None,
    ) -> Callable[[np.ndarray, int], Deal]:
        """Find the shape of each sample.

        Raises:
            PaddingError: there are too many shapes to deal samples by.
        """
        kinds = find_kinds(lengths, policy, batch_size, cost, keep)

        def deal(order: np.ndarray, epoch: int) -> LengthDeal:
            ids = order if keep is None else keep[order]
            return LengthDeal(ids, Kinds(kinds.lengths, kinds.batch_sizes, kinds.of[order]), window, (seed, epoch))

        return deal

    def paid(
        self,
        lengths: LengthTable,
        *,
        batch_size: int = 1,  # noqa: ARG002  each sample is rounded up by itself
        seed: int = 0,  # noqa: ARG002
        epoch: int = 0,  # noqa: ARG002
        keep: np.ndarray | None = None,
    ) -> Iterator[Steps]:
        """Return each sample by itself."""
        kept = None if keep is None else np.flatnonzero(keep)
        for start, block in lengths.blocks(kept):
            places = np.arange(start, start + len(block))
            yield Steps(block, np.arange(len(block) + 1), places if kept is None else kept[places])


RANDOM, LENGTH = RandomGrouping(), LengthGrouping()

_NAMED: dict[str, Grouping] = {grouping.name: grouping for grouping in (RANDOM, LENGTH)}

GROUPINGS = tuple(_NAMED)
"""The names of groupings in the API."""


def as_grouping(grouping: Grouping | str) -> Grouping:
    """Return a grouping, given as it is or by its name.

    Raises:
        PaddingError: there is none of this name.
    """
    if isinstance(grouping, Grouping):
        return grouping
    if grouping not in GROUPINGS:
        raise PaddingError(f"got grouping={grouping!r}; choose one of {list(GROUPINGS)}")
    return _NAMED[grouping]


def choose_grouping(policy: Policy, grouping: Grouping | str | None) -> Grouping:
    """Return the grouping given, or the one that the policy's shapes were chosen for, or by length.

    Raises:
        PaddingError: there is none of this name, or the policy was made for another one.
    """
    if grouping is None:
        return policy.grouping or LENGTH
    chosen = as_grouping(grouping)
    if policy.grouping is not None and chosen != policy.grouping:
        raise PaddingError(
            f"got grouping={chosen.name!r} for {policy!r}, whose shapes were planned for grouping="
            f"{policy.grouping.name!r}; leave grouping out, or plan with grouping={chosen.name!r}"
        )
    return chosen
