import itertools
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.lib.reference_cost import reference_cost
from multimodal_pad import (
    BatchBudget,
    LengthTable,
    PaddingError,
    TransformerCost,
    attention_area,
    plan_shapes,
    position_count,
)
from multimodal_pad.errors import LengthError, PlanError
from multimodal_pad.planning import planner
from multimodal_pad.planning.search import ShapeSearch
from multimodal_pad.sources import Synthetic
from tests.helpers.plans import NAMES, check_plan, padded_cost, paid, table_of, weighted
from tests.strategies import length_tables


def brute_force(values, k, cost):
    """The least padded cost of any k joins of samples."""
    values = np.maximum(values, 1)
    subsets = itertools.chain.from_iterable(combinations(range(len(values)), n) for n in range(1, len(values) + 1))
    joins = np.unique([values[list(subset)].max(axis=0) for subset in subsets], axis=0)
    return min(padded_cost(values, joins[list(c)], cost) for c in combinations(range(len(joins)), min(k, len(joins))))


@given(length_tables(max_samples=5, max_length=9), st.integers(1, 3), st.sampled_from([position_count, weighted]))
def test_tiny_tables_equal_brute_force(table, k, cost):
    plan = plan_shapes(table, max_shapes=k, cost=cost)
    check_plan(plan, table, k)
    assert paid(plan) == pytest.approx(brute_force(table.values, k, cost))


@pytest.mark.parametrize("k", [2, 3])
def test_eight_samples_equal_brute_force(k):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 7 if k == 3 else 30, (8, 3))
        assert paid(plan_shapes(table_of(*values), max_shapes=k, cost=weighted)) == pytest.approx(
            brute_force(values, k, weighted)
        )


def test_the_search_is_near_the_optimum_where_plans_are_no_longer_enumerated():
    losses = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = np.unique(rng.integers(1, [12, 30, 25], (10, 3)), axis=0)
        search = ShapeSearch(values, np.ones(len(values)), weighted)
        *_, shapes = itertools.islice(search.grow(), 3)
        assert padded_cost(values, shapes, weighted) == pytest.approx(search.total)
        groups = np.array(list(itertools.product(range(3), repeat=len(values))))
        joins = [np.where((groups == g)[..., None], values, 0).max(axis=1) for g in range(3)]
        best = min(sum(weighted(join) * (groups == g).sum(axis=1) for g, join in enumerate(joins)))
        losses.append(search.total / best - 1)
    assert min(losses) > -1e-9, "nothing is cheaper than the cheapest"
    assert max(losses) < 0.02
    assert np.mean(np.array(losses) < 1e-9) > 0.8


@given(st.lists(st.integers(0, 40), min_size=9, max_size=40), st.integers(1, 5), st.sampled_from([1, 4]))
def test_one_modality_is_exactly_optimal(lengths, k, alignment):
    table = LengthTable(("text",), np.array(lengths)[:, None])
    plan = plan_shapes(table, max_shapes=k, cost=attention_area, alignment=alignment)
    check_plan(plan, table, k)
    aligned = -(-np.maximum(table.values, 1) // alignment) * alignment
    edges = np.unique(aligned)[:-1]
    oracle = min(
        padded_cost(aligned, np.array([*inner, aligned.max()])[:, None], attention_area)
        for inner in combinations(edges, min(k - 1, len(edges)))
    )
    assert paid(plan) == pytest.approx(oracle)
    assert plan.gap == pytest.approx(0, abs=1e-9)


@given(length_tables(max_samples=60, max_length=50), st.integers(1, 6), st.integers(1, 16), st.booleans())
def test_what_every_plan_promises(table, k, alignment, random):
    plan = plan_shapes(
        table, max_shapes=k, cost=weighted, alignment=alignment, grouping="random" if random else "length", batch_size=4
    )
    check_plan(plan, table, k)
    if random:
        assert plan.place(table.values.max(axis=0)[None]) >= 0, "a batch may have the longest of every modality"


@settings(max_examples=15)
@given(length_tables(max_samples=30), st.randoms(use_true_random=False), st.sampled_from(["length", "random"]))
def test_the_order_of_samples_and_modalities_changes_nothing(table, random, grouping):
    def plan(lengths):
        cost = TransformerCost(lengths.modalities, feature_widths={"text": 0, "audio": 700, "visual": 40})
        return plan_shapes(lengths, max_shapes=3, cost=cost, grouping=grouping, batch_size=8)

    names = list(table.modalities)
    random.shuffle(names)
    one, other = plan(table), plan(table.select(names))
    np.testing.assert_array_equal(one.lengths, other.lengths[:, [names.index(m) for m in table.modalities]])
    assert one.efficiency == pytest.approx(other.efficiency)
    rows = list(range(len(table)))
    random.shuffle(rows)
    np.testing.assert_array_equal(one.lengths, plan(LengthTable(table.modalities, table.values[rows])).lengths)


@pytest.mark.parametrize(
    ("samples", "longest", "count", "seed"),
    [
        (20, 7, 4, 24),
        (25, 11, 4, 11),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(40, 11, 5, 4), (40, 11, 5, 6), (40, 29, 5, 4)]),
    ],
)
def test_the_order_in_which_a_cost_adds_up_changes_nothing(samples, longest, count, seed):
    """A tenth, three tenths and seven tenths add up to other last bits in another order.

    At unrounded prices every one of these tables gets another plan in another order of its modalities.
    """
    weights = {"text": 0.1, "audio": 0.7, "visual": 0.3}
    table = table_of(*np.random.default_rng(seed).integers(1, longest + 1, (samples, 3)).tolist())
    shapes = []
    for names in itertools.permutations(NAMES):
        cost = np.array([weights[name] for name in names])
        plan = plan_shapes(table.select(names), max_shapes=count, cost=lambda lengths, cost=cost: lengths @ cost)
        shapes.append(plan.lengths[:, [names.index(name) for name in NAMES]].tolist())
    assert all(one == shapes[0] for one in shapes)


