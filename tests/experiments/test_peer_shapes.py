import json
from functools import partial

import numpy as np
import pytest

from experiments.lib.distributions import DISTRIBUTIONS, draw_lengths
from experiments.lib.reference_cost import reference_cost
from experiments.peers import bucketing, shapes
from experiments.peers.bucketing import (
    Task,
    deal_bucketed,
    deal_durations,
    deal_grouped,
    deal_rounded,
    duration_bins,
    group_by_length,
    into_buckets,
    run_tensorflow,
)
from experiments.peers.shapes import RULES, Rule, as_batches, compare, measure, tables
from multimodal_pad import LengthTable, PaddingError, plan_shapes, position_count
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.steps import Steps

NAMES = ("text", "audio", "visual")
TINY = LengthTable(NAMES, np.array([[2, 10, 7], [9, 10, 8], [3, 40, 30], [1, 41, 31], [4, 90, 60]]))


def task(table=TINY, batch_size=2, cost=position_count):
    return Task(table, np.arange(len(table)), batch_size, cost)


def dealt(steps):
    """Sample numbers and padded lengths of each batch."""
    return [(ids.tolist(), shape.tolist()) for shape, ids in steps]


@pytest.fixture(autouse=True)
def little_search(monkeypatch):
    monkeypatch.setattr(shapes, "plan_shapes", partial(plan_shapes, effort=0))


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(shapes, "find_spec", {}.get)


def by_name(policy, grouping):
    (rule,) = (rule for rule in RULES if (rule.policy, rule.grouping) == (policy, grouping))
    return rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.policy}-{rule.grouping}")
def test_every_rule_deals_each_sample_once_or_counts_it(rule):
    planned = "at most" in rule.policy
    for distribution in ("bimodal",) if planned else DISTRIBUTIONS:
        table = draw_lengths(distribution, 100)
        steps = rule.deal(task(table, 8, reference_cost))
        ids = steps.ids[steps.ids != EMPTY]
        assert len(np.unique(ids)) == len(ids)
        for shape, batch in steps:
            assert (table.values[batch[batch != EMPTY]] <= shape).all()
        figures = measure(rule._replace(run=None), task(table, 8, reference_cost))
        assert figures["samples_dropped"] == 100 - len(ids)
        assert figures["samples_dropped"] == 0 or "to the boundary" in rule.policy
        assert 0 < figures["cost_efficiency"] <= 1
        assert 0 < figures["position_efficiency"] <= 1
        assert len(ids) / 8 <= figures["batches"] <= 13 + 16
        assert 1 <= figures["shapes"] <= figures["batches"]
        assert not planned or figures["shapes"] <= int(rule.policy.split()[-2])


def test_fixed_padding_by_hand():
    figures = measure(by_name("fixed padding", "random"), task())
    real = TINY.values.sum()
    assert figures["position_efficiency"] == pytest.approx(real / (6 * (9 + 90 + 60)))  # one empty row
    assert (figures["shapes"], figures["batches"]) == (1, 3)


def test_a_random_batch_is_padded_to_its_own_maxima_or_rounded_up():
    steps = by_name("own maxima (Algorithm 1)", "random").deal(task())
    assert [shape.tolist() for shape, _ in steps] == [
        TINY.values[ids[ids != EMPTY]].max(axis=0).tolist() for _, ids in steps
    ]
    assert [shape.tolist() for shape, _ in by_name("powers of two", "random").deal(task())] == [
        np.maximum(8, 2 ** np.ceil(np.log2(shape))).tolist() for shape, _ in steps
    ]


def test_rounded_lengths_by_hand():
    assert dealt(deal_rounded(task(), 8)) == [
        ([0, 1], [16, 16, 8]),
        ([2, 3], [8, 48, 32]),
        ([4], [8, 96, 64]),
    ]


def test_group_by_length_by_hand():
    steps = deal_grouped(task(), "audio")  # two per megabatch; the longest, of the last one, changes places with 0
    assert dealt(steps) == [([4, 1], [9, 90, 60]), ([3, 2], [3, 41, 31]), ([0], [2, 10, 7])]
    steps = deal_grouped(task(), "text", multiple=64)
    assert dealt(steps) == [([1, 0], [64] * 3), ([2, 3], [64] * 3), ([4], [64, 128, 64])]


def test_megabatches_are_fifty_batches_or_four_in_all():
    lengths = np.random.default_rng(0).permutation(np.arange(1, 4001))
    order = group_by_length(lengths, np.arange(4000), 4)
    places = np.flatnonzero(np.diff(lengths[order]) > 0) + 1
    assert places[-19:].tolist() == list(range(200, 4000, 200))
    assert len(places) <= 20, "only the sample that gave way to the longest stands out of order"
    assert lengths[order[0]] == 4000
    places = np.flatnonzero(np.diff(lengths[group_by_length(lengths, np.arange(4000), 40)]) > 0) + 1
    assert places[-3:].tolist() == list(range(1000, 4000, 1000))


def test_buckets_by_hand():
    quantiles = [([0, 1], [9, 10, 8]), ([2, 3], [3, 41, 31]), ([4], [4, 90, 60])]
    assert dealt(deal_bucketed(task(), "audio", 3, to_boundary=False)) == quantiles
    padded = [([0, 1], [10] * 3), ([2, 3], [41] * 3), ([4], [90] * 3)]
    assert dealt(deal_bucketed(task(), "audio", 3, to_boundary=True)) == padded


