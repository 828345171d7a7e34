"""Who goes together: everything once, in shapes that hold it, the paid-for room given away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BatchShape, Fixed, position_count
from multimodal_pad.layouts.packed import PACKED, PackedLayout
from multimodal_pad.serving.pieces import Piece, joined, pieces_of
from multimodal_pad.serving.waiting import Waiting

NAMES = ("text", "audio")
PADDED_SHAPES = [BatchShape.of(4, {"text": t, "audio": a}) for t, a in ((3, 9), (9, 3), (9, 9))]
PACKED_SHAPES = [BatchShape.of(4, {"text": n, "audio": n}, PACKED) for n in (20, 36)]
ROOM = PackedLayout(room=tuple((t, s, -2) for t in sorted(NAMES) for s in sorted(NAMES)))
LISTED = [BatchShape.of(6, {"text": 192, "audio": 192}, ROOM)]  # 4 pairs of tiles, and 9 of them at most


def pieces(lengths):
    return [Piece({}, tuple(row), owner=number) for number, row in enumerate(lengths)]


@pytest.mark.parametrize("shapes", [PADDED_SHAPES, PACKED_SHAPES], ids=["padded", "packed"])
@pytest.mark.parametrize("smaller", [False, True])
@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_each_piece_comes_once_in_a_shape_that_holds_it(shapes, smaller, lengths):
    halves = [shape.layout.share(shape, 2) for shape in shapes] if smaller else []
    waiting = Waiting(shapes, halves, NAMES, position_count)
    waiting.add(pieces(lengths))
    batches = list(waiting.batches())
    assert sorted(piece.owner for _, taken in batches for piece in taken) == list(range(len(lengths)))
    for shape, taken in batches:
        assert shape in [*shapes, *halves]
        columns = [NAMES.index(name) for name, _ in shape.lengths]
        assert shape.layout.holds(shape, np.array([piece.lengths for piece in taken])[:, columns])
    assert len(waiting) == 0
    assert waiting.oldest() is None
    assert waiting.full() is None


def test_as_few_batches_as_can_be_where_lengths_are_one():
    waiting = Waiting(PADDED_SHAPES, [], NAMES, position_count)
    waiting.add(pieces([(2, 2)] * 10))
    assert [len(taken) for _, taken in waiting.batches()] == [4, 4, 2]


def test_a_short_batch_of_an_expensive_shape_takes_cheaper_pieces():
    waiting = Waiting(PADDED_SHAPES, [], NAMES, position_count)
    waiting.add(pieces([(1, 1), (9, 9), (9, 1)]))
    [(shape, taken)] = waiting.batches()
    assert (shape, [piece.owner for piece in taken]) == (PADDED_SHAPES[2], [1, 2, 0])


def test_the_oldest_is_in_the_next_batch_whatever_its_shape():
    waiting = Waiting(PADDED_SHAPES, [], NAMES, position_count)
    waiting.add(pieces([(9, 9), *[(1, 1)] * 4]))
    assert waiting.full() == 0
    assert waiting.first().owner == 0
    shape, taken = waiting.take(waiting.oldest())
    assert (shape, [piece.owner for piece in taken]) == (PADDED_SHAPES[2], [0, 1, 2, 3])


def test_what_is_denied_is_dropped():
    waiting = Waiting(PACKED_SHAPES, [], NAMES, position_count)
    waiting.add(pieces([(1, 1)] * 5))
    _, taken = waiting.take(waiting.oldest(), lambda piece: piece.owner not in (0, 2))
    assert [piece.owner for piece in taken] == [1, 3, 4]
    assert len(waiting) == 0
    waiting.add(pieces([(1, 1)]))
    assert waiting.take(waiting.oldest(), lambda _: False) is None


def test_a_packed_batch_is_full_by_samples_or_by_positions():
    for rows, full in (([(1, 1)] * 3, False), ([(1, 1)] * 4, True), ([(9, 1)] * 2, False), ([(9, 1)] * 3, True)):
        waiting = Waiting(PACKED_SHAPES, [], NAMES, position_count)
        waiting.add(pieces(rows))
        assert (waiting.full() is not None) == full


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=14))
def test_more_pairs_than_there_is_room_for_go_into_another_batch(lengths):
    waiting = Waiting(LISTED, [], NAMES, position_count)
    waiting.add(pieces(lengths))
    batches = list(waiting.batches())
    assert sorted(piece.owner for _, taken in batches for piece in taken) == list(range(len(lengths)))
    for shape, taken in batches:
        held = shape.layout.holds(shape, np.array([piece.lengths for piece in taken])[:, [1, 0]])
        assert held or len(taken) == 1


@settings(max_examples=25)
@given(st.integers(0, 30), st.integers(0, 30))
def test_windows_are_the_sample_cut_evenly_into_what_a_shape_holds(text, audio):
    policy = Fixed({"text": 4, "audio": 6})
    arrays = {"text": np.arange(text), "audio": np.arange(audio)}
    found = pieces_of(arrays, policy, "window", None, 0)
    assert len(found) == max(1, -(-text // 4), -(-audio // 6))
    assert policy.covers(np.array([piece.lengths for piece in found])).all()
    for name in NAMES:
        windows = [piece.arrays[name] for piece in found]
        np.testing.assert_array_equal(np.concatenate(windows), arrays[name])
        assert max(map(len, windows)) - min(map(len, windows)) <= 1
    assert [piece.place for piece in found] == list(range(len(found)))


def test_windows_without_positions_count_for_next_to_nothing():
    one, other = np.float32([1.0]), np.float32([5.0])
    assert joined([one, other], [0, 3], positions=False) == pytest.approx(5)
    assert joined([one, other], [0, 0], positions=False) == pytest.approx(3)
    assert joined([one, other], [1, 1], positions=True).tolist() == [1, 5]
