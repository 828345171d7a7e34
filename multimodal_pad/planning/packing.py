"""Planning for the packed layout: the smallest capacities that hold the batches of an epoch as they are dealt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, PlanError
from multimodal_pad.lengths.cost import BatchBudget, Cost, check_priced, cost_name, costs_of, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LONGEST, Lengths, LengthTable, as_lengths
from multimodal_pad.planning.packing_budget import largest_within, sizes_to_try
from multimodal_pad.planning.packing_pairs import pairs_room
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.task import check_alignment
from multimodal_pad.scheduling.balancing import deal_packs
from multimodal_pad.scheduling.dealing import shuffled

MARGINS = (1.0, 1.0025, 1.005, 1.01, 1.02, 1.03, 1.05, 1.08, 1.12, 1.2, 1.35, 1.6, 2.0, 3.0)
"""Capacities to try, in mean batches."""

MOST_ABOVE = 0.15
"""Share of the packs, as they are dealt, that may exceed a capacity for it to be tried."""

MOST_CHANGED = 200
"""Packs of an epoch that may exceed it, at most: a long epoch would begin with minutes of exchanges."""

EPOCHS = 2  # dealt at each capacity
MOST_SAMPLES = 50_000  # dealt of a longer table
PAYS = 0.02  # share of the cost that a second shape must save, since it is a second program to compile
ROOM = 1.02  # times the longest pack of one epoch, for a second shape: other epochs may have longer ones


class _Found(NamedTuple):
    """Capacities ``(k, M)`` of one pack, before and after alignment, and figures of epochs dealt to them."""

    exact: np.ndarray
    capacities: np.ndarray
    batches: np.ndarray
    extra: int
    real_cost: float
    paid: float


def plan_packing(
    lengths: Lengths,
    *,
    batch_size: int | BatchBudget = 32,
    max_shapes: int = 1,
    alignment: int | Mapping[str, int] = 8,
    shares: int = 1,
    tile_pairs: bool = False,
    cost: Cost = position_count,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> PackingPlan:
    """Find how many positions of each modality hold a batch, and check it against epochs as they are dealt.

    Batches are of exactly ``batch_size`` samples, dealt so that their sums of lengths are alike, which lets one
    capacity serve all of them. Several capacities are tried, from the mean batch on; the one with the cheapest epoch
    is taken, extra batches included. A sample that is longer than a mean batch makes batches longer
    for all; with ``max_shapes=2`` a second, longer shape takes those, where that saves 2 % of the cost.

    Args:
        lengths: the length table; or its columns, ``{"text": [3, 5, ...]}``; or samples, each of which is read once to
            be measured.
        batch_size: samples of every batch, but for the last of an epoch. Or a
            :class:`~multimodal_pad.lengths.cost.BatchBudget`: as many samples as have capacities within its limit, so
            that the next larger batch size would exceed it. Capacities are those of a whole batch, with all of its
            shares, and are measured as equal samples that fill them.
        max_shapes: 1 or 2.
        alignment: capacities are multiples of it, for all modalities or per modality.
        shares: into how many equal parts batches are to be shared out, over the devices of all processes; divides
            ``batch_size``.
        tile_pairs: whether batches list which tiles of 64 positions attention has to compare, so that a GPU or TPU
            compares no others; on CPU it makes no difference. The lists are as long as the dealt epochs ask for, and a
            tenth more.
        cost: per sample, by which capacities are chosen; by default positions.
        seed: of the epochs that are dealt.
        progress: called with the number of capacities tried so far, of ``len(MARGINS)`` at most; to a budget anew for
            each batch size that is tried.

    Raises:
        PaddingError: an option out of range, shares that do not divide the batch size, a cost of other modalities, or
            one that is not a finite number, 0 or more.
        PlanError: not even the smallest batch fits the batch budget.
        LengthError: an alignment that is no whole number, or of a modality that there is not.

    >>> table = LengthTable(("text", "audio"), np.array([[3, 30], [4, 36], [20, 31], [4, 33]]))
    >>> print(plan_packing(table, batch_size=2))
    1 packed shape, batches of 2
    text  audio  samples  batches
      24     72        2        2
    fill: positions text 0.646, audio 0.903, total 0.839; cost 0.839
    before rounding to 8: text 0.775, audio 1.000, total 0.947
    left to gain: 16.1% of the cost
    the longest text of 20 positions is 1.3 times what a mean batch has
    """
    lengths = as_lengths(lengths)
    check_whole("max_shapes", max_shapes, 1)
    check_whole("shares", shares, 1)
    check_whole("seed", seed, 0, most=None)
    check_priced(cost, lengths.modalities)
    if max_shapes > 2:
        raise PaddingError(
            f"got max_shapes={max_shapes}; packed batches have 1 shape, or 2 where long samples have one; give 1 or 2"
        )
    if isinstance(batch_size, BatchBudget):
        budget, options = batch_size, {"max_shapes": max_shapes, "alignment": alignment, "shares": shares, "cost": cost}
        plan = partial(plan_packing, lengths, tile_pairs=tile_pairs, seed=seed, progress=progress, **options)
        task = _Task(lengths, 1, np.array(list(check_alignment(lengths.modalities, alignment).values())), cost, seed)
        sizes = sizes_to_try(budget, shares, task.count)
        least = task.least(sizes // shares) * shares
        return largest_within(budget, sizes, least, lengths.modalities, lambda size: plan(batch_size=size))
    check_whole("batch_size", batch_size, 1)
    if batch_size % shares:
        raise PaddingError(f"got batch_size={batch_size} for shares={shares}; give a batch size that {shares} divides")
    steps = check_alignment(lengths.modalities, alignment)
    task = _Task(lengths, batch_size // shares, np.array(list(steps.values())), cost, seed)
    _check_held(lengths.modalities, task.least(np.array([task.size]))[0] * shares)
    best = min(_single(task, progress), key=lambda found: found.paid)
    if max_shapes == 2:
        better = min(_double(task), key=lambda found: found.paid, default=best)
        best = better if better.paid < (1 - PAYS) * best.paid else best
    _check_held(lengths.modalities, best.capacities[-1] * shares)
    names, room = lengths.modalities, ()
    if tile_pairs:
        room = pairs_room(names, task.values, task.size, best.capacities, shares=shares, seed=seed)
    return PackingPlan(
        modalities=names,
        lengths=best.capacities * shares,
        batch_size=batch_size,
        shares=shares,
        batches=best.batches * len(lengths) / task.count / shares,
        extra=int(np.ceil(best.extra * len(lengths) / task.count / shares)),
        efficiency=best.real_cost / best.paid if best.paid else 1.0,
        position_efficiency=_fill(names, task.real, best.batches @ best.capacities),
        unrounded_efficiency=_fill(names, task.real, best.batches @ best.exact),
        longest=dict(zip(names, task.longest.tolist(), strict=True)),
        alignment=steps,
        room=room,
        fingerprint=lengths.fingerprint,
        cost=cost,
        cost_name=cost_name(cost),
        table=lengths,
    )


def _check_held(modalities: tuple[str, ...], capacity: np.ndarray) -> None:
    """Raise a PlanError where a batch needs more positions than int32 numbers."""
    if capacity.max() > LONGEST:
        column = int(np.argmax(capacity))
        raise PlanError(
            f"batches need {capacity[column]:,} positions of {modalities[column]!r}, and hold at most {LONGEST:,}; "
            "give a smaller batch size or alignment, or fewer shares"
        )


class _Task:
    """The lengths that are dealt, packs of ``size`` samples, and their cost."""

    def __init__(self, lengths: LengthTable, size: int, steps: np.ndarray, cost: Cost, seed: int) -> None:
        if not len(lengths):
            raise LengthError("got a length table without samples; there is nothing to plan for")
        self.longest = np.maximum(lengths.longest(None), 1).astype(np.int64)
        values, self.count = lengths.values, min(len(lengths), MOST_SAMPLES)
        if self.count < len(lengths):
            values = values[np.sort(np.random.default_rng(seed).permutation(len(lengths))[: self.count])]
        self.values, self.size, self.steps, self.cost, self.seed = values.astype(np.int64), size, steps, cost, seed
        self.mean = self.values.mean(axis=0) * min(size, self.count)
        self.real = self.values.sum(axis=0)
        self.real_cost = float(costs_of(cost, self.values, lengths.modalities).sum())
        self._packs = len(lengths) / size

    @cached_property
    def _loads(self) -> np.ndarray:
        """The loads of an epoch's packs as they are dealt, whatever the capacity."""
        return deal_packs(self.values, shuffled(self.count, self.seed, 0), self.size).loads

    def above(self, capacity: np.ndarray) -> bool:
        """Return whether so many packs exceed a capacity that exchanges take long, and add packs."""
        share = float((self._loads > self.aligned(capacity)).any(axis=1).mean())
        return share > min(MOST_ABOVE, max(MOST_CHANGED / self._packs, 1 / len(self._loads)))

    def aligned(self, exact: np.ndarray) -> np.ndarray:
        """Round capacities up to the alignment, ``(k, M)``."""
        return -(-exact // self.steps) * self.steps

    def least(self, sizes: np.ndarray) -> np.ndarray:
        """Return the least capacities of packs of ``sizes (k,)`` samples, ``(k, M)``."""
        means = self.values.mean(axis=0) * np.minimum(sizes, self.count)[:, None]
        return self.aligned(np.maximum(np.ceil(MARGINS[0] * means).astype(np.int64), self.longest))

    def deal(self, exact: np.ndarray) -> _Found:
        """Deal the epochs at capacities ``(k, M)``, and return their figures."""
        capacities = self.aligned(exact)
        batches, extra, paid = np.zeros(len(capacities)), 0, 0.0
        for epoch in range(EPOCHS):
            order = shuffled(self.count, self.seed, epoch)
            packs = deal_packs(self.values, order, self.size, capacities=capacities)
            number = (packs.loads[:, None] <= capacities).all(axis=2).argmax(axis=1)
            batches += np.bincount(number, minlength=len(capacities)) / EPOCHS
            extra = max(extra, packs.extra)
            paid += self.real_cost + self.unused(capacities[number] - packs.loads)
        return _Found(exact, capacities, batches, extra, self.real_cost, paid / EPOCHS)

    def unused(self, empty: np.ndarray) -> float:
        """Return the cost of unused positions ``(packs, M)``: that of equal samples in them."""
        return float(self.size * np.asarray(self.cost(empty / self.size), np.float64).sum())


def _single(task: _Task, progress: Callable[[int], None] | None) -> Iterator[_Found]:
    """Yield one shape at a time, from the mean batch on, until an epoch has no extra batch and costs more."""
    last = np.inf
    for number, margin in enumerate(MARGINS, start=1):
        capacity = np.maximum(np.ceil(margin * task.mean).astype(np.int64), task.longest)
        if margin < MARGINS[-1] and task.above(capacity):
            continue
        found = task.deal(capacity[None])
        if progress is not None:
            progress(number)
        yield found
        if not found.extra and found.paid >= last:
            return
        last = found.paid


def _double(task: _Task) -> Iterator[_Found]:
    """Yield two shapes: the first as if no sample were long, the second as long as the packs that it does not hold."""
    for margin in MARGINS:
        first = np.maximum(np.ceil(margin * task.mean).astype(np.int64), 1)
        if (first >= task.longest).all():
            return
        if task.above(first):
            continue
        without_end = np.stack([first, np.maximum(first, task.values.sum(axis=0))])
        packs = deal_packs(task.values, shuffled(task.count, task.seed, 0), task.size, capacities=without_end)
        long = packs.loads[(packs.loads > task.aligned(first)).any(axis=1)]
        if len(long):
            second = np.ceil(ROOM * long.max(axis=0)).astype(np.int64)
            yield task.deal(np.stack([first, np.maximum(np.maximum(first, second), task.longest)]))


def _fill(names: tuple[str, ...], real: np.ndarray, held: np.ndarray) -> dict[str, float]:
    each = dict(zip(names, np.minimum(real / np.maximum(held, 1), 1).tolist(), strict=True))
    return {**each, "total": float(min(real.sum() / max(held.sum(), 1), 1))}
