import pytest

from multimodal_pad import plan_shapes
from multimodal_pad.lengths.cost import position_count
from multimodal_pad.planning.comparison import ladders_within, policy_efficiency
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
