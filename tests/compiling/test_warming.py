import os
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BatchShape,
    BatchSpec,
    PaddingError,
    pad_samples,
)
from multimodal_pad.compiling import CompileLog, StepTable, forbid_compiles, warm_up, warm_up_all
from tests.helpers.devices import cpu_environment


def new_step():
    """A function of its own for each test: JAX knows the programs of one that it has seen."""

    def warm_step(state, batch):
        return state + batch.features["audio"].sum()

    return warm_step


EXAMPLE = pad_samples([{"audio": np.ones((1, 2), np.float32)}])
SHAPES = [BatchShape.of(2, {"audio": length}) for length in (4, 8, 16)]


def batch_of(length, rows=2):
    return pad_samples([{"audio": np.ones((length, 2), np.float32)}] * rows)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_shape_is_compiled_once_and_nothing_after(threads):
    with CompileLog() as log:
        table = warm_up(new_step(), BatchSpec(SHAPES, EXAMPLE), np.float32(0), threads=threads, progress=False)
        assert log["warm_step"].shapes == log["warm_step"].backend_compiles == 3
        with forbid_compiles():
            for shape in SHAPES:
                length = dict(shape.lengths)["audio"]
                assert float(table(np.float32(0), batch_of(length))) == 4 * length
    assert sorted(table.steps) == SHAPES == table.planned
    assert all(step.seconds > 0 for step in table.steps.values())
    assert log["warm_step"].backend_compiles == 3


def test_a_table_that_is_warmed_up_twice_compiles_what_is_new():
    table = warm_up(new_step(), BatchSpec(SHAPES[:2], EXAMPLE), np.float32(0), progress=False)
    with CompileLog() as log:
        assert warm_up(table, BatchSpec(SHAPES, EXAMPLE), np.float32(0), progress=False) is table
    assert log["warm_step"].backend_compiles == 1
    assert table.planned == SHAPES


def test_no_data_is_needed():
    """Shapes and dtypes are enough, of the state and of the batch."""
    struct = jax.eval_shape(lambda: EXAMPLE)
    table = warm_up(new_step(), BatchSpec(SHAPES, struct), jax.ShapeDtypeStruct((), np.float32), progress=False)
    assert float(table(np.float32(0), batch_of(4))) == 16


def test_training_and_evaluation_together():
    def evaluating(state, batch):
        return batch.features["audio"].sum() - state

    train, evaluate = StepTable(new_step(), donate_state=True), StepTable(evaluating)
    warm_up_all(
        [(train, BatchSpec(SHAPES, EXAMPLE)), (evaluate, BatchSpec(SHAPES[:1], EXAMPLE))], jnp.zeros(()), progress=False
    )
    state = jnp.zeros(())
    moved = train(state, batch_of(4))
    assert state.is_deleted()
    assert float(evaluate(moved, batch_of(4))) == 0
    assert (len(train), len(evaluate)) == (3, 1)


def test_bad_warm_ups():
    with pytest.raises(PaddingError, match="got no shapes to warm 'warm_step' up for"):
        warm_up(new_step(), BatchSpec([], EXAMPLE), np.float32(0))
    with pytest.raises(PaddingError, match="got threads=0"):
        warm_up(new_step(), BatchSpec(SHAPES, EXAMPLE), np.float32(0), threads=0)
    with pytest.raises(PaddingError, match=r"a batch of \['audio'\] and a shape of \['text'\]"):
        warm_up(new_step(), BatchSpec([BatchShape.of(2, {"text": 4})], EXAMPLE), np.float32(0), progress=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("compiling")]


def test_a_warm_up_that_fails_plans_nothing():
    table, other = StepTable(new_step()), StepTable(new_step())
    with pytest.raises(PaddingError, match="got no shapes"):
        warm_up_all(
            [(table, BatchSpec(SHAPES, EXAMPLE)), (other, BatchSpec([], EXAMPLE))], np.float32(0), progress=False
        )
    assert (len(table), table.planned) == (0, [])


def test_each_table_has_an_example_of_its_own():
    """Training on one dtype and evaluating on another."""
    whole = pad_samples([{"audio": np.ones((1, 2), np.int16)}])
    train, evaluate = StepTable(new_step()), StepTable(new_step())
    warm_up_all(
        [(train, BatchSpec(SHAPES, EXAMPLE)), (evaluate, BatchSpec(SHAPES, whole))], np.float32(0), progress=False
    )
    batch = batch_of(4)
    assert float(train(np.float32(0), batch)) == 16
    features = {"audio": batch.features["audio"].astype(np.int16)}
    assert float(evaluate(np.float32(0), batch._replace(features=features))) == 16