@settings(max_examples=25)
@given(length_tables(max_samples=50), st.sampled_from([1e-9, 0.3, 7.0, 1e12]))
def test_the_unit_of_the_cost_changes_nothing(table, factor):
    one = plan_shapes(table, max_shapes=4, cost=weighted)
    other = plan_shapes(table, max_shapes=4, cost=lambda lengths: factor * weighted(lengths))
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.efficiencies, other.efficiencies, rtol=1e-12)


@given(
    st.lists(st.integers(1, 29), min_size=9, max_size=20), st.integers(2, 5), st.sampled_from([0.3, 0.7, 1e-7, 12345.6])
)
def test_the_unit_of_the_cost_changes_nothing_in_one_modality(lengths, k, factor):
    table = LengthTable(("text",), np.array(lengths)[:, None])
    one = plan_shapes(table, max_shapes=k)
    other = plan_shapes(table, max_shapes=k, cost=lambda lengths: factor * position_count(lengths))
    np.testing.assert_array_equal(one.lengths, other.lengths)


@pytest.mark.slow
def test_the_unit_of_the_cost_changes_nothing_where_rows_are_held_together(monkeypatch):
    monkeypatch.setattr(planner, "SEARCHED_ROWS", 64)
    for seed in range(6):
        table = table_of(*np.random.default_rng(seed).integers(1, 30, (300, 3)).tolist())
        shapes = [
            plan_shapes(table, max_shapes=4, cost=lambda lengths, f=f: f * position_count(lengths)).lengths.tolist()
            for f in (1, 0.3, 1e9)
        ]
        assert shapes[0] == shapes[1] == shapes[2]


def test_a_giant_does_not_make_all_others_equal():
    table = table_of([2, 40], [40, 3], [3, 3], [10**8, 10**8])
    plan = plan_shapes(table, max_shapes=4, cost=attention_area)
    check_plan(plan, table, 4)
    assert plan.lengths.tolist() == [[3, 3], [2, 40], [40, 3], [10**8, 10**8]]


def test_costs_that_are_mostly_zero_are_planned_all_the_same(monkeypatch):
    monkeypatch.setattr(planner, "SEARCHED_ROWS", 64)
    values = np.random.default_rng(0).integers(1, [100, 10_000], (2000, 2))
    table = table_of(*values.tolist())
    plan = plan_shapes(table, max_shapes=3, cost=lambda lengths: np.maximum(lengths[:, 0] - 90.0, 0))
    check_plan(plan, table, 3)


def test_more_shapes_are_never_worse_and_the_curve_is_that_of_smaller_plans():
    table = Synthetic(300).lengths
    plans = [plan_shapes(table, max_shapes=k, cost=weighted) for k in (1, 2, 5, 9)]
    efficiencies = [plan.efficiency for plan in plans]
    assert efficiencies == sorted(efficiencies)
    for plan in plans[:-1]:
        np.testing.assert_array_equal(plan.efficiencies, plans[-1].efficiencies[: len(plan.efficiencies)])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["budget", "random", "coarse"])
