import numpy as np
import pytest

from multimodal_pad import LengthTable, Packed, attention_area, make_schedule, plan_packing, plan_shapes
from multimodal_pad.lengths.cost import position_count
from multimodal_pad.planning.comparison import ladders_within, packing_efficiency, policy_efficiency
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(300).lengths


@pytest.mark.parametrize("grouping", ["length", "random"])
def test_ladders_have_no_more_shapes_than_asked_for(grouping):
    for count in (1, 5, 20):
        ladders = ladders_within(TABLE, count, grouping=grouping)
        assert list(ladders) == ["fixed", "powers of two", "quantiles"]
        for name, policy in ladders.items():
            row = policy_efficiency(policy, TABLE, position_count, grouping=grouping)
            assert 1 <= row.shapes <= count, name
            assert 0 < row.cost <= 1


def test_ladders_are_aligned_like_the_plan():
    alignment = {"audio": 16, "text": 3}
    ladders = ladders_within(TABLE, 9, alignment=alignment)
    assert len(ladders) == 3
    for policy in ladders.values():
        for name, step in alignment.items():
            assert (policy.round_up(TABLE.values)[:, TABLE.modalities.index(name)] % step == 0).all()


def test_a_plan_beats_the_ladders_with_as_many_shapes():
    plan = plan_shapes(TABLE, max_shapes=8)
    assert plan.efficiency > 1.2 * max(
        policy_efficiency(policy, TABLE, position_count).cost for policy in ladders_within(TABLE, 8).values()
    )


def test_a_packing_plan_is_compared_by_what_its_batches_hold():
    plan = plan_packing(TABLE, batch_size=8, cost=attention_area)
    row = packing_efficiency(plan, TABLE, attention_area)
    held = len(make_schedule(TABLE, Packed(plan))) * plan.lengths[0]
    assert row.shapes == 1
    assert row.positions == pytest.approx(tuple(TABLE.values.sum(axis=0) / held), rel=0.02)
    assert row.cost * row.padded_cost == pytest.approx(attention_area(TABLE.values).sum())
    nothing = LengthTable(("text",), np.zeros((16, 1), int))
    row = packing_efficiency(plan_packing(nothing, batch_size=8, alignment=8), nothing, position_count)
    assert row == (1, 0, (0,), 16), "2 batches of capacity 8"
