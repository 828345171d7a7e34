"""Packed batches to a budget: as many samples as keep it, and not one step more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import (
    BatchBudget,
    BucketBatcher,
    LengthTable,
    Packed,
    PackingPlan,
    PaddingError,
    TransformerCost,
    attention_area,
    plan_packing,
    position_count,
)
from multimodal_pad.errors import PlanError
from tests.strategies import length_tables, make_samples, uneven_tables

RNG = np.random.default_rng(1)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(1, 30, 400), RNG.integers(1, 200, 400)], axis=1))


def measured(plan, measure=position_count):
    """The definition: samples of equal lengths that fill the capacities."""
    return max(plan.batch_size * float(measure(row[None] / plan.batch_size)[0]) for row in plan.lengths)


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(length_tables(), uneven_tables()),
    st.sampled_from([position_count, attention_area]),
    st.integers(1, 3),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 8]),
    st.floats(1, 20),
)
def test_the_next_larger_batch_would_exceed_the_budget(table, measure, multiple, shares, alignment, times):
    step = np.lcm(multiple, shares)
    options = {"shares": shares, "alignment": alignment, "max_shapes": 2}
    limit = times * measured(plan_packing(table, batch_size=step, **options), measure)
    plan = plan_packing(table, batch_size=BatchBudget(limit, measure, multiple), **options)
    assert plan.batch_size % step == 0
    assert measured(plan, measure) <= limit * (1 + 1e-9)
    assert plan.to_json() == plan_packing(table, batch_size=plan.batch_size, **options).to_json()
    if plan.batch_size < len(table):
        assert measured(plan_packing(table, batch_size=plan.batch_size + step, **options), measure) > limit


def test_a_budget_of_positions_is_kept_by_every_batch():
    plan = plan_packing(TABLE, batch_size=BatchBudget(4000, multiple=8), max_shapes=2)
    assert plan.lengths.sum(axis=1).max() <= 4000
    batches = list(BucketBatcher(make_samples(TABLE), Packed(plan)).epoch(0))
    assert all(sum(len(x) for x in batch.features.values()) <= 4000 for batch in batches)
    assert 4000 / TABLE.values.mean(axis=0).sum() - plan.batch_size < 16


def test_a_budget_of_bytes():
    cost = TransformerCost(("text", "audio"))
    plan = plan_packing(TABLE, batch_size=BatchBudget(1e8, cost.activation_bytes, multiple=8))
    assert measured(plan, cost.activation_bytes) <= 1e8
    assert measured(plan_packing(TABLE, batch_size=plan.batch_size + 8), cost.activation_bytes) > 1e8


def test_no_more_samples_than_there_are_and_than_are_allowed():
    assert plan_packing(TABLE, batch_size=BatchBudget(1e9, multiple=16)).batch_size == 400
    assert plan_packing(TABLE, batch_size=BatchBudget(1e9, multiple=64)).batch_size == 448
    assert plan_packing(TABLE, batch_size=BatchBudget(1e9, multiple=8, largest=30)).batch_size == 24


def test_what_no_batch_can_keep():
    needs = r"batches of 2, the smallest, need capacities of text 32, audio \d+, which measure \d+ and exceed the batch"
    with pytest.raises(PlanError, match=needs + " budget of 50; raise the budget"):
        plan_packing(TABLE, batch_size=BatchBudget(50, multiple=2))
    with pytest.raises(PaddingError, match="largest=4 and multiple=1 for shares=6; let it have batches of 6"):
        plan_packing(TABLE, batch_size=BatchBudget(5000, largest=4), shares=6)
    with pytest.raises(PaddingError, match="the batch budget's measure gave"):
        plan_packing(TABLE, batch_size=BatchBudget(5000, lambda lengths: -lengths.sum(axis=1)))


def test_a_plan_to_a_budget_survives_a_file(tmp_path):
    plan = plan_packing(TABLE, batch_size=BatchBudget(4000, multiple=8))
    plan.save(tmp_path / "packing.json")
    assert PackingPlan.load(tmp_path / "packing.json").to_json() == plan.to_json()