def test_more_shapes_are_never_worse_however_they_are_planned(how, monkeypatch):
    if how == "coarse":
        monkeypatch.setattr(planner, "SEARCHED_ROWS", 100)
    options = {"budget": {"batch_size": BatchBudget(60_000), "batch_overhead": 1e4}, "random": {"grouping": "random"}}
    table = Synthetic(500).lengths
    plans = [plan_shapes(table, max_shapes=k, cost=weighted, **options.get(how, {})) for k in (1, 3, 6, 10)]
    for plan in plans:
        check_plan(plan, table, 10)
        np.testing.assert_allclose(plan.efficiencies, plans[-1].efficiencies[: len(plan.efficiencies)], rtol=1e-12)


def test_the_same_seed_gives_the_same_plan():
    table = Synthetic(500).lengths
    one, again = (plan_shapes(table, max_shapes=6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.lengths, again.lengths)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(table_of(*[[5, 9, 2]] * 20), id="all equal"),
        pytest.param(table_of(*[[n, 0, 3 * n] for n in range(20)]), id="a modality always missing"),
        pytest.param(table_of(*[[0, 0]] * 12), id="nothing at all"),
        pytest.param(table_of([3, 4, 5]), id="one sample"),
        pytest.param(table_of(*[[n % 7, n % 5] for n in range(100)], [4000, 9000]), id="one giant"),
        pytest.param(table_of(*[[n, 40 - n] for n in range(1, 40)]), id="opposite order"),
        pytest.param(
            table_of(*(1 + np.random.default_rng(0).pareto(0.8, (30, 3)) * 4).astype(int).tolist()),
            id="Pareto tails",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("grouping", ["length", "random"])
def test_degenerate_tables(table, grouping):
    for k in (1, 3, 50):
        check_plan(plan_shapes(table, max_shapes=k, grouping=grouping, batch_size=4), table, k)


def test_fewer_distinct_lengths_than_shapes_are_padded_not_at_all():
    table = table_of([3, 4], [5, 2], [3, 4])
    plan = plan_shapes(table, max_shapes=9)
    assert sorted(plan.lengths.tolist()) == [[3, 4], [5, 2]]
    assert plan.efficiency == 1
    assert plan.gap == 0


def test_opposite_order_needs_two_shapes_and_gets_them():
    plan = plan_shapes(table_of(*[[2, 40]] * 10, *[[40, 2]] * 10), max_shapes=2)
    assert sorted(plan.lengths.tolist()) == [[2, 40], [40, 2]]


def test_an_outlier_gets_its_own_shape_and_is_told_of():
    rng = np.random.default_rng(0)
    table = table_of(*rng.integers(1, 20, (2000, 2)).tolist(), [90, 3000])
    plan = plan_shapes(table, max_shapes=3)
    assert plan.lengths[-1].tolist() == [90, 3000]
    assert plan.samples[-1] == 1
    one, more = plan.savings
    assert (one.samples, more.samples) == (2, 20)
    without = plan_shapes(LengthTable(table.modalities, table.values[:-1]), max_shapes=3)
    assert one.dropping >= 1 - paid(without) / paid(plan) - 0.01
    assert 0 < one.truncating <= one.dropping
    assert "the longest 2 samples (0.1%)" in str(plan)


def test_dropping_the_tail_saves_what_a_plan_without_it_saves():
    table = LengthTable(("text",), np.random.default_rng(0).pareto(1.0, 3000).astype(int)[:, None])
    plan = plan_shapes(table, max_shapes=4)
    assert [saving.samples for saving in plan.savings] == [3, 30]
    for saving in plan.savings:
        shorter = np.sort(table.values[:, 0])
        kept = LengthTable(("text",), shorter[: len(shorter) - saving.samples, None])
        cut = LengthTable(("text",), np.minimum(shorter, kept.maxima["text"])[:, None])
        assert saving.dropping == pytest.approx(1 - paid(plan_shapes(kept, max_shapes=4)) / paid(plan))
        assert saving.truncating == pytest.approx(1 - paid(plan_shapes(cut, max_shapes=4)) / paid(plan))


def test_many_distinct_lengths_are_searched_in_fewer(monkeypatch):
    table = LengthTable(NAMES, 1 + np.random.default_rng(0).pareto(1.5, (1500, 3)).__mul__(20).astype(int))
    fine = plan_shapes(table, max_shapes=6)
    monkeypatch.setattr(planner, "SEARCHED_ROWS", 300)
    coarse = plan_shapes(table, max_shapes=6)
    check_plan(coarse, table, 6)
    assert 0.9 * fine.efficiency < coarse.efficiency < 1.02 * fine.efficiency


def bad_cost(value):
    return lambda lengths: np.where(np.asarray(lengths).sum(axis=1) > 8, value, 1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_shapes": 0}, PaddingError, "got max_shapes=0"),
        ({"max_shapes": 2.0}, PaddingError, r"got max_shapes=2\.0"),
        ({"max_shapes": "auto"}, PaddingError, "needs run_time"),
        ({"alignment": 0}, LengthError, r"got alignment\['text'\]=0"),
        ({"alignment": {"audio": 1.5}}, LengthError, r"got alignment\['audio'\]=1\.5"),
        ({"alignment": {"smell": 8}}, LengthError, r"alignment for \['smell'\]; the lengths have"),
        ({"cost": bad_cost(np.nan)}, PaddingError, r"the cost of \(text \d+, audio \d+\) is nan"),
        ({"cost": bad_cost(np.inf)}, PaddingError, r"the cost of \(text \d+, audio \d+\) is inf"),
        ({"cost": bad_cost(-2)}, PaddingError, r"the cost of \(text \d+, audio \d+\) is -2"),
        (
            {"cost": bad_cost(0.5)},
            PaddingError,
            r"falls from 1 to 0\.5 as 'audio' grows, from \(text \d+, audio \d+\) to \(text",
        ),
        ({"cost": lambda _: 1.0}, PaddingError, r"has shape \(\)"),
        ({"cost": TransformerCost(("audio", "text"))}, PaddingError, r"a cost of the modalities \['audio', 'text'\]"),
        (
            {"batch_size": BatchBudget(1e9, TransformerCost(("audio", "text")).activation_bytes)},
            PaddingError,
            r"a cost of the modalities \['audio', 'text'\] for lengths of \['text', 'audio'\]",
        ),
        ({"cost": lambda rows: rows.sum(axis=1) * 1e306}, PaddingError, "the cost is so large"),
        ({"batch_size": BatchBudget(9, lambda rows: rows[:, 0] * np.nan)}, PaddingError, "measure gave .*nan"),
        (
            {"batch_size": BatchBudget(90, lambda rows: 30 - rows[:, 0])},
            PaddingError,
            "the batch budget's measure falls from .* as 'text' grows",
        ),
        ({"grouping": "alphabet"}, PaddingError, "got grouping='alphabet'"),
        ({"batch_size": 0}, PaddingError, "got batch_size=0"),
        ({"batch_size": BatchBudget(100), "grouping": "random"}, PaddingError, "a random batch is drawn before"),
        (
            {"batch_size": BatchBudget(8)},
            PlanError,
            r"sample 2, padded to \(text 4, audio 6\): 1 of it measure 10 and",
        ),
        ({"batch_size": BatchBudget(10), "max_shapes": 1}, PlanError, "raise max_shapes or the budget"),
        ({"batch_overhead": -1}, PaddingError, "got batch_overhead=-1"),
        ({"effort": np.nan}, PaddingError, "got effort=nan"),
        ({"seed": -1}, PaddingError, "got seed=-1"),
    ],
)
def test_bad_options(options, error, message):
    table = table_of([3, 4], [7, 1], [4, 6])
    with pytest.raises(error, match=message):
        plan_shapes(table, **{"max_shapes": 3, **options})


def test_a_cost_that_falls_where_nobody_looked_is_found_by_the_bound():
    table = table_of([1, 1], [13, 5], [6, 17], [20, 20], [22, 22], [25, 25], [30, 30])
    with pytest.raises(PaddingError, match="the cost falls somewhere as lengths grow"):
        plan_shapes(table, max_shapes=6, cost=lambda rows: rows.sum(axis=1) * ~(rows == [13, 17]).all(axis=1))


def test_progress_counts_the_shapes():
    seen = []
    plan_shapes(Synthetic(100).lengths, max_shapes=4, progress=seen.append)
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(("k", "least", "bound"), [(8, 0.715, 0.773), (16, 0.815, 0.884), (32, 0.87, 0.944)])
def test_meld_is_planned_as_well_as_the_reference_says(meld_dir, k, least, bound):
    from multimodal_pad.sources import Meld

    table = Meld(meld_dir).lengths
    plan = plan_shapes(table, max_shapes=k, cost=reference_cost)
    check_plan(plan, table, k)
    assert plan.efficiency >= least
    assert plan.bound == pytest.approx(bound, abs=0.0006)
    assert reference_cost(table.values).sum() / padded_cost(
        table.values, plan.lengths, reference_cost
    ) == pytest.approx(plan.efficiency)
