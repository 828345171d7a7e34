import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BatchShape,
    BatchSpec,
    LengthTable,
    PaddingError,
    ShapePlan,
    TransformerCost,
    attention_area,
    pad_samples,
    plan_shapes,
    position_count,
)
from multimodal_pad.compiling import CompileLog, StepTable, calibrate, calibration, typical_shapes
from multimodal_pad.compiling.warming import compile_all
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(200).lengths.select(("text", "audio"))
EXAMPLE = pad_samples([{"text": np.ones(3, np.int32), "audio": np.ones((2, 4), np.float32), "targets": np.int32(1)}])
COST = TransformerCost(("text", "audio"), d_model=8, crossmodal_layers=1, memory_layers=1, feature_widths={"audio": 4})


def calibrated_step(state, batch):
    audio = batch.features["audio"]
    scores = jnp.einsum("btf,bsf->bts", audio, audio)
    return state + scores.sum() + batch.features["text"].sum() + batch.sample_mask.sum(), scores.max()


def shapes_of(*lengths, rows=8):
    return [BatchShape.of(rows, {"text": n, "audio": 4 * n}) for n in lengths]


@pytest.fixture
def clock(monkeypatch):
    """Steps take the seconds that a test says: ``clock(shape) -> seconds``."""

    def set_clock(seconds):
        def time_steps(_table, shapes, *_):
            return np.array([seconds(shape) for shape in shapes])

        monkeypatch.setattr(calibration, "time_steps", time_steps)

    return set_clock


@pytest.mark.slow
@pytest.mark.parametrize("donate_state", [False, True])
def test_typical_shapes_are_compiled_and_timed(donate_state):
    table = StepTable(lambda state, batch: calibrated_step(state, batch), donate_state=donate_state)
    shapes, state = typical_shapes(TABLE, 8), jnp.zeros(())
    with CompileLog() as log:
        found = calibrate(table, BatchSpec(shapes, EXAMPLE), state, cost=attention_area)
    assert log["<lambda>"].backend_compiles == len(table) == len(shapes) == 2
    assert not state.is_deleted(), "the steps ran on a copy"
    assert found.shapes == tuple(shapes)
    assert min(found.step_seconds) > 0
    assert found.compile_seconds > 0
    assert found.seconds_per_cost > 0
    assert found.cost is attention_area
    assert found.error >= 0
    assert found.run_time(7).epochs == 7
    # Compiling takes the seconds measured, so a run without end pays for many shapes, one without steps for one.
    for epochs, least, most in ((1e13, 20, 128), (0, 1, 1)):
        options = {"cost": found.cost, "batch_overhead": found.batch_overhead, "run_time": found.run_time(epochs)}
        assert least <= len(plan_shapes(TABLE, max_shapes="auto", **options)) <= most


def test_the_coefficients_of_the_transformer_are_found(clock):
    """Seconds that are made of known rates give the rates back, and a cost in seconds."""

    def seconds(shape):
        linear, quadratic = COST.step_flops(np.array([[dict(shape.lengths)[m] for m in COST.modalities]]))[0]
        return 0.02 + shape.batch_size * (2e-9 * linear + 5e-9 * quadratic)

    clock(seconds)
    shapes = [*shapes_of(2, 9, 30, 60), *shapes_of(20, rows=32)]
    found = calibrate(calibrated_step, BatchSpec(shapes, EXAMPLE), jnp.zeros(()), cost=COST)
    assert isinstance(found.cost, TransformerCost)
    assert found.cost.linear_weight == pytest.approx(2e-9)
    assert found.cost.quadratic_weight == pytest.approx(5e-9)
    assert (found.seconds_per_cost, found.batch_overhead) == (1.0, pytest.approx(0.02))
    assert found.error < 1e-9
    lengths = np.array([[11, 44], [5, 70]])
    for row, priced in zip(lengths.tolist(), found.cost(lengths).tolist(), strict=True):
        shape = BatchShape.of(16, dict(zip(COST.modalities, row, strict=True)))
        assert found.batch_overhead + 16 * priced == pytest.approx(seconds(shape))


def test_a_step_may_give_the_state_alone_and_must_give_it():
    found = calibrate(
        lambda state, batch: calibrated_step(state, batch)[0], BatchSpec(shapes_of(2), EXAMPLE), jnp.zeros(())
    )
    assert found.step_seconds[0] > 0
    with pytest.raises(PaddingError, match=r"got a step whose result is .*loss.*; give one that returns"):
        calibrate(lambda state, _: {"loss": state}, BatchSpec(shapes_of(2), EXAMPLE), jnp.zeros(()))


def test_programs_from_the_cache_count_as_compiled(monkeypatch):
    def compile_from_cache(jobs, state, **options):
        steps = compile_all(jobs, state, **options)
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
        jax.monitoring.record_event_duration_secs("/jax/compilation_cache/compile_time_saved_sec", 20.0)
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 0.1, fun_name="x")
        return steps

    monkeypatch.setattr(calibration, "compile_all", compile_from_cache)
    found = calibrate(calibrated_step, BatchSpec(shapes_of(40, 41), EXAMPLE), jnp.zeros(()), threads=2)
    assert 5 < found.compile_seconds < 9, "20 s on two threads, for two shapes"


