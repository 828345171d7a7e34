"""An epoch as a pure function: which samples are in which batch, and at which batch shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from multimodal_pad.cost import Cost, position_count
from multimodal_pad.errors import PaddingError, UncoveredLengthError
from multimodal_pad.lengths import LengthTable, check_whole
from multimodal_pad.policies import Planned, Policy, check_covered

Grouping = Literal["random", "length"]

EMPTY = -1
"""The sample id of a row that only fills up a short batch."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of one epoch, or some of them.

    Attributes:
        shapes: int64 ``(steps, M)``: the padded lengths of each step, in the policy's column order.
        starts: int64 ``(steps + 1,)``: where the rows of each step begin in ``ids``, and where they end.
        ids: int64 ``(rows,)``: sample numbers, step after step; :data:`EMPTY` where a row only fills up.

    >>> schedule = Schedule(np.array([[8], [4]]), np.array([0, 2, 5]), np.array([7, EMPTY, 0, 1, 2]))
    >>> [(shape.tolist(), ids.tolist()) for shape, ids in schedule]
    [([8], [7, -1]), ([4], [0, 1, 2])]
    """

    shapes: np.ndarray
    starts: np.ndarray
    ids: np.ndarray

    @property
    def batch_sizes(self) -> np.ndarray:
        """Rows of each step, int64 ``(steps,)``."""
        return np.diff(self.starts)

    def part(self, start: int, stop: int) -> Schedule:
        """The steps from ``start`` up to ``stop``."""
        starts = self.starts[start : stop + 1]
        return Schedule(self.shapes[start:stop], starts - starts[0], self.ids[starts[0] : starts[-1]])

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for shape, start, stop in zip(self.shapes, self.starts, self.starts[1:], strict=False):
            yield shape, self.ids[start:stop]


def make_schedule(
    lengths: LengthTable,
    policy: Policy,
    *,
    batch_size: int | None = None,
    grouping: Grouping = "length",
    window: int = 1024,
    seed: int = 0,
    epoch: int = 0,
    cost: Cost = position_count,
    keep: np.ndarray | None = None,
) -> Schedule:
    """Deal the samples of an epoch to batches.

    ``random``: batches are drawn from a random order and then rounded up, as Algorithm 1 draws
    them. ``length``: within each window of the random order, samples are dealt to the cheapest
    shape that holds them, and what does not fill a batch waits for the next window. In the last window
    (and in one where over half would wait) the batches of larger shapes are filled up with samples of
    smaller ones, and only what is left then, at the end, with empty rows. The steps of a window are in
    random order. Each sample appears once.

    The result depends on the arguments and NumPy's generator alone, so every host computes the same.

    Args:
        lengths: the length table, in the column order of ``policy.modalities``.
        policy: rounds lengths up to buckets.
        batch_size: rows per batch; by default what the policy's plan says.
        grouping: ``"random"`` or ``"length"``.
        window: batches per shuffle window of ``"length"``; more of them leave less padding.
        seed: of the random order.
        epoch: number of the epoch, which changes the order.
        cost: tells ``"length"`` which shape is the cheaper one.
        keep: bool ``(N,)``, the samples to deal; by default all.

    Raises:
        PaddingError: a batch size or window below 1, no batch size and a policy that leaves it open; a batch
            size or ``"random"`` for a plan with a batch budget; a negative seed or epoch, an unknown
            grouping, no samples kept.
        UncoveredLengthError: a sample is longer than every bucket, or ``"random"`` could draw a batch
            that is.

    >>> from multimodal_pad import Ladder
    >>> table = LengthTable(("text",), np.array([[3], [12], [4], [9]]))
    >>> schedule = make_schedule(table, Ladder({"text": [4, 16]}), batch_size=2)
    >>> sorted((int(length), sorted(ids.tolist())) for (length,), ids in schedule)
    [(4, [0, 2]), (16, [1, 3])]
    """
    check_batching(policy, batch_size, grouping, window, seed)
    check_whole("epoch", epoch, 0)
    check_covered(lengths, policy, keep)
    ids = np.arange(len(lengths)) if keep is None else np.flatnonzero(keep)
    if not len(ids):
        raise PaddingError("no samples are left to deal: every one of them is longer than every bucket")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(ids)
    values = lengths.select(policy.modalities).values
    if grouping == "random":
        check_joint_maxima(policy, values[ids].max(axis=0))
        first = policy.round_up(values[order[:1]])
        starts, ids = _chunk(order, int(batch_rows(policy, first, batch_size)[0]))
        return Schedule(policy.round_up(_batch_maxima(starts, ids, values)), starts, ids)
    rounded = policy.round_up(values[order])
    rows = batch_rows(policy, rounded, batch_size)
    starts, places, shapes = _group_by_length(rounded, rows, window, cost, rng)
    return Schedule(shapes, starts, np.where(places == EMPTY, EMPTY, order[places]))


def check_batching(policy: Policy, batch_size: int | None, grouping: str, window: int, seed: int) -> None:
    """Raise a PaddingError for a number out of range, an unknown grouping, or rows per batch that don't fit both."""
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    check_whole("window", window, 1)
    check_whole("seed", seed, 0)
    if grouping not in get_args(Grouping):
        raise PaddingError(f"got grouping={grouping!r}; choose one of {list(get_args(Grouping))}")
    plan = policy.plan if isinstance(policy, Planned) else None
    if plan is None:
        if batch_size is None:
            raise PaddingError(f"got no batch_size, and {policy!r} has none of its own; give one")
    elif plan.batch_budget is not None:
        if batch_size is not None:
            raise PaddingError(
                f"got batch_size={batch_size} for a plan whose rows keep a batch budget of {plan.batch_budget:g}; "
                "leave batch_size out"
            )
        if grouping == "random":
            raise PaddingError(
                "got grouping='random' for a plan with a batch budget; a random batch is drawn before its shape is "
                "known: use grouping='length', or plan with one batch size"
            )


