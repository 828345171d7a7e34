"""Plans of streams: made from the first samples, and gone stale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import BatchBudget, Exact, Ladder, LengthTable, PaddingError, Planned, plan_shapes, unpad
from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.errors import LengthError, PlanWarning, SampleError, UncoveredLengthError
from tests.helpers.batches import assert_same_samples
from tests.helpers.streams import EIGHT, texts
from tests.strategies import length_tables, make_samples

# Planning from the first samples.


@given(length_tables(max_samples=40), st.integers(1, 30), st.booleans())
def test_a_planned_stream_begins_with_the_samples_it_was_planned_from(table, plan_from, one_shot):
    samples = make_samples(table)
    batcher = StreamBatcher.planned(
        iter(samples) if one_shot else samples,
        batch_size=3,
        plan_from=plan_from,
        buffer=30,
        max_shapes=3,
        longest=table.maxima,
        alignment={"text": 4},
    )
    got = sorted((sample for batch in batcher for sample in unpad(batch)), key=lambda sample: int(sample["targets"]))
    assert_same_samples(got, samples)
    assert {batch.batch_size for batch in batcher.batch_shapes()} == {3}
    assert all(dict(shape.lengths)["text"] % 4 == 0 for shape in batcher.batch_shapes())


def test_planning_reads_no_more_than_it_plans_from():
    stream = texts([3] * 40)
    StreamBatcher.planned(stream, batch_size=2, plan_from=10)
    assert int(next(stream)["targets"]) == 10


def test_a_stream_planned_to_a_batch_budget():
    batcher = StreamBatcher.planned(
        texts([3, 9, 30, 4] * 20), batch_size=BatchBudget(64), max_shapes=3, plan_from=20, buffer=40
    )
    assert all(batch.masks["text"].size <= 64 for batch in batcher)
    assert batcher.plan_report().new_plan.batch_budget == 64


@pytest.mark.parametrize(
    ("lengths", "options", "error", "message"),
    [
        ([3], {"plan_from": 9, "buffer": 8}, PaddingError, "plan_from=9 and buffer=8"),
        ([3], {"plan_from": 0}, PaddingError, "plan_from=0"),
        ([3], {"buffer": 2.5}, PaddingError, r"buffer=2\.5"),
        ([3, 7], {"longest": {"text": 6}}, UncoveredLengthError, "sample 1 of the stream: 'text' has 7 .*is 6"),
        ([3], {"longest": {"audio": 6}}, LengthError, r"longest\['audio'\]; the modalities are \['text'\]"),
        ([3], {"longest": {"text": 6.5}}, LengthError, r"longest\['text'\]=6\.5"),
        (
            [3],
            {"batch_size": 9, "plan_from": 4, "buffer": 8},
            PaddingError,
            "buffer of 8 samples for batches of up to 9",
        ),
    ],
)
def test_bad_options_of_planning(lengths, options, error, message):
    with pytest.raises(error, match=message):
        StreamBatcher.planned(texts(lengths), **{"batch_size": 2, **options})


def test_a_modality_that_the_first_sample_lacks():
    samples = [{"text": np.arange(3), **({"audio": np.ones(2)} if i == 17 else {})} for i in range(20)]
    with pytest.raises(SampleError, match=r"sample 17 has \['audio'\], which the first sample lacks"):
        list(StreamBatcher.planned(samples, batch_size=4, plan_from=8, buffer=8))
    assert len(list(StreamBatcher.planned(samples, batch_size=4, plan_from=8, buffer=8, modalities=["text"]))) == 5


# Going stale.


def drifting(short, long, after):
    rng = np.random.default_rng(0)
    return texts(np.concatenate([rng.integers(1, short, after), rng.integers(1, long, 3000)]).tolist())


def test_a_plan_that_goes_stale_is_told_once_and_reported():
    batcher = StreamBatcher.planned(
        drifting(100, 10, after=500), batch_size=8, plan_from=500, buffer=500, max_shapes=4, recent=500
    )
    with pytest.warns(PlanWarning, match=r"the shape plan has gone stale: 0 of the last 500 .*plan_report\(\)") as told:
        assert sum(len(unpad(batch)) for batch in batcher) == 3500
    assert len(told) == 1
    report = batcher.plan_report()
    assert report.stale
    assert report.samples == 500
    assert report.uncovered == 0
    assert report.promised is not None
    assert report.efficiency < 0.5 < report.promised < report.new_efficiency
    assert len(report.new_plan) == 4
    first, second = str(report).splitlines()
    assert first == (
        f"0 of the last 500 samples are longer than every bucket, and {report.efficiency:.3f} of the padded cost of "
        f"the others is real (promised: {report.promised:.3f}): stale"
    )
    assert second == f"a new plan of 4 shapes holds all of them and keeps {report.new_efficiency:.3f}"


def test_uncovered_lengths_make_a_plan_stale():
    plan = plan_shapes(LengthTable(("text",), np.array([[4], [8]])), max_shapes=2, batch_size=2)
    batcher = StreamBatcher(texts([4, 8] * 9 + [9, 10]), Planned(plan), long_samples="drop", recent=20)
    with pytest.warns(PlanWarning) as told:
        list(batcher)
    assert [str(one.message).split(";")[0].split(":")[0] for one in told] == [
        "sample 18 of the stream",
        "the shape plan has gone stale",
    ]
    report = batcher.plan_report()
    assert (report.uncovered, report.efficiency, report.promised, report.stale) == (2, 1, 1, True)
    assert report.new_plan.lengths.max() == 10


def test_a_plan_that_serves_is_not_stale():
    batcher = StreamBatcher.planned(
        drifting(50, 50, after=500), batch_size=8, plan_from=500, buffer=500, longest={"text": 60}, recent=500
    )
    list(batcher)
    report = batcher.plan_report()
    assert not report.stale
    assert "stale" not in str(report)
    assert report.new_plan.lengths.max() >= 60, "the new plan holds what may come as well"


@pytest.mark.parametrize("policy", [Ladder({"text": [4, 8, 16]}), Exact(["text"])])
def test_a_policy_that_is_no_plan_has_promised_nothing(policy):
    batcher = StreamBatcher(texts([1, 4, 9, 13] * 5), policy, batch_size=2)
    list(batcher)
    report = batcher.plan_report()
    assert report.promised is None
    assert not report.stale
    assert report.new_efficiency >= report.efficiency
    assert len(report.new_plan) == len(np.unique(policy.round_up(np.array([[1], [4], [9], [13]]))))


def test_a_plan_for_random_batches_has_promised_nothing_to_a_stream():
    table = LengthTable(("text",), np.arange(1, 41)[:, None])
    plan = plan_shapes(table, max_shapes=2, grouping="random", batch_size=2)
    batcher = StreamBatcher(texts(range(1, 41)), Planned(plan))
    list(batcher)
    assert batcher.plan_report().promised is None


def test_a_report_before_anything_was_read():
    with pytest.raises(PaddingError, match="no sample of the stream has been read"):
        StreamBatcher(texts([3]), EIGHT, batch_size=2).plan_report()


def test_a_report_on_a_batch_budget_that_was_handed_over():
    plan = plan_shapes(LengthTable(("text",), np.array([[4], [8]])), max_shapes=2, batch_size=BatchBudget(16))
    batcher = StreamBatcher(texts([4, 8]), Planned(plan))
    list(batcher)
    with pytest.raises(PaddingError, match=r"give plan_report\(batch_size=BatchBudget"):
        batcher.plan_report()
    assert batcher.plan_report(BatchBudget(16)).new_plan.batch_budget == 16
