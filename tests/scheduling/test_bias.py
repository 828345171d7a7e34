"""How far a schedule is from a random order, against SciPy and by construction."""

import numpy as np
import pytest
from scipy.stats.contingency import association, crosstab

from multimodal_pad import Fixed, Ladder, LengthTable, PaddingError, make_schedule
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(2000).lengths
LADDER = Ladder.powers_of_two(TABLE, 8)
RNG = np.random.default_rng(0)


def by_shape(schedule):
    """The shape's number of each sample, in the order of the table."""
    number = np.unique(schedule.lengths, axis=0, return_inverse=True)[1].ravel()
    shape = np.empty(2000, int)
    real = schedule.ids >= 0
    shape[schedule.ids[real]] = np.repeat(number, schedule.batch_sizes)[real]
    return shape


def test_classes_are_compared_as_scipy_does():
    schedule = make_schedule(TABLE, LADDER, batch_size=32)
    labels = (TABLE.values[:, 0] > 8) + RNG.integers(0, 2, 2000)
    report = schedule.bias_report(labels)
    wanted = association(crosstab(labels, by_shape(schedule)).count, method="cramer")
    assert report.label_on_shape.scheduled == pytest.approx(wanted)
    assert report.label_on_shape.random < 0.2 < report.label_on_shape.scheduled
    names = np.array(["no", "maybe", "yes"])[labels]
    assert schedule.bias_report(names).label_on_shape == pytest.approx(report.label_on_shape)


def test_values_are_explained_by_shapes_as_their_variance_is():
    schedule = make_schedule(TABLE, LADDER, batch_size=32)
    labels = TABLE.values[:, 1] + RNG.standard_normal(2000)
    shape = by_shape(schedule)
    within = sum(((labels[shape == s] - labels[shape == s].mean()) ** 2).sum() for s in np.unique(shape))
    wanted = np.sqrt(1 - within / ((labels - labels.mean()) ** 2).sum())
    assert schedule.bias_report(labels).label_on_shape.scheduled == pytest.approx(wanted)


def test_random_batches_show_no_bias():
    report = make_schedule(TABLE, Fixed.longest(TABLE), batch_size=16, grouping="random").bias_report()
    assert report.label_on_shape is None
    assert list(report.adjacent_correlation) == list(report.within_batch_spread) == list(TABLE.modalities)
    for bias in report.adjacent_correlation.values():
        assert abs(bias.scheduled) < 4 / np.sqrt(125)
    for bias in report.within_batch_spread.values():
        assert bias.scheduled == pytest.approx(np.sqrt(15 / 16), abs=0.02)
        assert bias.scheduled == pytest.approx(bias.random, abs=0.02)


def test_sorted_steps_are_correlated_and_their_batches_alike():
    from multimodal_pad.scheduling.bias import measure_bias
    from multimodal_pad.scheduling.steps import Steps

    table = LengthTable(("text",), np.repeat(np.arange(1, 51), 4)[:, None])
    steps = Steps(np.repeat(np.arange(1, 51), 1)[:, None], np.arange(0, 201, 4), np.arange(200))
    report = measure_bias(steps, table, None, 0)
    assert report.adjacent_correlation["text"].scheduled == pytest.approx(1)
    assert report.within_batch_spread["text"].scheduled == 0
    assert "correlation of adjacent batches, text     1.000" in str(report)


def test_lengths_and_labels_that_do_not_differ():
    table = LengthTable(("text",), np.full((20, 1), 3))
    report = make_schedule(table, Fixed({"text": 3}), batch_size=4).bias_report(np.zeros(20, int))
    assert report.adjacent_correlation["text"] == (0, 0)
    assert report.within_batch_spread["text"] == (1, 1)
    assert report.label_on_shape == (0, 0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3), r"got labels of shape \(3,\) for 2000 samples"),
        (np.full(2000, np.nan), "floats without NaN"),
        (np.array([{}] * 2000), "got labels of dtype object"),
    ],
)
def test_labels_that_make_no_sense(labels, message):
    with pytest.raises(PaddingError, match=message):
        make_schedule(TABLE, LADDER, batch_size=32).bias_report(labels)
