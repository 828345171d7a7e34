"""The grouping of the packed layout: batches of exactly B samples whose sums of lengths are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.balancing import LEAST_SAMPLES, MOST_PACKS, deal_packs
from multimodal_pad.scheduling.dealing import batch_sizes_at, shuffled
from multimodal_pad.scheduling.policy import Deal, Grouping, Policy
from multimodal_pad.scheduling.steps import Steps

_PART = 1024  # steps that are given at once


class BalancedDeal:
    """An epoch of packed batches.

    Args:
        lengths: ``(n, M)``, of the samples that are dealt.
        order: of the epoch, a permutation of them.
        keep: their numbers, ``(n,)``; None where they are numbered from 0.
        capacities: ``(k, M)`` of a batch, the smallest first.
        size: samples of a batch.
        shares: packs of a batch, each of as many samples and as large a part of the capacity.
        window: packs that are balanced together, at most.
        seeds: of the random order of the batches.

    Attributes:
        starts: int64 ``(parts + 1,)``: the number of the first step of each part, and of the steps.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        order: np.ndarray,
        capacities: np.ndarray,
        size: int,
        *,
        keep: np.ndarray | None,
        shares: int,
        window: int,
        seeds: tuple[int, ...],
    ) -> None:
        one, own = capacities // shares, size // shares
        window = min(window, max(MOST_PACKS, LEAST_SAMPLES * shares // size))
        packs = deal_packs(lengths, order, own, window=window, capacities=one)
        whole = len(packs.loads) - packs.extra - (len(order) % own > 0)  # full ones, which come before the short one
        place = np.arange(len(packs.loads))
        place[:whole] = shuffled(whole, *seeds)
        self._capacities, self._rows = capacities, size
        steps = -(-len(place) // shares)
        members = np.full((steps * shares, own), EMPTY)
        members[: len(place)] = packs.members[place]
        if keep is not None:
            members = np.where(members == EMPTY, EMPTY, keep[members])
        self._ids = members.reshape(steps, size)
        loads = np.zeros((steps * shares, lengths.shape[1]), np.int64)
        loads[: len(place)] = packs.loads[place]
        holds = (loads[:, None] <= one).all(axis=2).reshape(steps, shares, len(one)).all(axis=1)
        self._shape_of = holds.argmax(axis=1)
        self.starts = np.append(np.arange(0, steps, _PART), steps)

    def window(self, number: int) -> Steps:
        """Return the steps of one part."""
        start, stop = self.starts[number : number + 2].tolist()
        starts = np.arange(stop - start + 1) * self._rows
        return Steps(self._capacities[self._shape_of[start:stop]], starts, self._ids[start:stop].ravel())

    @property
    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """The batch sizes ``(k,)`` and capacities ``(k, M)`` that the epoch has."""
        used = np.unique(self._shape_of)
        return np.full(len(used), self._rows), self._capacities[used]


@dataclass(frozen=True)
class BalancedGrouping(Grouping):
    """Deal samples of a random order to batches of alike sums of lengths, for the packed layout.

    Attributes:
        shares: into how many packs a batch is divided, one per device: each has as many samples of it.
    """

    shares: int = 1
    name: str = "balanced"
    draws_first: bool = True

    def prepare(
        self,
        lengths: LengthTable,
        policy: Policy,
        *,
        batch_size: int | None,
        window: int,
        seed: int,
        cost: Cost,  # noqa: ARG002  lengths are balanced, whatever they cost
        keep: np.ndarray | None,
    ) -> Callable[[np.ndarray, int], Deal]:
        """Find the capacities and the batch size.

        Raises:
            PaddingError: the policy has infinitely many shapes.
        """
        capacities = policy.lengths()
        if capacities is None:
            raise PaddingError(f"got grouping='balanced' for {policy!r}, which has no capacities; use Packed(plan)")
        size = int(batch_sizes_at(policy, capacities, batch_size)[0])
        dealt = lengths.values if keep is None else lengths.values[keep]

        def deal(order: np.ndarray, epoch: int) -> BalancedDeal:
            return BalancedDeal(
                dealt,
                order,
                capacities,
                size,
                keep=keep,
                shares=self.shares,
                window=window,
                seeds=(seed, epoch),
            )

        return deal

    def check_shares(self, count: int) -> None:
        """Raise a PaddingError unless the devices can share out the packs, each of which is dealt to fit one part."""
        if self.shares % count:
            raise PaddingError(
                f"got packed batches in {self.shares} shares to share out over {count}; plan with plan_packing(..., "
                f"shares={count}) or a multiple"
            )

    def paid(
        self,
        lengths: LengthTable,  # noqa: ARG002
        *,
        batch_size: int = 1,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
        epoch: int = 0,  # noqa: ARG002
        keep: np.ndarray | None = None,  # noqa: ARG002
    ) -> Iterator[Steps]:
        """Raise a PaddingError: no sample of a packed batch is rounded up by itself.

        Raises:
            PaddingError: always; capacities are planned by ``plan_packing``.
        """
        raise PaddingError("got grouping='balanced' for a plan of padded shapes; plan with plan_packing")
