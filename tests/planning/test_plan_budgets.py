"""Rows per batch to a budget, and as many shapes as take the least time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import (
    BatchBudget,
    BucketBatcher,
    Fixed,
    LengthTable,
    PaddingError,
    Planned,
    RunTime,
    StreamBatcher,
    TransformerCost,
    attention_area,
    make_schedule,
    plan_shapes,
)
from multimodal_pad.errors import PlanError
from multimodal_pad.planning import planner
from multimodal_pad.sources import Synthetic
from tests.helpers.plans import check_plan, paid, table_of
from tests.strategies import length_tables, make_samples


def test_a_batch_overhead_prefers_fuller_batches():
    """With rows to a budget, long shapes have few rows, and each batch costs extra."""
    table = Synthetic(500).lengths
    budget = BatchBudget(4000)
    cheap, dear = (plan_shapes(table, max_shapes=3, batch_size=budget, batch_overhead=x) for x in (0, 1e5))
    assert dear.efficiency < cheap.efficiency, "the overhead is no real work"
    batches = [(plan.samples / plan.batch_sizes).sum() for plan in (cheap, dear)]
    assert batches[1] < batches[0]
    np.testing.assert_allclose(dear.costs, dear.lengths.sum(axis=1) + 1e5 / dear.batch_sizes)


@given(length_tables(max_samples=40), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2000))
def test_the_batch_budget_holds_for_every_batch(table, k, multiple, more):
    limit = multiple * np.maximum(table.values.max(axis=0), 1).sum() + more  # or one shape may not hold all
    budget = BatchBudget(limit, multiple=multiple, largest=64)
    plan = plan_shapes(table, max_shapes=k, batch_size=budget)
    schedule = make_schedule(table, Planned(plan), window=2)
    assert (schedule.batch_sizes * schedule.lengths.sum(axis=1) <= limit).all()
    assert (schedule.batch_sizes % multiple == 0).all()
    assert schedule.batch_sizes.max() <= 64
    assert sorted(schedule.ids[schedule.ids >= 0].tolist()) == list(range(len(table)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_rows_that_exceed_the_budget_together_are_not_held_together(monkeypatch, seed):
    monkeypatch.setattr(planner, "SEARCHED_ROWS", 60)
    values = np.exp(np.random.default_rng(seed).normal(3, 0.8, (420, 3))).astype(int) + 1
    table = table_of(*values.tolist())
    budget = BatchBudget(values.sum(axis=1).max())
    plan = plan_shapes(table, max_shapes=24, batch_size=budget)
    check_plan(plan, table, 24)
    assert (plan.batch_sizes * plan.lengths.sum(axis=1) <= budget.limit).all()


def test_an_overhead_is_shared_by_the_rows_that_the_plan_gives():
    table = LengthTable(("text",), np.array([[100]] + [[5]] * 999))
    plan = plan_shapes(table, max_shapes=2, batch_size=BatchBudget(6400), batch_overhead=1e4)
    np.testing.assert_allclose(plan.costs, plan.lengths[:, 0] + 1e4 / plan.batch_sizes)
    assert plan.efficiency == pytest.approx(table.values.sum() / paid(plan))


def test_no_shape_gets_more_rows_than_samples():
    table = Synthetic(300).lengths
    plan = plan_shapes(table, max_shapes=4, batch_size=BatchBudget(1e6, multiple=8))
    assert (plan.batch_sizes < plan.samples + 8).all()
    assert (plan.batch_sizes % 8 == 0).all()
    shapes = make_schedule(table, Planned(plan)).lengths
    assert len(np.unique(shapes, axis=0)) == 4


def test_auto_passes_over_numbers_of_shapes_that_break_the_budget():
    table = table_of(*[[2, 40]] * 10, *[[40, 2]] * 10)
    plan = plan_shapes(table, max_shapes="auto", batch_size=BatchBudget(50), run_time=RunTime(1, 1e9, 0))
    assert len(plan) == 2
    assert plan.efficiencies.tolist() == [0, 1], "one shape does not fit"


def test_a_budget_of_bytes():
    cost = TransformerCost(("text", "audio"))
    table = table_of(*[[n, 4 * n] for n in range(1, 60)] * 40)
    plan = plan_shapes(table, max_shapes=4, batch_size=BatchBudget(2e8, cost.activation_bytes, multiple=8))
    held = plan.batch_sizes * cost.activation_bytes(plan.lengths)
    assert (held <= 2e8).all()
    full = plan.batch_sizes < plan.samples
    assert full.any()
    assert (held + 8 * cost.activation_bytes(plan.lengths) > 2e8)[full].all(), "no room is left for 8 rows more"


def test_the_batcher_takes_the_rows_from_the_plan():
    table = table_of(*[[n % 9 + 1, 40 * (n % 3) + 1] for n in range(60)])
    plan = plan_shapes(table, max_shapes=3, batch_size=BatchBudget(400))
    batcher = BucketBatcher(make_samples(table), Planned(plan))
    rows = dict(zip(map(tuple, plan.lengths.tolist()), plan.batch_sizes.tolist(), strict=True))
    seen = []
    for batch in batcher.epoch(0):
        assert rows[tuple(batch.features[m].shape[1] for m in plan.modalities)] == len(batch.sample_mask)
        seen += batch.targets[batch.sample_mask].tolist()
    assert sorted(seen) == list(range(60))


def test_what_contradicts_a_plan_is_an_error_that_names_both():
    table = table_of(*[[n % 9 + 1, 40 * (n % 3) + 1] for n in range(60)])
    budget = Planned(plan_shapes(table, max_shapes=3, batch_size=BatchBudget(400)))
    one_size = Planned(plan_shapes(table, max_shapes=3))
    random = Planned(plan_shapes(table, max_shapes=3, grouping="random"))
    with pytest.raises(
        PaddingError, match=r"got batch_size=8 for Planned.* which has batches of \d+, .*; leave batch_s"
    ):
        make_schedule(table, budget, batch_size=8)
    with pytest.raises(PaddingError, match=r"got batch_size=8 for Planned.* which has batches of 32; leave batch_size"):
        make_schedule(table, one_size, batch_size=8)
    with pytest.raises(PaddingError, match=r"got grouping='random' for Planned.* planned for grouping='length'"):
        make_schedule(table, budget, grouping="random")
    with pytest.raises(PaddingError, match=r"got grouping='length' for Planned.* planned for grouping='random'"):
        BucketBatcher(make_samples(table), random, grouping="length")
    with pytest.raises(
        PaddingError, match=r"got cost=attention_area for Planned.* chosen by position_count; leave cost"
    ):
        BucketBatcher(make_samples(table), one_size, cost=attention_area)
    with pytest.raises(PaddingError, match="got batch_size=8 for Planned"):
        StreamBatcher(make_samples(table), one_size, batch_size=8)
    assert set(make_schedule(table, one_size, batch_size=32, grouping="length").batch_sizes) == {32}


def test_the_batcher_takes_grouping_batch_size_and_cost_from_the_plan():
    table = table_of(*[[n % 9 + 1, 40 * (n % 3) + 1] for n in range(60)])
    options = {"grouping": "random", "batch_size": 7, "cost": attention_area}
    batcher = BucketBatcher(make_samples(table), Planned(plan_shapes(table, max_shapes=3, **options)))
    assert (str(batcher.grouping), batcher.batch_sizes, batcher.cost) == ("random", [7], attention_area)
    drawn = BucketBatcher(make_samples(table), Fixed.longest(table), batch_size=7, grouping="random")
    np.testing.assert_array_equal(batcher.schedule(0).ids, drawn.schedule(0).ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "got limit=0"),
        ({"limit": np.nan}, "got limit=nan"),
        ({"limit": 9, "multiple": 0}, "got multiple=0"),
        ({"limit": 9, "multiple": 8, "largest": 4}, "got largest=4"),
    ],
)
def test_bad_budgets(options, message):
    with pytest.raises(PaddingError, match=message):
        BatchBudget(**options)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (6, "8 of it measure 720 and exceed .* of 6, which 4 of 4 samples do; .* or let a batch have fewer"),
        (500, "which 1 of 4 samples do; raise the budget, or truncate or drop long samples"),
    ],
)
def test_the_sample_that_exceeds_a_budget_most_is_named(limit, message):
    with pytest.raises(PlanError, match=r"sample 1, padded to \(text 90\): .*" + message):
        plan_shapes({"text": [3, 90, 5, 4]}, batch_size=BatchBudget(limit, multiple=8))
