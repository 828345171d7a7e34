import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import Exact, Fixed, Ladder, LengthTable
from multimodal_pad.errors import LengthError, UncoveredLengthError
from tests.strategies import length_tables, policies

TABLE = LengthTable(("text", "audio"), np.array([[3, 40], [9, 0], [1, 100]]))


@given(st.data(), length_tables())
def test_what_every_policy_promises(data, table):
    policy = data.draw(policies(table))
    values = table.values
    padded = policy.round_up(values)
    assert padded.shape == values.shape
    assert (padded >= np.maximum(values, 1)).all()
    np.testing.assert_array_equal(policy.round_up(padded), padded)  # a bucket is its own bucket
    assert policy.covers(values).all()
    np.testing.assert_array_equal(policy.truncate(values), values)
    shapes = policy.shapes()
    if shapes is not None:
        assert set(map(tuple, padded.tolist())) <= set(map(tuple, shapes.tolist()))


@given(st.data(), length_tables())
def test_rounding_up_keeps_the_order(data, table):
    """The bucket of a batch's maxima holds the buckets of its samples: grouping relies on it."""
    policy = data.draw(policies(table))
    assert (policy.round_up(table.values.max(axis=0)[None]) >= policy.round_up(table.values)).all()


def test_ladder_rounds_to_the_next_edge():
    edges = [4, 8, 20]
    ladder = Ladder({"text": edges})
    for length in range(21):
        assert ladder.round_up(np.array([[length]]))[0, 0] == min(e for e in edges if e >= length)


def test_the_shapes_of_a_ladder_are_the_product():
    shapes = Ladder({"text": [1, 2], "audio": [5, 6, 7]}).shapes()
    assert len(shapes) == 6
    assert len(np.unique(shapes, axis=0)) == 6


def test_powers_of_two():
    assert [e.tolist() for e in Ladder.powers_of_two(TABLE, 4).edges] == [[4, 8, 16], [4, 8, 16, 32, 64, 128]]


def test_multiples():
    assert [e.tolist() for e in Ladder.multiples_of(TABLE, {"text": 4, "audio": 50}).edges] == [[4, 8, 12], [50, 100]]


def test_quantiles_hold_equal_shares():
    table = LengthTable(("text",), np.arange(1, 101)[:, None])
    assert Ladder.quantiles(table, 4).edges[0].tolist() == [25, 50, 75, 100]


def test_quantiles_of_equal_lengths_are_one_edge():
    assert Ladder.quantiles(LengthTable(("text",), np.full((9, 1), 5)), 4).edges[0].tolist() == [5]


def test_a_modality_that_is_always_missing_has_length_1():
    table = LengthTable(("text",), np.zeros((3, 1), int))
    for policy in (Fixed.longest(table), Exact(["text"]), Ladder.powers_of_two(table), Ladder.quantiles(table, 3)):
        assert policy.round_up(table.values).tolist() == [[1], [1], [1]]


def test_fixed_is_one_shape():
    assert Fixed.longest(TABLE).shapes().tolist() == [[9, 100]]
    assert repr(Fixed({"text": 9})) == "Fixed({'text': 9})"


def test_too_long_is_named():
    with pytest.raises(UncoveredLengthError, match="row 2: 'audio' has 100 positions and the longest bucket has 64"):
        Ladder({"text": [16], "audio": [32, 64]}).round_up(TABLE.values)


def test_covers_and_truncate():
    ladder = Ladder({"text": [16], "audio": [32, 64]})
    assert ladder.covers(TABLE.values).tolist() == [True, True, False]
    assert ladder.truncate(TABLE.values).tolist() == [[3, 40], [9, 0], [1, 64]]


@pytest.mark.parametrize("edges", [[], np.array([8, 4], np.uint8), [0, 4], [4, 4], [8, 4], [-1], [1.5, 3], 7, [[1, 2]]])
def test_bad_edges(edges):
    with pytest.raises(LengthError, match="'text': got the edges"):
        Ladder({"text": edges})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ladder.powers_of_two(TABLE, 0), "got smallest=0"),
        (lambda: Ladder.multiples_of(TABLE, 0), r"got multiple\['text'\]=0"),
        (lambda: Ladder.multiples_of(TABLE, 64.0), r"got multiple\['text'\]=64\.0"),
        (lambda: Ladder.quantiles(TABLE, 2.5), r"got count=2\.5"),
        (lambda: Ladder.multiples_of(TABLE, {"text": 4}), r"multiples for \['text'\]"),
        (lambda: Ladder.quantiles(TABLE, 0), "got count=0"),
        (lambda: Ladder({}), "at least one name"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(LengthError, match=message):
        make()