def test_a_random_key_may_be_in_the_state():
    def random_step(key, batch):
        return jax.random.split(key)[0], batch.features["audio"].sum() + jax.random.normal(key)

    with CompileLog() as log:
        table = warm_up(random_step, BatchSpec(SHAPES[:1], EXAMPLE), jax.random.key(0), progress=False)
        key, _ = table(jax.random.key(0), batch_of(4))
        table(key, batch_of(4))
    assert log["random_step"].backend_compiles == 1


def test_the_bar_counts_programs(capsys):
    warm_up(new_step(), BatchSpec(SHAPES, EXAMPLE), np.float32(0))
    shown = capsys.readouterr().out
    assert "compiled warm_step for 2 x (audio" in shown
    assert "3/3" in shown


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_no_threads_and_a_usable_process():
    """Interrupted in the middle: what is compiled stays, the rest is dropped, and a second warm-up completes."""

    def interrupted_step(state, batch):
        traced.append(batch.shape)
        if len(traced) == 9:
            while len(table) < 3:  # until some of the eight before are compiled
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
        return state + batch.features["audio"].sum()

    shapes = [BatchShape.of(2, {"audio": length}) for length in range(4, 24)]
    table, traced = StepTable(interrupted_step), []
    with pytest.raises(KeyboardInterrupt):
        warm_up(table, BatchSpec(shapes, EXAMPLE), np.float32(0), progress=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("compiling")]
    assert 3 <= len(table) <= 8
    assert table.planned == [], "a shape that was not reached compiles when it comes, as before any warm-up"
    assert float(table(np.float32(0), batch_of(4))) == 16
    warm_up(table, BatchSpec(shapes, EXAMPLE), np.float32(0), progress=False)
    assert len(table) == len(shapes)
    assert float(table(np.float32(0), batch_of(9))) == 36


MESH = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from multimodal_pad import BatchSpec, BucketBatcher, LengthTable, Planned, plan_shapes
from multimodal_pad.compiling import CompileLog, StepTable, forbid_compiles, warm_up, warm_up_all
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer
from tests.helpers.training import MeanModel, make_samples

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",))
rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
samples = make_samples(50)
plan = plan_shapes(LengthTable.measure(samples, ("audio",)), max_shapes=3, batch_size=6)
batcher = BucketBatcher(samples, Planned(plan))
moved = jax.device_put(np.zeros(3, np.float32), jax.devices()[1])
add = lambda state, batch: state + batch.features["audio"].sum()
table = warm_up(add, batcher, moved, progress=False)
assert table(moved, next(batcher.epoch(0))).devices() == {jax.devices()[1]}
losses = []
for placed in ("one device", "numpy", "sharded"):
    step = TrainStep(MeanModel(), make_optimizer(0.1), cross_entropy)
    shardings = {} if placed == "one device" else {"in_shardings": (whole, rows)}
    outs = {} if placed == "one device" else {"out_shardings": (whole, whole)}
    train = StepTable(step.train_step, donate_state=True, **shardings, **outs)
    evaluate = StepTable(step.eval_step, **shardings)
    warm_up_all([(table, batcher) for table in (train, evaluate)], step.state, progress=False)
    state = step.state if placed == "one device" else jax.device_put(step.state, whole)
    losses.append([])
    with CompileLog() as log, forbid_compiles():
        for epoch in range(3):
            for batch in batcher.epoch(epoch):
                if placed == "sharded":
                    batch = jax.device_put(batch, rows)
                state, metrics = train(state, batch)
                losses[-1].append(float(metrics.loss))
            for batch in batcher.epoch(0):
                evaluate(state, batch)
        kernel = state.params["head"]["kernel"]
        assert placed == "one device" or kernel.sharding.is_equivalent_to(whole, 2), kernel.sharding
    assert log.total.backend_compiles == 0, {name: log[name] for name in log}
    assert log.total.traces == 0
np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
np.testing.assert_array_equal(losses[1], losses[2])
try:
    uneven = StepTable(step.train_step, in_shardings=(whole, rows))
    warm_up(uneven, BatchSpec(plan.batch_shapes[:1], batcher.example()), step.state, progress=False)
    odd = plan_shapes(LengthTable.measure(samples, ("audio",)), max_shapes=1, batch_size=5)
    warm_up(uneven, odd.spec(batcher.example()), step.state, progress=False)
except ValueError as error:
    assert "partitioned 2 times" in str(error) and "5 x (audio" in "".join(error.__notes__), error.__notes__
else:
    raise SystemExit("five rows went onto two devices")
print("well")
"""


@pytest.mark.slow
def test_nothing_compiles_over_a_mesh_of_two_devices():
    command = [sys.executable, "-W", "error", "-c", MESH]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "well"  # jax 0.11 prints where an array did not divide
