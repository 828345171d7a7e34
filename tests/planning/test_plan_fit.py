"""Plans in use: in schedules, and on lengths that they were not made for."""

import warnings

import numpy as np
import pytest

from multimodal_pad import (
    BucketBatcher,
    LengthTable,
    PaddingError,
    Planned,
    PlanWarning,
    make_schedule,
    plan_shapes,
)
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.planning.plan_fit import check_fit, plan_efficiency
from multimodal_pad.planning.task import DRAWN_BATCHES
from multimodal_pad.sources import Synthetic
from tests.helpers.plans import table_of, weighted
from tests.strategies import make_samples


def test_random_plans_are_made_for_the_batches_that_the_schedule_draws():
    table = Synthetic(601).lengths.select(("audio", "text"))
    table = LengthTable(table.modalities, np.array(sorted(table.values.tolist())))
    plan = plan_shapes(table, max_shapes=4, cost=weighted, grouping="random", batch_size=8, seed=5)
    policy = Planned(plan)
    real = padded = 0.0
    for epoch in range(-(-DRAWN_BATCHES * 8 // 601)):
        schedule = make_schedule(table, policy, grouping="random", seed=5, epoch=epoch)
        real += weighted(table.values).sum()
        samples = np.add.reduceat(schedule.ids != EMPTY, schedule.starts[:-1], dtype=int)
        padded += samples @ weighted(schedule.lengths)
    assert plan.efficiency == pytest.approx(real / padded)


@pytest.mark.parametrize("grouping", ["length", "random"])
def test_a_plan_serves_another_draw_of_its_lengths_without_a_warning(grouping):
    plan = plan_shapes(Synthetic(4000).lengths, max_shapes=6, grouping=grouping)
    for count in (33, 100, 900):
        table = LengthTable(plan.modalities, Synthetic(4000).lengths.values[7 : 7 + count])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_fit(plan, table)


def test_length_grouping_keeps_nearly_what_the_plan_says():
    table = Synthetic(4000).lengths
    plan = plan_shapes(table, max_shapes=8, batch_size=16)
    shapes = make_schedule(table, Planned(plan)).lengths
    assert table.values.sum() / (16 * shapes.sum()) > 0.97 * plan.efficiency


def test_a_plan_meets_other_lengths():
    table = table_of(*[[n % 10 + 1, n % 7 + 1] for n in range(200)])
    plan = plan_shapes(table, max_shapes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BucketBatcher(make_samples(table), Planned(plan))
        BucketBatcher(make_samples(table_of(*table.values[::-1].tolist())), Planned(plan))
    short = table_of(*[[1, 1]] * 20)
    theirs = plan_efficiency(plan, short)
    message = rf"keeps {theirs:.3f} of the padded cost real on these 20 samples, and {plan.efficiency:.3f} on those"
    with pytest.warns(PlanWarning, match=message) as caught:
        BucketBatcher(make_samples(short), Planned(plan))
    assert caught[0].filename == __file__, "it points at the user's line"
    long = table_of([3, 3], [5, 11])
    with pytest.raises(
        UncoveredLengthError,
        match=r"sample 1: 'audio' has 11 positions and the nearest planned shape is \(text \d+, audio 7\)",
    ):
        BucketBatcher(make_samples(long), Planned(plan))
    kept = BucketBatcher(make_samples(long), Planned(plan), long_samples="truncate")
    assert kept.lengths.values.tolist() == [[3, 3], [5, 7]]
    assert BucketBatcher(make_samples(long), Planned(plan), long_samples="drop").stats.dropped == 1


def test_a_plan_for_length_grouping_refuses_random_batches():
    table = table_of(*[[2, 40]] * 10, *[[40, 2]] * 10)
    policy = Planned(plan_shapes(table, max_shapes=2))
    with pytest.raises(PaddingError, match="got grouping='random'"):
        make_schedule(table, policy, grouping="random")
    random = Planned(plan_shapes(table, max_shapes=2, grouping="random"))
    assert make_schedule(table, random, grouping="random").lengths.tolist() == [[40, 40]]
