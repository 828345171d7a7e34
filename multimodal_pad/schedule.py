"""An epoch as a pure function: which samples are in which batch, and at which batch shape."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from multimodal_pad.cost import Cost, position_count
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths import LengthTable, check_whole
from multimodal_pad.policies import Policy, check_covered

Grouping = Literal["random", "length"]

EMPTY = -1
"""The sample id of a row that only fills up a short batch."""


class Schedule(NamedTuple):
    """The steps of one epoch.

    Attributes:
        shapes: int64 ``(steps, M)``: the padded lengths of each step, in the table's column order.
        ids: int64 ``(steps, B)``: sample numbers; :data:`EMPTY` where a row only fills up.
    """

    shapes: np.ndarray
    ids: np.ndarray


def make_schedule(
    lengths: LengthTable,
    policy: Policy,
    *,
    batch_size: int,
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
    shape that holds them; what does not fill a batch goes up to the next larger shape among those in
    the window, and from the largest on to the next window. The steps of a window are in random order.
    Each sample appears once; only in the last window are batches filled up with empty rows.

    The result depends on the arguments and NumPy's generator alone, so every host computes the same.

    Args:
        lengths: the length table, in the column order of ``policy.modalities``.
        policy: rounds lengths up to buckets.
        batch_size: rows per batch.
        grouping: ``"random"`` or ``"length"``.
        window: batches per shuffle window of ``"length"``; more of them leave less padding.
        seed: of the random order.
        epoch: number of the epoch, which changes the order.
        cost: tells ``"length"`` which shape is the cheaper one.
        keep: bool ``(N,)``, the samples to deal; by default all.

    Raises:
        PaddingError: a batch size or window below 1, a negative seed or epoch, an unknown grouping,
            no samples kept.
        UncoveredLengthError: a sample is longer than every bucket.

    >>> from multimodal_pad import Ladder
    >>> table = LengthTable(("text",), np.array([[3], [12], [4], [9]]))
    >>> schedule = make_schedule(table, Ladder({"text": [4, 16]}), batch_size=2)
    >>> sorted((int(length), sorted(ids.tolist())) for (length,), ids in zip(*schedule))
    [(4, [0, 2]), (16, [1, 3])]
    """
    check_batching(batch_size, grouping, window, seed)
    check_whole("epoch", epoch, 0)
    check_covered(lengths, policy, keep)
    ids = np.arange(len(lengths)) if keep is None else np.flatnonzero(keep)
    if not len(ids):
        raise PaddingError("no samples are left to deal: every one of them is longer than every bucket")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(ids)
    values = lengths.select(policy.modalities).values
    if grouping == "random":
        batches = _chunk(order, batch_size)
    else:
        places = _group_by_length(policy.round_up(values[order]), batch_size, window, cost, rng)
        batches = np.where(places == EMPTY, EMPTY, order[places])
    return Schedule(policy.round_up(_batch_maxima(batches, values)), batches)


def check_batching(batch_size: int, grouping: str, window: int, seed: int) -> None:
    """Raise a PaddingError for a number out of range or an unknown grouping."""
    check_whole("batch_size", batch_size, 1)
    check_whole("window", window, 1)
    check_whole("seed", seed, 0)
    if grouping not in get_args(Grouping):
        raise PaddingError(f"got grouping={grouping!r}; choose one of {list(get_args(Grouping))}")


def _chunk(order: np.ndarray, batch_size: int) -> np.ndarray:
    """``order`` cut into rows of ``batch_size``, the last one filled up with EMPTY."""
    filler = np.full(-len(order) % batch_size, EMPTY, order.dtype)
    return np.concatenate([order, filler]).reshape(-1, batch_size)


def _batch_maxima(batches: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per-modality maxima ``(steps, M)`` of each batch; EMPTY rows count as length 0."""
    return np.where((batches == EMPTY)[..., None], 0, values[batches]).max(axis=1)


def _group_by_length(
    rounded: np.ndarray, batch_size: int, window: int, cost: Cost, rng: np.random.Generator
) -> np.ndarray:
    """Batches ``(steps, B)`` of places in ``rounded (n, M)``, window by window."""
    steps, carried = [], np.arange(0)
    for start in range(0, len(rounded), window * batch_size):
        stop = min(start + window * batch_size, len(rounded))
        members = np.concatenate([carried, np.arange(start, stop)])
        batches, carried = _deal(members, rounded, batch_size, cost, last=stop == len(rounded))
        steps.append(rng.permutation(batches))
    return np.concatenate(steps)


def _deal(
    members: np.ndarray, rounded: np.ndarray, batch_size: int, cost: Cost, *, last: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Deal one window: its batches ``(k, B)``, and who is carried on to the next."""
    shapes, kind = np.unique(rounded[members], axis=0, return_inverse=True)
    by_cost = np.argsort(cost(shapes), kind="stable")
    shapes, kind = shapes[by_cost], np.argsort(by_cost)[kind.ravel()]
    pools = np.split(members[np.argsort(kind, kind="stable")], np.cumsum(np.bincount(kind))[:-1])
    batches, carried = [], [members[:0]]
    for index, shape in enumerate(shapes):
        pool = pools[index]
        full = len(pool) - len(pool) % batch_size
        larger = np.flatnonzero((shapes[index + 1 :] >= shape).all(axis=1))
        if full < len(pool) and len(larger):
            above = index + 1 + int(larger[0])
            pools[above] = np.concatenate([pool[full:], pools[above]])
        elif last:
            full = len(pool)
        else:
            carried.append(pool[full:])
        batches.append(_chunk(pool[:full], batch_size))
    return np.concatenate(batches), np.concatenate(carried)
