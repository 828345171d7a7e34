"""The room for pairs of tiles that attention meets in the batches of a packing plan."""

from __future__ import annotations

import numpy as np

from multimodal_pad.layouts.tile_pairs import TILE, Room, room_needed
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.balancing import deal_packs
from multimodal_pad.scheduling.dealing import shuffled

MARGIN = 0.1
"""Room beyond the most pairs of the dealt epochs, as a share of these. Other epochs have other batches; but the longest
samples, which have most of the pairs, are dealt to packs of their own first."""

SPARE = 4
"""Pairs of room beside that share."""

PACKS = 1000  # least packs to deal, in whole epochs, to count pairs
MOST_EPOCHS = 32  # dealt for that
_AT_ONCE = 2048  # packs counted together


def pairs_room(
    modalities: tuple[str, ...],
    lengths: np.ndarray,
    size: int,
    capacities: np.ndarray,
    *,
    shares: int,
    seed: int,
) -> Room:
    """Return the room of a batch's lists, of every attention of one modality to another or to itself.

    Args:
        modalities: names of the M columns.
        lengths: ``(n, M)`` of the samples.
        size: samples of a pack.
        capacities: ``(k, M)`` of a pack, smallest first.
        shares: packs of a batch, which it has apart, or end to end where one device takes them all.
        seed: of the epochs that are dealt.
    """
    room = room_needed(lengths[:, None], -(-lengths // TILE))  # any sample may be in any batch
    epochs = -(-PACKS * size // len(lengths))
    for epoch in range(min(max(epochs, 2), MOST_EPOCHS)):
        packs = deal_packs(lengths, shuffled(len(lengths), seed, epoch), size, capacities=capacities)
        held_by = capacities[(packs.loads[:, None] <= capacities).all(axis=2).argmax(axis=1)]
        for begin in range(0, len(packs.members), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            members = packs.members[part]
            held = np.where(members[..., None] == EMPTY, 0, lengths[members])
            room = np.maximum(room, room_needed(held, -(-held_by[part] // TILE)))
            if shares > 1 and len(held) >= shares:
                whole = held[: len(held) // shares * shares].reshape(-1, shares * size, len(modalities))
                largest = held_by[part][: len(whole) * shares].reshape(len(whole), shares, -1).max(axis=1)
                room = np.maximum(room, -(-room_needed(whole, -(-shares * largest // TILE)) // shares))
    first, last = (-(-capacity // TILE) for capacity in (capacities[0], shares * capacities[-1]))
    both = first[:, None] + first[None]
    room += np.ceil(MARGIN * (room + both)).astype(np.int64) + SPARE
    most = -(-(last[:, None] * last[None] - last[:, None] - last[None]) // shares)  # all pairs that there are
    room = np.maximum(np.minimum(room, most), 0)
    entries = ((t, s, shares * int(room[i, j])) for i, t in enumerate(modalities) for j, s in enumerate(modalities))
    return tuple(sorted(entries))
