"""Filling up short batches: rows that a shape pays for anyway take samples of smaller shapes."""

from __future__ import annotations

import numpy as np


def fill_up(kind: int, counts: np.ndarray, shapes: np.ndarray, rows: int) -> np.ndarray:
    """Fill one batch with samples of its own kind, then of the most expensive of the kinds that fit in it.

    Args:
        kind: the batch has this kind's shape.
        counts: int64 ``(K,)``: samples on offer of each kind.
        shapes: int64 ``(K, M)``: padded lengths of each kind, cheapest first.
        rows: of the batch.

    Returns:
        How many samples of each kind up to ``kind`` are in the batch, int64 ``(kind + 1,)``.

    >>> fill_up(2, np.array([5, 5, 2]), np.array([[4], [8], [16]]), rows=8).tolist()
    [1, 5, 2]
    """
    fits = (shapes[: kind + 1] <= shapes[kind]).all(axis=1)
    offered = np.cumsum(np.where(fits, counts[: kind + 1], 0)[::-1])
    return np.diff(np.minimum(offered, rows), prepend=0)[::-1]


def share_out(
    counts: np.ndarray, shapes: np.ndarray, sizes: np.ndarray, *, last: bool
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Split waiting samples into batches of their own shape and fillers for larger shapes.

    Samples that don't fill a batch wait. Where none may wait any longer, or over half would, batches are filled up,
    from the most expensive shape on, with samples of the next smaller ones: their rows are paid for anyway. So the
    batches that stay short in the end are those of the cheapest shapes.

    Args:
        counts: int64 ``(K,)``: samples of each kind.
        shapes: int64 ``(K, M)``: cheapest first.
        sizes: int64 ``(K,)``: rows of a batch of each.
        last: no sample may wait.

    Returns:
        Samples ``(K,)`` that stay with their kind, and ``(kind, kind that they come from, samples)`` for the fillers.

    >>> shapes, sizes = np.array([[4], [8]]), np.array([4, 4])
    >>> share_out(np.array([7, 5]), shapes, sizes, last=False)[0].tolist()
    [4, 4]
    >>> own, moved = share_out(np.array([7, 5]), shapes, sizes, last=True)
    >>> own.tolist(), moved
    ([4, 5], [(1, 0, 3)])
    """
    if not last and 2 * (counts % sizes).sum() <= counts.sum():
        return counts - counts % sizes, []
    own, moved = counts.copy(), []
    for kind in reversed(range(len(own))):
        short = int(own[kind] % sizes[kind])
        if not short:
            continue
        shares = fill_up(kind, np.append(own[:kind], short), shapes, int(sizes[kind]))
        if not last and shares.sum() < sizes[kind]:
            own[kind] -= short
            continue
        fillers = shares[:kind]
        moved += [(kind, source, int(fillers[source])) for source in np.flatnonzero(fillers)[::-1].tolist()]
        own[:kind] -= fillers
    return own, moved
