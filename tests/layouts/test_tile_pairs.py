"""Pairs of tiles: every one that attention needs, each once, in order, and never more than there is room for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import pack_samples
from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.packed import PackedLayout
from multimodal_pad.layouts.tile_pairs import NONE, TILE, listed_pairs, room_needed, tiles_of
from tests.helpers.packed import with_pairs

LENGTHS = st.sampled_from([0, 0, 1, 5, 63, 64, 65, 200]) | st.integers(0, 90)


def needed(queries, keys):
    """Position by position: the tiles of all that one sample holds on both axes."""
    of_query, of_key = (np.repeat(np.arange(len(n)), n) for n in (queries, keys))
    together = of_query[:, None] == of_key[None]
    return {(i // TILE, j // TILE) for i, j in np.argwhere(together).tolist()}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=6), st.integers(0, 2), st.integers(0, 3))
def test_every_pair_that_attention_needs_is_listed_once(lengths, more_tiles, left_over):
    queries, keys = np.array(lengths).T
    tiles = np.array([max(1, tiles_of(queries.sum())) + more_tiles, max(1, tiles_of(keys.sum()))])
    room = int(room_needed(np.array([lengths]), tiles)[0, 1]) + left_over
    sizes = {"q": int(tiles[0]), "k": int(tiles[1])}
    pairs = listed_pairs({"q": queries, "k": keys}, sizes, (("q", "k", room),), 1)["q", "k"]
    assert pairs.shape == (tiles.sum() + room, 2)
    used = [tuple(pair) for pair in pairs.tolist() if pair[1] != NONE]
    assert len(set(used)) == len(used) == (len(pairs) - left_over if used else 0)
    assert set(used) >= needed(queries, keys)
    assert used == sorted(used)
    assert (np.diff(pairs[:, 0]) >= 0).all()
    assert pairs[:, 0].max() < tiles[0]
    assert pairs[:, 1].max() < tiles[1]
    if (queries > 0).all():  # else the tiles of a sample that asks nothing lie between those of others
        assert set(used) == needed(queries, keys)


def test_shares_have_lists_of_their_own():
    lengths = {"q": np.array([70, 10, 64, 0]), "k": np.array([5, 5, 130, 3])}
    room = (("q", "k", 2),)
    both = listed_pairs(lengths, {"q": 2, "k": 3}, room, 2)["q", "k"]
    for share in range(2):
        own = {name: x[2 * share : 2 * share + 2] for name, x in lengths.items()}
        one = listed_pairs(own, {"q": 2, "k": 3}, room, 1)["q", "k"]
        np.testing.assert_array_equal(both[7 * share : 7 * share + 7], one)


def test_more_pairs_than_there_is_room_for_are_an_error():
    lengths = {"q": np.array([130]), "k": np.array([130])}
    assert len(listed_pairs(lengths, {"q": 3, "k": 3}, (("q", "k", 3),), 1)["q", "k"]) == 9
    with pytest.raises(SampleError, match=r"attention of 'q' to 'k' meets 9 pairs of tiles of 64 .* the plan has 8"):
        listed_pairs(lengths, {"q": 3, "k": 3}, (("q", "k", 2),), 1)


def test_a_batch_says_which_layout_it_has():
    samples = [{"text": np.arange(n)} for n in (100, 30, 3)]
    layout = with_pairs(samples, {"text": 140})
    batch = pack_samples(samples, capacity={"text": 140}, layout=layout)
    assert batch.layout == layout != PackedLayout()
    assert batch.shape.layout == layout
    assert batch.tile_pairs["text", "text"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    plain = pack_samples(samples, capacity={"text": 140})
    assert batch.nbytes == plain.nbytes + batch.tile_pairs["text", "text"].nbytes