def test_a_plan_in_seconds_is_kept_in_its_file(clock, tmp_path):
    clock(lambda shape: 1e-3 * shape.batch_size * dict(shape.lengths)["audio"])
    found = calibrate(calibrated_step, BatchSpec(shapes_of(2, 9, 30), EXAMPLE), jnp.zeros(()), cost=COST)
    plan = plan_shapes(TABLE, max_shapes=3, cost=found.cost, batch_overhead=found.batch_overhead)
    plan.save(tmp_path / "plan.json")
    assert ShapePlan.load(tmp_path / "plan.json").cost == found.cost


def test_any_other_cost_gets_a_rate_and_a_height(clock):
    clock(lambda shape: 0.3 + 0.01 * shape.batch_size * sum(n for _, n in shape.lengths))
    found = calibrate(calibrated_step, BatchSpec(shapes_of(2, 9, 30), EXAMPLE), jnp.zeros(()))
    assert found.cost is position_count
    assert found.seconds_per_cost == pytest.approx(0.01)
    assert found.batch_overhead == pytest.approx(30)
    assert found.error < 1e-9


def test_two_shapes_give_a_constant_and_one_rate(clock):
    """Linear and quadratic FLOPs keep the proportion that the cost gives them."""
    cost = replace(COST, linear_weight=3.0)

    def seconds(shape):
        lengths = np.array([[dict(shape.lengths)[m] for m in cost.modalities]])
        return 0.02 + shape.batch_size * 4e-9 * cost(lengths)[0]

    clock(seconds)
    found = calibrate(calibrated_step, BatchSpec(shapes_of(2, 60), EXAMPLE), jnp.zeros(()), cost=cost)
    assert isinstance(found.cost, TransformerCost)
    assert found.cost.linear_weight == pytest.approx(12e-9)
    assert found.cost.quadratic_weight == pytest.approx(4e-9)
    assert (found.seconds_per_cost, found.batch_overhead) == (1.0, pytest.approx(0.02))


@pytest.mark.parametrize("cost", [COST, position_count])
def test_one_shape_gives_a_rate_and_no_constant(clock, cost):
    clock(lambda _: 0.5)
    (shape,) = shapes_of(9, rows=4)
    found = calibrate(calibrated_step, BatchSpec([shape], EXAMPLE), jnp.zeros(()), cost=cost)
    lengths = np.array([[9, 36]])
    assert found.batch_overhead == 0
    assert 4 * found.seconds_per_cost * found.cost(lengths)[0] == pytest.approx(0.5)


def test_the_error_tells_how_well_other_shapes_are_predicted(clock):
    clock(lambda shape: dict(shape.lengths)["text"] ** 3)
    poor = calibrate(calibrated_step, BatchSpec(shapes_of(2, 9, 30), EXAMPLE), jnp.zeros(()))
    assert poor.error > 0.5
    assert math.isnan(calibrate(calibrated_step, BatchSpec(shapes_of(5), EXAMPLE), jnp.zeros(())).error)


@pytest.mark.parametrize("cost", [COST, position_count])
@pytest.mark.parametrize("lengths", [(2, 30), (2, 9, 30)])
def test_steps_that_all_take_as_long_still_have_a_price(clock, lengths, cost):
    """And it is so low that no smaller shape seems to save anything."""
    clock(lambda _: 0.5)
    found = calibrate(calibrated_step, BatchSpec(shapes_of(*lengths), EXAMPLE), jnp.zeros(()), cost=cost)
    assert found.seconds_per_cost > 0
    each = 8 * found.cost(np.array([[2, 8], [30, 120]]))
    assert (each > 0).all()
    np.testing.assert_allclose(found.seconds_per_cost * (found.batch_overhead + each), 0.5, rtol=1e-5)


def test_lengths_that_are_all_equal_are_one_shape():
    assert typical_shapes(LengthTable(("text",), np.full((9, 1), 5)), 4) == [BatchShape.of(4, {"text": 5})]
    assert typical_shapes(LengthTable(("text",), np.array([[0], [0]])), 4) == [BatchShape.of(4, {"text": 1})]


def test_shares_choose_the_typical_shapes():
    shapes = typical_shapes(TABLE, 8, (0.25, 0.5, 0.9, 0.99, 1))
    assert [dict(shape.lengths)["text"] for shape in shapes] == sorted(dict(shape.lengths)["text"] for shape in shapes)
    assert len(shapes) == 5
    assert set(typical_shapes(TABLE, 8)) < set(shapes)
    for shares in ((), (0.5, 1.1), (-0.1,)):
        with pytest.raises(PaddingError, match="got shares="):
            typical_shapes(TABLE, 8, shares)


def test_bad_calibrations():
    def run(shapes, **options):
        calibrate(calibrated_step, BatchSpec(shapes, EXAMPLE), jnp.zeros(()), **options)

    with pytest.raises(PaddingError, match="got repeats=0"):
        run(shapes_of(2), repeats=0)
    with pytest.raises(PaddingError, match="got no shapes to calibrate at"):
        run([])
    with pytest.raises(PaddingError, match=r"got the shape 2 x \(text 3\) among others of"):
        run([*shapes_of(2), BatchShape.of(2, {"text": 3})])
    with pytest.raises(PaddingError, match="the cost of every shape is 0"):
        run(shapes_of(2), cost=lambda rows: np.zeros(len(rows)))
    found = calibrate(calibrated_step, BatchSpec(shapes_of(2), EXAMPLE), jnp.zeros(()))
    with pytest.raises(PaddingError, match="got epochs=-1"):
        found.run_time(-1)
