"""How many shapes pay: ``max_shapes="auto"``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import BatchBudget, BatchShape, PaddingError, RunTime, plan_shapes
from multimodal_pad.planning import planner
from multimodal_pad.planning.run_time import ShapeCount
from multimodal_pad.sources import Synthetic
from tests.helpers.plans import NAMES, check_plan, paid, table_of, weighted


@pytest.mark.slow
def test_auto_minimises_the_time_of_the_run():
    table = Synthetic(600).lengths
    run_time = RunTime(epochs=20, compile_seconds=10, seconds_per_cost=1e-4)
    plan = plan_shapes(table, max_shapes="auto", run_time=run_time)
    longer = plan_shapes(table, max_shapes=2 * len(plan) + 10)
    real = table.values.sum()
    seconds = [run_time.seconds(k, real / share) for k, share in enumerate(longer.efficiencies, 1)]
    assert len(plan) == 1 + int(np.argmin(seconds))
    assert 1 < len(plan) < planner.MOST_SHAPES


def test_auto_with_free_or_endless_compiling():
    table = Synthetic(300).lengths
    assert len(plan_shapes(table, max_shapes="auto", run_time=RunTime(1, 1e9, 1e-9))) == 1
    few = table_of(*[[n % 3, n % 2] for n in range(30)])
    assert plan_shapes(few, max_shapes="auto", run_time=RunTime(1, 0, 1)).efficiency == pytest.approx(
        few.values.sum() / np.maximum(few.values, 1).sum()
    )


def test_bad_run_times():
    with pytest.raises(PaddingError, match="got compile_seconds=nan"):
        RunTime(1, np.nan, 1)


def shape_of(*lengths, rows=32):
    return BatchShape.of(rows, dict(zip(NAMES, lengths, strict=False)))


rows_of_lengths = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=25)
times = st.sampled_from([(0, 1), (1, 1), (40, 1), (1000, 1)])


@pytest.mark.slow
@given(rows_of_lengths, st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), max_size=3), times)
def test_compiled_shapes_are_in_the_plan_and_help(rows, compiled, prices):
    table, (compile_seconds, epochs) = table_of(*rows), prices
    shapes = tuple(shape_of(*lengths) for lengths in compiled)
    options = {"max_shapes": "auto", "cost": weighted, "effort": 0}
    plain = plan_shapes(table, run_time=RunTime(epochs, compile_seconds, 1), **options)
    run_time = RunTime(epochs, compile_seconds, 1, shapes)
    plan = plan_shapes(table, run_time=run_time, **options)
    check_plan(plan, table, 128)
    assert set(shapes) <= set(plan.batch_shapes)
    new = len(plan) - len(set(shapes))
    assert run_time.seconds(new, paid(plan)) <= run_time.seconds(len(plain), paid(plain)) * (1 + 1e-9)


@pytest.mark.slow
@given(rows_of_lengths, st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), max_size=2), times)
def test_the_search_ends_early_and_misses_nothing(rows, compiled, prices):
    """Looked through to the end, no other number of shapes takes less time."""
    table, (compile_seconds, epochs) = table_of(*rows), prices
    run_time = RunTime(epochs, compile_seconds, 1, tuple(shape_of(*lengths) for lengths in compiled))
    options = {"max_shapes": "auto", "cost": weighted, "effort": 0, "run_time": run_time}
    early = plan_shapes(table, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShapeCount, "is_enough", False)
        late = plan_shapes(table, **options)
    assert early.lengths.tolist() == late.lengths.tolist()


def test_a_compiled_shape_that_holds_no_sample():
    table = table_of([4, 30], [20, 3])
    plan = plan_shapes(table, max_shapes="auto", run_time=RunTime(1, 1, 1e3, (shape_of(20, 30),)))
    assert plan.lengths.tolist() == [[20, 3], [4, 30], [20, 30]]
    assert plan.samples.tolist() == [1, 1, 0]
    plan = plan_shapes(table, max_shapes="auto", run_time=RunTime(1, 1, 1e-3, (shape_of(20, 30),)))
    assert plan.lengths.tolist() == [[20, 30]]


def test_a_compiled_shape_keeps_its_rows_within_a_budget():
    table = table_of(*[[n, 2 * n] for n in range(1, 11)])
    kept = shape_of(10, 20, rows=7)
    options = {"max_shapes": "auto", "batch_size": BatchBudget(8 * 30 - 1)}
    plan = plan_shapes(table, run_time=RunTime(1, 1, 1e3, (kept,)), **options)
    assert plan.batch_shapes[-1] == kept
    assert plan_shapes(table, run_time=RunTime(1, 1, 1e3), **options).batch_shapes[-1].batch_size == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (shape_of(8), r"got the compiled shape 32 x \(text 8\); give shapes of \['text', 'audio'\]"),
        (shape_of(7, 8), "its lengths must be multiples of"),
        (shape_of(8, 8, rows=16), "with these lengths the plan has 32 rows"),
    ],
)
def test_bad_compiled_shapes(shape, message):
    with pytest.raises(PaddingError, match=message):
        plan_shapes(table_of([1, 1]), max_shapes="auto", alignment=4, run_time=RunTime(1, 1, 1, (shape,)))


@pytest.mark.parametrize(
    ("run_time", "reason"),
    [
        (
            RunTime(10, 30, 0.01),
            "1 batch shape: 1 more would take 30 s to compile and save at most 9 s of 20 s of steps in 10 epochs",
        ),
        (
            RunTime(10, 4, 0.01),
            "2 batch shapes: compiling 2 takes 8 s, and they save 9 s of 20 s of steps in 10 epochs with one shape",
        ),
        (
            RunTime(10, 4, 0.01, (shape_of(100),)),
            "2 batch shapes (1 compiled before): compiling 1 takes 4 s, and they save 9 s of 20 s of steps in 10 "
            "epochs with one shape",
        ),
    ],
)
def test_the_reason(run_time, reason):
    plan = plan_shapes(table_of([10], [100]), max_shapes="auto", run_time=run_time)
    assert plan.reason == reason
    assert str(plan).endswith(reason)


def test_a_number_given_needs_no_reason():
    plan = plan_shapes(table_of([10], [100]), max_shapes=2)
    assert plan.reason == ""
    assert str(plan).splitlines()[-1].startswith("bound")
