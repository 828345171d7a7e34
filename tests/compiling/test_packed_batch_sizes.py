"""The largest packed batches that fit the memory: capacities follow from the batch size, and the longest sample."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BucketBatcher,
    LengthTable,
    Packed,
    PaddingError,
    ShapePlan,
    pack_samples,
    pad_samples,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.compiling import StepTable, batch_struct, fit_batch_sizes
from multimodal_pad.compiling.memory_search import MemorySearch
from multimodal_pad.errors import PlanError
from tests.helpers.devices import on_cpu

LENGTHS = np.random.default_rng(0).integers(1, 40, 300)
SAMPLES = [{"audio": np.ones((n, 10), np.float32)} for n in LENGTHS]
TABLE = LengthTable.measure(SAMPLES)
EXAMPLE = pack_samples(SAMPLES[:1])
STATE = np.zeros((10, 10), np.float32)
LIMIT = 2e7


@pytest.fixture(autouse=True)
def bytes_of_cpu_programs():
    """On a GPU each program has megabytes for matrix products beside what grows with the capacity."""
    with on_cpu():
        yield


def new_step():
    """Bytes that grow with the square of the capacity: the scores are kept."""

    def packed_scores(state, batch):
        def loss(state):
            x = jnp.tanh(batch.features["audio"] @ state)
            return jnp.tanh(x @ x.T).sum()

        return state - jax.grad(loss)(state)

    return StepTable(packed_scores, donate_state=True)


def fit(table, plan, lengths=TABLE, **options):
    options = {"bytes_limit": LIMIT, "progress": False, **options}
    return fit_batch_sizes(table, plan, STATE, EXAMPLE, lengths=lengths, **options)


@pytest.mark.parametrize(("multiple", "shares"), [(1, 1), (4, 1), (3, 2)])
def test_the_most_samples_that_fit(multiple, shares):
    table = new_step()
    plan = fit(table, plan_packing(TABLE, batch_size=16, shares=shares), multiple=multiple)
    assert plan.batch_size % multiple == plan.batch_size % shares == 0
    assert plan.shares == shares
    assert 16 < plan.batch_size < len(SAMPLES)
    assert list(table.steps) == plan.batch_shapes, "what was confirmed is there, and nothing else"
    assert table.steps[plan.batch_shapes[0]].device_bytes <= 0.9 * LIMIT
    more = plan_packing(TABLE, batch_size=int(1.1 * plan.batch_size) // 12 * 12 + 12, shares=shares)
    assert new_step().compile(STATE, batch_struct(EXAMPLE, more.batch_shapes[0])).device_bytes > 0.9 * LIMIT


def test_batches_of_the_new_plan_run_without_compiling():
    table = new_step()
    plan = fit(table, plan_packing(TABLE, batch_size=16))
    programs, state = dict(table.steps), jnp.zeros_like(STATE)
    for batch in BucketBatcher(SAMPLES, Packed(plan)).epoch(0):
        assert len(batch.sample_mask) == plan.batch_size
        state = table(state, batch)
    assert table.steps == programs


@pytest.mark.slow
def test_a_small_first_batch_whose_capacity_is_that_of_the_longest_sample():
    lengths = np.append(LENGTHS, 400)
    table = LengthTable(("audio",), lengths[:, None])
    small, usual = (plan_packing(table, batch_size=size) for size in (2, 32))
    assert small.lengths[0, 0] >= 400
    sizes = [fit(new_step(), plan, table).batch_size for plan in (small, usual)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.slow
def test_two_shapes_stay_two():
    rng = np.random.default_rng(0)
    table = LengthTable(("audio",), np.append(rng.integers(1, 12, 1000), [900, 950])[:, None])
    plan = plan_packing(table, batch_size=16, max_shapes=2)
    assert len(plan) == 2
    steps = new_step()
    found = fit(steps, plan, table)
    held = [steps.steps[shape].device_bytes for shape in found.batch_shapes]
    assert max(held) <= 0.9 * LIMIT
    assert found.batch_size > 16


def test_all_samples_at_once_is_the_most():
    plan = fit(new_step(), plan_packing(TABLE, batch_size=16), bytes_limit=1e9)
    assert plan.batch_size == 300
    assert fit(new_step(), plan_packing(TABLE, batch_size=16), bytes_limit=1e9, largest=70, multiple=8).batch_size == 64


def test_too_little_for_the_longest_sample():
    table = new_step()
    with pytest.raises(PlanError, match=r"1 packed in \(audio 40\) needs [\d,]+ bytes and 9,000 are left"):
        fit(table, plan_packing(TABLE, batch_size=16), bytes_limit=1e4)
    assert not table.steps


def test_a_plan_smaller_than_its_batches_is_found_from_above():
    plan = fit(new_step(), plan_packing(TABLE, batch_size=200))
    assert plan.batch_size < 200


def test_without_xlas_analysis_there_is_an_error(monkeypatch):
    monkeypatch.setattr("multimodal_pad.compiling.table.device_bytes", lambda _: None)
    with pytest.raises(PaddingError, match=r"XLA gives no memory analysis .* choose their size with plan_packing"):
        fit(new_step(), plan_packing(TABLE, batch_size=16))


def test_what_is_refused():
    plan = plan_packing(TABLE, batch_size=16, shares=4)
    other = LengthTable(("audio",), LENGTHS[1:, None])
    for given, lengths, options, message in (
        (plan, None, {}, r"got a packing plan without lengths=\.\.\.; give the length table"),
        (plan, other, {}, "got a length table of fingerprint .* for a packing plan of"),
        (replace(plan, cost=None, cost_name="mine"), TABLE, {}, r"the packing plan's cost \(mine\) is not known"),
        (plan, TABLE, {"largest": 7, "multiple": 3}, "got largest=7 for batches of a multiple of 12"),
    ):
        with pytest.raises(PlanError, match=message):
            fit(new_step(), given, lengths, **options)
    padded: ShapePlan = plan_shapes(TABLE, max_shapes=2)
    with pytest.raises(PaddingError, match=r"got lengths=\.\.\. for a plan of padded shapes"):
        fit(new_step(), padded)
    with pytest.raises(PaddingError, match="give both the same layout"):
        fit_batch_sizes(new_step(), plan, STATE, pad_samples(SAMPLES[:1]), lengths=TABLE, bytes_limit=LIMIT)


@pytest.mark.parametrize("first", [4, 90, 1000])
@pytest.mark.parametrize("bend", [0, 50, 120])
def test_the_search_finds_the_most_rows_of_any_bent_line(first, bend):
    """Bytes are flat, and grow from ``bend`` rows on, as a capacity does that holds the longest sample."""

    def held(rows):
        return 100 + 10 * max(rows, bend)

    search = MemorySearch(limit=1500, multiple=2, most=1000, state_bytes=100, first=first)
    while (rows := search.next_rows()) is not None:
        assert rows not in search.known
        search.known[rows] = held(rows)
    assert search.best == pytest.approx(140, rel=0.03)
    assert search.best <= 140
    assert len(search.known) <= 12
