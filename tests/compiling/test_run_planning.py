"""Shapes that pay for a run on a device: few compilations to find out, and none of them in vain."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BatchBudget,
    BatchShape,
    BucketBatcher,
    LengthTable,
    PaddingError,
    Planned,
    attention_area,
    pad_samples,
    position_count,
)
from multimodal_pad.compiling import CompileLog, StepTable, calibration_file, plan_run, run_planning, warm_up
from multimodal_pad.errors import CalibrationWarning
from multimodal_pad.sources import Synthetic
from tests.helpers.caches import restored_cache_options

TABLE = Synthetic(200).lengths.select(("text", "audio"))
EXAMPLE = pad_samples([{"text": np.ones(3, np.int32), "audio": np.ones((2, 4), np.float32)}])
LARGEST = BatchShape.of(8, dict(zip(TABLE.modalities, TABLE.values.max(axis=0).tolist(), strict=True)))


def planned_step(state, batch, scale=1):
    audio = batch.features["audio"]
    return state + scale * audio.sum() + batch.features["text"].sum() + batch.sample_mask.sum(), audio.max()


def run(table, *, epochs=10, state=None, batch_size=8, **options):
    state = jnp.zeros(()) if state is None else state
    options = {"batch_size": batch_size, "effort": 0.1, "progress": False, **options}
    return plan_run(table, TABLE, state, EXAMPLE, epochs=epochs, **options)


def positions(shape):
    return shape.batch_size * sum(length for _, length in shape.lengths)


@pytest.fixture
def device(monkeypatch):
    """Steps and compilations take the seconds that a test says; the list is of the shapes timed."""
    timed = []
    jax.clear_caches()  # JAX remembers programs of a function: then nothing would be compiled, or kept in a folder

    def set_seconds(step, compiling):
        def time_steps(_table, shapes, *_):
            timed.extend(shapes)
            return np.array([step(shape) for shape in shapes])

        monkeypatch.setattr(run_planning, "time_steps", time_steps)
        monkeypatch.setattr(run_planning, "seconds_from_cache", lambda _log: compiling)
        return timed

    return set_seconds


@pytest.fixture
def folder(tmp_path):
    with restored_cache_options():
        yield tmp_path / "cache"


def dear(shape):
    return 1e-3 * positions(shape)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grouping": "random"},
        {"alignment": {"audio": 16}},
        {"batch_size": BatchBudget(6000)},
        {"cost": attention_area},
    ],
)
def test_every_program_is_of_a_shape_of_the_plan(device, options):
    timed = device(dear, 20.0)
    table = StepTable(planned_step)
    with CompileLog() as log:
        plan = run(table, **options)
    assert log["planned_step"].backend_compiles == len(table) == 2
    assert list(table.steps) == timed
    assert set(timed) <= set(plan.batch_shapes)
    assert 3 <= len(plan) <= 20
    assert (plan.place(TABLE.values) >= 0).all()
    assert (plan.place(TABLE.values.max(axis=0)[None]) >= 0).all() or isinstance(options["batch_size"], BatchBudget)
    samples = [{"text": np.ones(t, np.int32), "audio": np.ones((a, 4), np.float32)} for t, a in TABLE.values.tolist()]
    batcher = BucketBatcher(samples, Planned(plan), lengths=TABLE)
    assert {batch.shape for batch in batcher.epoch(0)} <= set(plan.batch_shapes)


def test_the_warm_up_compiles_only_the_others(device):
    device(dear, 50.0)
    table = StepTable(planned_step)
    plan = run(table)
    with CompileLog() as log:
        warm_up(table, plan.spec(EXAMPLE), jnp.zeros(()), progress=False)
    assert log["planned_step"].backend_compiles == len(plan) - 2 > 0


@pytest.mark.parametrize("grouping", ["length", "random"])
def test_one_shape_after_one_compilation_where_more_cannot_pay(device, grouping):
    timed = device(lambda _: 1e-4, 60.0)
    table = StepTable(planned_step)
    plan = run(table, grouping=grouping)
    assert timed == list(table.steps) == plan.batch_shapes == [LARGEST]
    assert plan.reason.startswith("1 batch shape: 1 more would take 60 s to compile and save at most 0.0")


@pytest.mark.slow
def test_more_epochs_pay_for_more_shapes(device):
    device(dear, 20.0)
    counts = [len(run(StepTable(planned_step), epochs=epochs)) for epochs in (0, 3, 30, 300)]
    assert counts == sorted(counts)
    assert counts[0] == 1 < counts[1] < counts[-1]


def test_two_shapes_where_steps_of_all_take_as_long(device):
    """Only the second program shows it: then nothing else is compiled."""
    timed = device(lambda _: 0.5, 20.0)
    table = StepTable(planned_step)
    plan = run(table)
    assert len(plan) == 2
    assert set(plan.batch_shapes) == set(timed) == set(table.steps)
    assert "(2 compiled before): compiling 0 takes 0 s, and they save" in plan.reason


def test_the_largest_shape_is_in_the_plan_where_no_sample_needs_it(device):
    device(dear, 1e-3)
    lengths = LengthTable(("text", "audio"), np.array([[4, 30], [20, 3]] * 20))
    table = StepTable(planned_step)
    plan = plan_run(table, lengths, jnp.zeros(()), EXAMPLE, epochs=10, batch_size=8, progress=False)
    assert plan.lengths.tolist() == [[20, 3], [4, 30], [20, 30]]
    assert plan.samples.tolist() == [20, 20, 0]
    assert set(table.steps) < set(plan.batch_shapes)


def test_what_is_measured_in_earnest():
    state = jnp.ones((3,))
    table = StepTable(planned_step, donate_state=True)
    plan = run(table, state=state, epochs=10**9, alignment=16, effort=0)
    assert len(table) == 2 < len(plan)
    assert state.tolist() == [1, 1, 1], "the steps ran on a copy"


def test_a_second_run_compiles_and_measures_nothing(device, folder):
    timed = device(dear, 20.0)
    first = run(StepTable(planned_step), cache_dir=folder)
    assert len(timed) == 2
    jax.clear_caches()
    table = StepTable(planned_step)
    with CompileLog() as log:
        second = run(table, cache_dir=folder)
    assert log["planned_step"].compiled == 0
    assert len(timed) == 2
    assert second.batch_shapes == first.batch_shapes
    assert second.reason == first.reason
    assert list(table.steps) == [LARGEST], "read, since the run needs it"
    with CompileLog() as log:
        warm_up(table, second.spec(EXAMPLE), jnp.zeros(()), progress=False)
    assert log["planned_step"].compiled == len(second) - 2


def test_a_longer_run_measures_only_what_is_missing(device, folder):
    timed = device(dear, 20.0)
    assert len(run(StepTable(planned_step), epochs=0, cache_dir=folder)) == 1
    plan = run(StepTable(planned_step), epochs=10, cache_dir=folder)
    assert len(timed) == len(set(timed)) == 2
    assert run(StepTable(planned_step), epochs=10, cache_dir=folder).batch_shapes == plan.batch_shapes
    assert len(timed) == 2


def test_a_shape_measured_that_another_alignment_rules_out_is_not_planned(device, folder):
    device(dear, 20.0)
    lengths = LengthTable(("text", "audio"), np.array([[64, 128]] + [[5, 9]] * 50 + [[30, 70]] * 9))
    arguments = {"epochs": 10, "batch_size": 8, "cache_dir": folder, "progress": False}
    first = plan_run(StepTable(planned_step), lengths, jnp.zeros(()), EXAMPLE, **arguments)
    assert [5, 9] in first.lengths.tolist()
    table = StepTable(planned_step)
    second = plan_run(table, lengths, jnp.zeros(()), EXAMPLE, alignment=8, **arguments)
    assert len(second) > 1
    assert not (second.lengths % 8).any()
    assert len(table) == 1


def test_another_model_or_device_is_measured_anew(device, folder, monkeypatch):
    timed = device(dear, 20.0)
    run(StepTable(planned_step), epochs=0, cache_dir=folder)
    run(StepTable(partial(planned_step, scale=2)), epochs=0, cache_dir=folder)
    assert len(timed) == 2, "another program"
    run(StepTable(planned_step), epochs=0, state=jnp.zeros((), jnp.int32), cache_dir=folder)
    assert len(timed) == 3, "another state"
    run(StepTable(planned_step, compiler_options={"xla_cpu_enable_fast_math": False}), epochs=0, cache_dir=folder)
    assert len(timed) == 4, "other compiler options"
    monkeypatch.setattr(calibration_file, "version", lambda _package: "0.0")
    run(StepTable(planned_step), epochs=0, cache_dir=folder)
    assert len(timed) == 5, "another version"
    assert len(list(folder.glob("calibration-*.json"))) == 5
    run(StepTable(planned_step), epochs=0, cache_dir=folder)
    assert len(timed) == 5


def broken(change):
    def write(path):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "not a calibration that serves here"),
        (lambda path: path.write_bytes(b"\xff\x00"), "not a calibration that serves here"),
        (lambda path: path.write_text("[1]"), "another device or model"),
        (broken(lambda values: values["identity"].update(device="other")), "another device or model"),
        (broken(lambda values: values.pop("times")), "measured anew and replaced"),
        (broken(lambda values: values.update(times=[7])), "measured anew"),
        (broken(lambda values: values["times"][0].update(rows=0)), "whole numbers from 1"),
        (broken(lambda values: values["times"][0].update(lengths={"text": 1.5})), "whole numbers from 1"),
        (broken(lambda values: values["times"][0].update(step_seconds=float("nan"))), "finite numbers above 0"),
        (broken(lambda values: values["times"][0].update(compile_seconds=-1)), "finite numbers above 0"),
    ],
)
def test_a_damaged_file_is_measured_anew_with_a_warning(device, folder, damage, message):
    timed = device(dear, 20.0)
    run(StepTable(planned_step), epochs=0, cache_dir=folder)
    (path,) = folder.glob("calibration-*.json")
    whole = path.read_bytes()
    damage(path)
    with pytest.warns(CalibrationWarning, match=message) as caught:
        run(StepTable(planned_step), epochs=0, cache_dir=folder)
    assert caught[0].filename == __file__, "it points at the user's line"
    assert len(timed) == 2
    assert json.loads(path.read_bytes()).keys() == json.loads(whole).keys()
    run(StepTable(planned_step), epochs=0, cache_dir=folder)
    assert len(timed) == 2, "the file is whole again"


def test_a_file_that_cannot_be_written_is_no_error(device, folder, monkeypatch):
    device(dear, 20.0)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibration_file, "write_file", refuse)
    with pytest.warns(CalibrationWarning, match="can't be written .No space left on device.; the next run measures"):
        assert len(run(StepTable(planned_step), epochs=0, cache_dir=folder)) == 1


def test_bad_runs(monkeypatch):
    table = StepTable(planned_step)
    with pytest.raises(PaddingError, match=r"got <function planned_step .*>; give a StepTable of it"):
        run(planned_step)
    with pytest.raises(PaddingError, match="got repeats=0"):
        run(table, repeats=0)
    with pytest.raises(PaddingError, match="got epochs=-1"):
        run(table, epochs=-1)
    with pytest.raises(PaddingError, match="the cost of every shape is 0"):
        run(table, cost=lambda rows: 0 * position_count(rows))
    with pytest.raises(PaddingError, match="got a batch of"):
        plan_run(table, TABLE.select(["text"]), jnp.zeros(()), EXAMPLE, epochs=1, progress=False)
    with pytest.raises(PaddingError, match="grouping"):
        run(table, grouping="size")
    assert len(table) == 0, "all of it is said before anything is compiled"
    with pytest.raises(PaddingError, match="give one that returns"):
        run(StepTable(lambda state, _: {"loss": state}))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(PaddingError, match="got 2 processes, whose plans would differ; plan in a run of one"):
        run(table)
