"""Pairs of tiles: which stretches of one packed axis share samples with which of another, for attention.

On a GPU or TPU attention in a packed batch is worked out tile by tile: a tile of queries meets the tiles of keys that
hold positions of its samples, and no others. Which ones is listed on the host, in arrays whose size is part of the
batch shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimodal_pad.errors import SampleError

TILE = 64
"""Positions of a tile; the last one of an axis may be shorter."""

NONE = -1  # the tile of keys where an entry of a list is not used

Room = tuple[tuple[str, str, int], ...]
"""For each attention ``(target, source, room)``: how many pairs of tiles a batch may have beyond both axes' tiles.

A batch of several shares has as much for each of them.
"""


def tiles_of(count: int, shares: int = 1) -> int:
    """Return the tiles of one share of ``count`` positions."""
    return -(-count // (shares * TILE))


def tiles_met(queries: np.ndarray, keys: np.ndarray, tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tiles of keys that each tile of queries meets: from, and up to, int64 ``(packs, tiles)``.

    Args:
        queries: int ``(packs, B)``: positions of each sample on the axis of queries, one sample after the other.
        keys: int ``(packs, B)``: those of the same samples on the axis of keys.
        tiles: of the axis of queries.

    >>> first, end = tiles_met(np.array([[100, 20]]), np.array([[10, 130]]), 2)
    >>> first.tolist(), end.tolist()
    ([[0, 0]], [[1, 3]])
    """
    ends, key_ends = queries.cumsum(axis=1), keys.cumsum(axis=1)
    begins = np.arange(tiles) * TILE
    lasts = np.minimum(begins + TILE, ends[:, -1:]) - 1
    # The sample of a position is the number of samples that end at or before it.
    first, last = ((ends[:, None] <= at[..., None]).sum(axis=2) for at in (begins[None], lasts))
    packs, at_most = np.arange(len(queries))[:, None], queries.shape[1] - 1
    begin = (key_ends - keys)[packs, np.minimum(first, at_most)]
    end = key_ends[packs, np.minimum(last, at_most)]
    some = (begins < ends[:, -1:]) & (end > begin)
    return np.where(some, begin // TILE, 0), np.where(some, -(-end // TILE), 0)


def room_needed(lengths: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Return how many pairs packs have at most beyond the tiles of both axes, int64 ``(M, M)``, by target and source.

    Room for one pair is the least, so that no list is empty.

    Args:
        lengths: int ``(packs, B, M)``: of the samples of each pack, in their order.
        tiles: int ``(M,)`` of the axes, or ``(packs, M)``.

    >>> room_needed(np.array([[[100], [20]]]), np.array([2])).tolist()  # 2 x 2 pairs, and 2 + 2 tiles
    [[0]]
    """
    columns, tiles = range(lengths.shape[2]), np.broadcast_to(tiles, (len(lengths), lengths.shape[2]))
    room = np.empty((len(columns), len(columns)), np.int64)
    for t in columns:
        for s in columns:
            first, end = tiles_met(lengths[:, :, t], lengths[:, :, s], int(tiles[:, t].max()))
            room[t, s] = (np.maximum((end - first).sum(axis=1), 1) - tiles[:, t] - tiles[:, s]).max()
    return room


def has_room(lengths: np.ndarray, capacities: Mapping[str, int], room: Room) -> bool:
    """Return whether lists of this room hold the pairs of samples ``(n, M)``, columns in the order of ``capacities``.

    >>> lengths = np.array([[100], [20]])
    >>> [has_room(lengths, {"text": 128}, (("text", "text", more),)) for more in (0, -1)]
    [True, False]
    """
    names = list(capacities)
    needed = room_needed(lengths[None], np.array([tiles_of(n) for n in capacities.values()]))
    return all(needed[names.index(target), names.index(source)] <= more for target, source, more in room)


def listed_pairs(
    lengths: Mapping[str, np.ndarray], tiles: Mapping[str, int], room: Room, shares: int
) -> dict[tuple[str, str], np.ndarray]:
    """Return the pairs of tiles of a batch.

    Args:
        lengths: int ``(B,)`` of each modality.
        tiles: of each modality's axis, in one share.
        room: of one share, see :data:`Room`.
        shares: into how many shares the batch is laid out; tiles count from the first one of their share.

    Returns:
        For each target and source int32 ``(shares * P, 2)``: the tile of queries, ascending, and the tile of keys; at
        the end of each share what is left over, with the last tile of queries and -1. P is the tiles of both, and
        their room.

    Raises:
        SampleError: a share has more pairs.
    """
    pairs = {}
    for target, source, more in room:
        queries, keys = (lengths[name].reshape(shares, -1) for name in (target, source))
        first, end = tiles_met(queries, keys, tiles[target])
        most, counts = tiles[target] + tiles[source] + more, (end - first).sum(axis=1)
        if counts.max() > most:
            raise SampleError(
                f"attention of {target!r} to {source!r} meets {counts.max()} pairs of tiles of {TILE} positions, and "
                f"the plan has {most} for it; plan again with plan_packing(..., tile_pairs=True) for these samples"
            )
        out = np.empty((shares, most, 2), np.int32)
        out[:] = tiles[target] - 1, NONE
        for share, count in enumerate(counts.tolist()):
            met = end[share] - first[share]
            begins = np.cumsum(met) - met
            out[share, :count, 0] = np.repeat(np.arange(len(met)), met)
            out[share, :count, 1] = np.arange(count) + np.repeat(first[share] - begins, met)
        pairs[target, source] = out.reshape(-1, 2)
    return pairs


def room_of(pairs: Mapping[tuple[str, str], np.ndarray], tiles: Mapping[str, int], shares: int) -> Room:
    """Return the room that lists of all shares have together, from their sizes; ``tiles`` are of one share."""
    return tuple((t, s, len(x) - shares * (tiles[t] + tiles[s])) for (t, s), x in sorted(pairs.items()))