def check_joint_maxima(policy: Policy, maxima: np.ndarray) -> None:
    """Raise an UncoveredLengthError where a batch of samples that are all covered might not be."""
    if not policy.covers(maxima[None])[0]:
        raise UncoveredLengthError(
            f"a random batch may have the longest of every modality at once, and {policy.why_not(maxima)}; "
            "plan with grouping='random', or use grouping='length'"
        )


def batch_rows(policy: Policy, padded: np.ndarray, batch_size: int | None) -> np.ndarray:
    """Rows per batch at each of the padded lengths."""
    planned = policy.batch_sizes(padded) if batch_size is None else None
    return np.full(len(padded), batch_size) if planned is None else planned


def _chunk(order: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """``order`` cut into batches of so many rows, the last one filled up with EMPTY: their starts, and the ids."""
    ids = np.concatenate([order, np.full(-len(order) % rows, EMPTY, order.dtype)])
    return np.arange(0, len(ids) + 1, rows), ids


def _batch_maxima(starts: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per-modality maxima ``(steps, M)`` of each batch; EMPTY rows count as length 0."""
    return np.maximum.reduceat(np.where((ids == EMPTY)[:, None], 0, values[ids]), starts[:-1])


def _group_by_length(
    rounded: np.ndarray, rows: np.ndarray, window: int, cost: Cost, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches of places in ``rounded (n, M)``, window by window: their starts, the places, their shapes."""
    ids, sizes, shapes, carried = [], [], [], np.arange(0)
    samples = max(1, round(window * len(rows) / (1 / rows).sum()))
    for start in range(0, len(rounded), samples):
        stop = min(start + samples, len(rounded))
        members = np.concatenate([carried, np.arange(start, stop)])
        dealt, carried = _deal(members, rounded, rows, cost, last=stop == len(rounded))
        steps = [(batch, shape) for batches, shape in dealt for batch in batches]
        for place in rng.permutation(len(steps)).tolist():
            ids.append(steps[place][0])
            sizes.append(len(steps[place][0]))
            shapes.append(steps[place][1])
    return np.cumsum([0, *sizes]), np.concatenate(ids), np.array(shapes)


def _deal(
    members: np.ndarray, rounded: np.ndarray, rows: np.ndarray, cost: Cost, *, last: bool
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Deal one window: the batches ``(steps, B)`` of each shape, and who waits for the next."""
    shapes, first, kind = np.unique(rounded[members], axis=0, return_index=True, return_inverse=True)
    by_cost = np.argsort(cost(shapes), kind="stable")
    shapes, sizes, kind = shapes[by_cost], rows[members[first[by_cost]]], np.argsort(by_cost)[kind.ravel()]
    counts = np.bincount(kind)
    pools = np.split(members[np.argsort(kind, kind="stable")], np.cumsum(counts)[:-1])
    if last or 2 * (counts % sizes).sum() > len(members):
        _fill_from_below(pools, shapes, sizes)
    dealt, waiting = [], [members[:0]]
    for pool, shape, size in zip(pools, shapes, sizes.tolist(), strict=True):
        full = len(pool) if last else len(pool) - len(pool) % size
        dealt.append((_chunk(pool[:full], size)[1].reshape(-1, size), shape))
        waiting.append(pool[full:])
    return dealt, np.concatenate(waiting)


def _fill_from_below(pools: list[np.ndarray], shapes: np.ndarray, sizes: np.ndarray) -> None:
    """Fill up the last batch of each shape, from the most expensive on, with samples of the next smaller shapes.

    Its rows are paid for anyway. So what stays short is a batch of the cheapest shapes.
    """
    counts = np.array([len(pool) for pool in pools])
    for index in reversed(range(len(pools))):
        wanted = int(-counts[index] % sizes[index])
        below = np.flatnonzero((counts[:index] > 0) & (shapes[:index] <= shapes[index]).all(axis=1))[::-1]
        taken = np.diff(np.minimum(np.cumsum(counts[below]), wanted), prepend=0)
        for source, count in zip(below[taken > 0].tolist(), taken[taken > 0].tolist(), strict=True):
            kept = len(pools[source]) - count
            pools[index] = np.concatenate([pools[index], pools[source][kept:]])
            pools[source] = pools[source][:kept]
        counts[below] -= taken
