"""How many pairs of tiles attention meets in the batches of a packing plan: what their lists have room for."""

from __future__ import annotations

import numpy as np

from multimodal_pad.layouts.tile_pairs import TILE, Room, room_needed
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.balancing import deal_packs
from multimodal_pad.scheduling.dealing import shuffled

MARGIN, SPARE = 0.1, 4
"""What lists hold more: a share of the pairs that the dealt epochs have at most, and so many besides. Other epochs have
other batches; but the longest samples, which have most of the pairs, are dealt to packs of their own first."""

_AT_ONCE = 2048  # packs that are looked at together


def pairs_room(
    modalities: tuple[str, ...], lengths: np.ndarray, size: int, capacities: np.ndarray, *, epochs: int, seed: int
) -> Room:
    """The room of the lists of every attention of one modality to another or to itself.

    Args:
        modalities: names of the M columns.
        lengths: ``(n, M)`` of the samples.
        size: samples of a pack.
        capacities: ``(k, M)`` of a pack, smallest first.
        epochs: that are dealt.
        seed: of them.
    """
    room = room_needed(lengths[:, None], -(-lengths // TILE))  # any sample may be in any batch
    for epoch in range(epochs):
        packs = deal_packs(lengths, shuffled(len(lengths), seed, epoch), size, capacities=capacities)
        tiles = -(-capacities // TILE)[(packs.loads[:, None] <= capacities).all(axis=2).argmax(axis=1)]
        for begin in range(0, len(packs.members), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            members = packs.members[part]
            held = np.where(members[..., None] == EMPTY, 0, lengths[members])
            room = np.maximum(room, room_needed(held, tiles[part]))
    first, last = (-(-capacity // TILE) for capacity in (capacities[0], capacities[-1]))
    both = first[:, None] + first[None]
    room += np.ceil(MARGIN * (room + both)).astype(np.int64) + SPARE
    room = np.minimum(room, last[:, None] * last[None] - last[:, None] - last[None])  # there are no more
    entries = ((t, s, int(room[i, j])) for i, t in enumerate(modalities) for j, s in enumerate(modalities))
    return tuple(sorted(entries))
