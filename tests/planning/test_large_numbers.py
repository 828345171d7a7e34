"""Lengths, edges, rows and options about as large as numbers go: right, or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import (
    BatchBudget,
    BatchShape,
    Fixed,
    Ladder,
    LengthTable,
    PackingPlan,
    PaddingError,
    Policy,
    ShapePlan,
    TransformerCost,
    make_schedule,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.cli import main
from multimodal_pad.errors import LengthError, PlanError
from multimodal_pad.lengths.table import LONGEST

EDGES = st.sampled_from([1, 7, 2**16, 2**31 - 9, 2**31 - 8, LONGEST, 2**31, 2**32 + 8, 2**33, 2**53 + 1, 2**63, 10**30])


def table_of(*lengths):
    return LengthTable(("text", "audio"), np.array([[1, length] for length in lengths]))


@given(EDGES)
def test_a_bucket_length_is_scheduled_as_it_is_or_refused(edge):
    table = table_of(1, 1)
    try:
        policy = Fixed({"text": 4, "audio": edge})
    except LengthError as error:
        assert edge > LONGEST
        assert "2,147,483,647" in str(error)  # noqa: PT017
        return
    for grouping in ("length", "random"):
        (shape, _), *_ = make_schedule(table, policy, batch_size=2, grouping=grouping)
        assert shape.tolist() == [4, edge]


@pytest.mark.parametrize(
    "edges", [[2**32 + 8], [8, 2**32 + 8], np.array([2**63], np.uint64), [2**70], range(9, 2**40, 2**39)]
)
def test_edges_beyond_int32_are_refused(edges):
    with pytest.raises(LengthError, match=r"'audio': got the edges .*; no bucket length is above 2,147,483,647"):
        Ladder({"text": [4], "audio": edges})


class Doubling(Policy):
    """A policy of one's own that rounds up too far."""

    modalities = ("text", "audio")
    finite = False

    def round_up(self, lengths):
        return 2 * np.maximum(lengths, 1)

    def lengths(self):
        return None

    def truncate(self, lengths):
        return lengths


def test_a_policy_of_ones_own_is_not_cut_to_int32():
    with pytest.raises(LengthError, match=r"rounds 2000000000 positions of 'audio' up to 4000000000"):
        make_schedule(table_of(1, 2_000_000_000), Doubling(), batch_size=1)


def test_ladders_of_the_longest_lengths():
    table = table_of(3, LONGEST)
    assert Ladder.powers_of_two(table).round_up(table.values).tolist() == [[1, 4], [1, LONGEST]]
    with pytest.raises(LengthError, match=r"'audio': got lengths up to 2,147,483,647 and multiples of 1,"):
        Ladder.multiples_of(table, 1)
    with pytest.raises(LengthError, match="up to 2,147,483,648"):
        Ladder.multiples_of(table, {"text": 1, "audio": 2**30})


SIZES = st.sampled_from([1, 8, 2**20, 2**31 - 1, 2**31, 2**40, 10**25])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 9, 2**20, 2**31 - 8, LONGEST]), min_size=1, max_size=12),
    st.sampled_from([1, 8, 1000, 2**30, 2**31, 10**30]),
    SIZES,
    st.sampled_from([None, 1.0, 1e12, 1e300]),
    st.sampled_from([0.0, 1e9]),
    st.sampled_from([4, 2**20, 2**31]),
)
def test_a_plan_is_one_that_can_be_read_back(lengths, alignment, size, limit, overhead, width):
    table = table_of(*lengths)
    try:
        cost = TransformerCost(table.modalities, d_model=width, memory_layers=width)
        rows = size if limit is None else BatchBudget(limit, multiple=size, largest=None)
        plan = plan_shapes(
            table, max_shapes=3, cost=cost, alignment=alignment, batch_size=rows, batch_overhead=overhead, effort=0
        )
    except PaddingError:
        return
    assert ShapePlan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert plan.covers(table.values).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 9, 2**20, 2**31 - 8, LONGEST]), min_size=1, max_size=8),
    st.sampled_from([1, 8, 2**30, 10**30]),
    st.sampled_from([1, 4, 2**31 - 1, 2**40]),
    st.sampled_from([1, 2, 2**40]),
)
def test_a_packing_plan_is_one_that_can_be_read_back(lengths, alignment, size, shares):
    table = table_of(*lengths)
    try:
        plan = plan_packing(table, batch_size=size, alignment=alignment, shares=shares)
    except PaddingError:
        return
    assert PackingPlan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_what_exceeds_int32_names_what_to_do():
    with pytest.raises(
        LengthError, match=r"'audio': got a length of 2,147,483,647 and an alignment of 8.*give a smaller alignment"
    ):
        plan_shapes(table_of(LONGEST, 3), alignment=8)
    with pytest.raises(PlanError, match=r"batches need 2,863,311,532 positions of 'audio'.*smaller batch size"):
        plan_packing(table_of(LONGEST, LONGEST, 3), batch_size=2, alignment=1)
    with pytest.raises(
        PaddingError, match=r"got batch_size=2147483648; it must be a whole number, at most 2,147,483,647"
    ):
        plan_shapes(table_of(3), batch_size=2**31)


@pytest.mark.parametrize(("rows", "length"), [(2**31, 4), (4, 2**31), (4, np.int64(2**33))])
def test_no_batch_shape_is_larger_than_int32_numbers(rows, length):
    with pytest.raises(PaddingError, match="batches number them by int32: at most 2,147,483,647 of each"):
        BatchShape.of(rows, {"audio": length})
    assert BatchShape.of(4, {"audio": LONGEST}).lengths == (("audio", LONGEST),)


def test_the_cost_of_a_wide_model_does_not_wrap():
    wide = TransformerCost(("text", "audio"), d_model=np.int64(2**30), memory_layers=np.int64(2**20))
    assert wide(np.array([[3, 4]]))[0] > 1e25


@pytest.mark.parametrize(
    "option", ["--batch-size", "--align", "--d-model", "--layers", "--batch-multiple", "--batch-largest"]
)
@pytest.mark.parametrize("value", [str(2**31), str(2**63), "9" * 400])
def test_options_beyond_what_integers_hold(option, value, tmp_path, capsys):
    path = tmp_path / "lengths.csv"
    path.write_text("text,audio\n3,40\n4,2\n")
    more = {"--d-model": ["--cost", "transformer"], "--layers": ["--cost", "transformer"]}
    more |= {name: ["--batch-positions", "100"] for name in ("--batch-multiple", "--batch-largest")}
    assert main(["plan", str(path), option, value, *more.get(option, [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: got ")
    assert "2,147,483,647" in line
    assert len(line) < 200


@pytest.mark.parametrize("option", ["--shares", "--seed", "--max-shapes"])
def test_options_beyond_what_integers_hold_that_are_no_numbers_of_rows(option, tmp_path, capsys):
    path = tmp_path / "lengths.csv"
    path.write_text("text,audio\n3,40\n4,2\n")
    more = ["--packed"] if option == "--shares" else []
    status = main(["plan", str(path), option, str(10**30), *more])
    assert status == (0 if option == "--seed" else 2), capsys.readouterr().err
