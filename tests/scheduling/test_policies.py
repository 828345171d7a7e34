import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import (
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    PaddingError,
    Planned,
    make_schedule,
    plan_shapes,
)
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
    shapes = policy.lengths()
    if shapes is not None:
        assert set(map(tuple, padded.tolist())) <= set(map(tuple, shapes.tolist()))


@given(st.data(), length_tables())
def test_the_bucket_of_the_maxima_holds_every_sample_and_is_no_cheaper(data, table):
    policy = data.draw(policies(table))
    (joint,) = policy.round_up(table.values.max(axis=0)[None])
    assert (joint >= table.values).all()
    assert (joint.sum() >= policy.round_up(table.values).sum(axis=1)).all()


def test_ladder_rounds_to_the_next_edge():
    edges = [4, 8, 20]
    ladder = Ladder({"text": edges})
    for length in range(21):
        assert ladder.round_up(np.array([[length]]))[0, 0] == min(e for e in edges if e >= length)


def test_the_shapes_of_a_ladder_are_the_product():
    shapes = Ladder({"text": [1, 2], "audio": [5, 6, 7]}).lengths()
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
    assert Fixed.longest(TABLE).lengths().tolist() == [[9, 100]]
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


def test_planned_rounds_up_to_the_cheapest_shape_that_holds_the_row():
    table = LengthTable(("text", "audio"), np.array([[2, 40]] * 5 + [[40, 2]] * 5 + [[3, 3]] * 5))
    policy = Planned(plan_shapes(table, max_shapes=3, batch_size=7))
    assert policy.lengths().tolist() == [[3, 3], [40, 2], [2, 40]]
    assert policy.round_up(np.array([[1, 3], [0, 4], [4, 0]])).tolist() == [[3, 3], [2, 40], [40, 2]]
    assert policy.batch_sizes(policy.lengths()).tolist() == [7, 7, 7]
    assert repr(policy).startswith("Planned(3 shapes, ")


def test_planned_truncates_to_the_shape_that_keeps_most():
    table = LengthTable(("text", "audio"), np.array([[2, 40]] * 5 + [[40, 2]] * 5))
    policy = Planned(plan_shapes(table, max_shapes=2))
    rows = np.array([[2, 40], [9, 9], [5, 60], [60, 50]])
    assert policy.covers(rows).tolist() == [True, False, False, False]
    cut = policy.truncate(rows)
    assert cut.tolist() == [[2, 40], [9, 2], [2, 40], [40, 2]]
    assert policy.covers(cut).all()
    with pytest.raises(
        UncoveredLengthError,
        match=r"row 2: 'text' has 5 positions and the nearest planned shape is \(text 2, audio 40\)",
    ):
        policy.round_up(rows[[0, 0, 2]])


def test_a_policy_without_rows_of_its_own_wants_a_batch_size():
    assert Fixed.longest(TABLE).batch_sizes(np.array([[9, 100]])) is None
    with pytest.raises(PaddingError, match=r"got no batch_size, and Fixed\(.* has none of its own"):
        make_schedule(TABLE, Fixed.longest(TABLE))


def test_a_ladder_of_many_modalities_is_dealt_though_its_shapes_are_too_many_to_list():
    names = tuple(f"m{number}" for number in range(16))
    table = LengthTable(names, np.random.default_rng(0).integers(1, 200, (50, len(names))))
    schedule = make_schedule(table, Ladder.powers_of_two(table), batch_size=4)  # of 8 ** 16 shapes
    assert sorted(schedule.ids[schedule.ids >= 0].tolist()) == list(range(50))