@pytest.mark.usefixtures("no_package")
def test_what_does_not_fit_the_boundary_is_left_out_and_counted():
    table = LengthTable(NAMES, np.array([[5, 4, 3], [2, 4, 3], [2, 8, 6]]))
    rule = by_name("bucket_by_sequence_length, 4 buckets, to the boundary", "audio")
    figures = measure(rule, task(table))
    assert dealt(rule.deal(task(table))) == [([1], [4] * 3), ([2], [8] * 3)]
    assert figures["samples_dropped"] == 1
    assert figures["position_efficiency"] == pytest.approx((9 + 16) / 36)
    assert not figures["measured_with_package"]


def test_duration_buckets_by_hand():
    # 191 frames in 3 buckets: the first to exceed 63.7 holds 10, 10, 40 and 41, so that 90 begins the next.
    durations = TINY.values[:, 1]
    assert duration_bins(durations, 3).tolist() == [90]
    assert duration_bins(durations, 10).tolist() == [40, 41, 90]
    assert dealt(deal_durations(task(), "audio", 10)) == [
        ([0, 1], [9, 10, 8]),
        ([2], [3, 40, 30]),
        ([3], [1, 41, 31]),
        ([4], [4, 90, 60]),
    ]
    assert [ids.tolist() for ids in into_buckets(durations, np.array([40, 40]), np.arange(5), 3)] == [[0, 1, 2], [3, 4]]


def test_a_short_batch_is_a_shape_of_its_own():
    table = LengthTable(NAMES, np.full((5, 3), 7))
    figures = measure(by_name("pad_to_multiple_of=8", "random"), task(table))
    assert (figures["batches"], figures["shapes"]) == (3, 2)
    assert figures["cost_efficiency"] == pytest.approx(7 / 8)
    assert measure(by_name("powers of two", "shape"), task(table))["shapes"] == 1


@pytest.mark.usefixtures("no_package")
def test_a_table_of_rows(monkeypatch):
    monkeypatch.setattr(shapes, "RULES", (RULES[0], *(rule for rule in RULES if rule.run)))
    ticks = []
    found = {"meld": draw_lengths("meld", 200), "opposite": draw_lengths("opposite", 200)}
    rows = compare(found, 8, lambda: ticks.append(1))
    assert json.loads(json.dumps(rows)) == rows
    assert len(rows) == len(ticks) == 2 * len(shapes.RULES)
    (table,) = tables(rows)
    assert table.heading == ["rule", "of", "alike", "meld", "opposite"]
    assert len(table.rows) == len(shapes.RULES)
    assert table.rows[0][:3] == ["fixed padding", "multimodal_pad", "random"]
    assert table.rows[0][3] == f"{rows[0]['cost_efficiency']:.3f} (1)"
    assert "left out)" in table.markdown()
    assert "Computed by the package's rule: lhotse, tensorflow." in table.note
    assert "by the package itself" not in table.note


def test_a_table_without_audio_is_refused():
    table = LengthTable(("text",), np.array([[3]]))
    with pytest.raises(PaddingError, match=r"mine: got no lengths of \['audio'\], only of \['text'\]"):
        compare({"mine": table}, 2, lambda: None)


def test_a_package_that_deals_otherwise_is_not_counted():
    def other(_):
        return Steps(TINY.values[:1], np.array([0, 1]), np.array([0]))

    with pytest.raises(RuntimeError, match="numpy: mine: its batches are not those of the rule"):
        measure(Rule("mine", "random", RULES[3].deal, "numpy", other), task())


@pytest.mark.parametrize("distribution", ["meld", "constant", "opposite"])
@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.run and "4 buckets" in rule.policy], ids=lambda rule: rule.policy
)
def test_the_package_deals_as_its_rule_says(rule, distribution):
    pytest.importorskip(rule.package)
    order = np.random.default_rng(1).permutation(200)
    shuffled = Task(draw_lengths(distribution, 200), order, 8, position_count)
    assert as_batches(rule.run(shuffled)) == as_batches(rule.deal(shuffled))
    assert measure(rule, shuffled)["measured_with_package"]


def test_tensorflow_refuses_what_is_longer_than_the_boundary(monkeypatch):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(bucketing, "fitting_order", lambda task, *_: task.order)
    table = LengthTable(NAMES, np.array([[5, 4, 3], [2, 4, 3]]))
    with pytest.raises(tf.errors.DataLossError, match="pad to a smaller size"):
        run_tensorflow(task(table), "audio", 2, to_boundary=True)


def test_transformers_groups_by_length_as_its_rule_says():
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from transformers.trainer_pt_utils import get_length_grouped_indices

    for distribution in ("meld", "constant"):
        lengths = draw_lengths(distribution, 500).values[:, 1]
        for batch_size in (2, 8, 200):
            first, second = (torch.Generator().manual_seed(3) for _ in range(2))
            order = torch.randperm(len(lengths), generator=first).numpy()
            wanted = get_length_grouped_indices(lengths.tolist(), batch_size, generator=second)
            assert group_by_length(lengths, order, batch_size).tolist() == wanted
