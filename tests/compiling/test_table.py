from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BatchShape,
    BatchSpec,
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    PaddingError,
    PlanWarning,
    pad_samples,
    plan_shapes,
)
from multimodal_pad.compiling import CompileLog, StepTable, batch_struct, device_bytes, forbid_compiles, warm_up
from multimodal_pad.errors import CompileError, UnplannedShapeError
from multimodal_pad.sources import Synthetic

SOURCE = Synthetic(60)
TABLE = SOURCE.lengths
POLICIES = {
    "fixed": Fixed.longest(TABLE),
    "exact": Exact(TABLE.modalities),
    "powers_of_two": Ladder.powers_of_two(TABLE, 8),
    "multiples": Ladder.multiples_of(TABLE, 32),
    "quantiles": Ladder.quantiles(TABLE, 3),
}


def a_batch(length=5):
    return pad_samples([{"audio": np.ones((length, 2), np.float32), "targets": np.float32(1)}])


@pytest.mark.parametrize("grouping", ["random", "length"])
@pytest.mark.parametrize("name", POLICIES)
def test_one_backend_compile_per_shape_used(name, grouping):
    def counted_step(state, batch):
        return state + sum(jnp.where(batch.masks[m][..., None], batch.features[m], 0).sum() for m in TABLE.modalities)

    batcher = BucketBatcher(SOURCE, POLICIES[name], batch_size=20, grouping=grouping, lengths=TABLE)
    table = StepTable(counted_step)
    state = np.float32(0)
    with CompileLog() as log:
        for epoch in range(2):
            for batch in batcher.epoch(epoch):
                state = table(state, batch)
    counts = log["counted_step"]
    assert counts.backend_compiles == counts.traces == counts.lowerings == len(batcher.stats.shapes) == len(table)
    assert counts.backend_seconds > 0
    real = sum(float(SOURCE[i][m].sum()) for i in range(60) for m in TABLE.modalities)
    assert float(state) == pytest.approx(2 * real, rel=1e-3)


def test_the_recompile_that_a_trace_counter_misses():
    traces = []

    def placed_step(state, batch):
        traces.append(1)
        return state + batch.features["audio"].sum()

    jitted = jax.jit(placed_step)
    batch, state = a_batch(), jnp.zeros(())
    committed = jax.device_put(batch, jax.devices()[0])
    with CompileLog() as log:
        jitted(state, batch)
        jitted(state, committed)
    assert len(traces) == log["placed_step"].traces == 1
    assert log["placed_step"].backend_compiles == 2

    def tabled_step(state, batch):
        return state + batch.features["audio"].sum()

    table = StepTable(tabled_step)
    with CompileLog() as log:
        for given in (batch, committed, jax.device_put(batch)):
            assert float(table(state, given)) == 10
    assert log["tabled_step"].backend_compiles == 1


def test_the_table_runs_what_it_compiled():
    def scaled(state, batch):
        return state * batch.features["audio"].sum()

    table = StepTable(scaled)
    step = table.compile(jnp.float32(2), a_batch(5))
    assert step is table.compile(jnp.float32(2), a_batch(5))
    assert step.seconds > 0
    assert float(table(jnp.float32(2), a_batch(5))) == 20
    assert float(table(jnp.float32(2), a_batch(7))) == 28
    assert len(table) == 2


def test_weak_types_do_not_recompile():
    def weak_step(state, batch):
        return state + batch.features["audio"].sum()

    table = StepTable(weak_step)
    with CompileLog() as log:
        table(jnp.asarray(1.0), a_batch())  # weakly typed
        table(jnp.ones((), jnp.float32), a_batch())
    assert log["weak_step"].backend_compiles == 1


def test_a_donated_state_is_gone():
    def donated(state, batch):
        return state + batch.features["audio"].sum()

    state = jnp.zeros(3)
    StepTable(donated, donate_state=True)(state, a_batch())
    assert state.is_deleted()


def test_a_state_without_dtypes_is_refused():
    with pytest.raises(PaddingError, match=r"got float 1\.0 at state; give arrays"):
        StepTable(lambda state, batch: (state, batch))(1.0, a_batch())


def test_another_dtype_is_a_type_error():
    table = StepTable(lambda state, batch: state + batch.features["audio"].sum())
    batch = a_batch()
    table(jnp.zeros(()), batch)
    with pytest.raises(TypeError, match="int32"):
        table(jnp.zeros(()), batch._replace(features={"audio": np.ones((1, 5, 2), np.int32)}))


def test_device_bytes_where_the_backend_tells_none():
    class Silent:
        def memory_analysis(self):
            return None

    assert device_bytes(Silent()) is None


def test_the_cpu_backend_takes_a_batch_without_a_copy():
    """This is why every batch gets buffers of its own: JAX goes on reading from them."""
    batch = a_batch()
    on_device = jax.device_put(batch, jax.devices("cpu")[0])
    for host, device in zip(jax.tree.leaves(batch), jax.tree.leaves(on_device), strict=True):
        assert device.unsafe_buffer_pointer() == host.ctypes.data


def summed(state, batch):
    return state + batch.features["audio"].sum()


def warmed(**options):
    table = StepTable(summed, **options)
    shapes = [BatchShape.of(2, {"audio": 8}), BatchShape.of(1, {"audio": 32})]
    return warm_up(table, BatchSpec(shapes, a_batch()), jnp.zeros(()), progress=False)


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [
        (2, 9, r"2 x \(audio 9\): 'audio' has 9 positions and not 8, as the nearest planned shape, 2 x \(audio 8\)"),
        (1, 30, r"'audio' has 30 positions and not 32, as the nearest planned shape, 1 x \(audio 32\) \(of 2\)"),
        (3, 8, r"the batch has 3 rows and not 2, as the nearest planned shape, 2 x \(audio 8\)"),
        (4, 9, r"'audio' has 9 positions and not 8, the batch has 4 rows and not 2, as"),
    ],
)
def test_an_unplanned_shape_is_refused_before_anything_compiles(rows, length, message):
    table = warmed()
    batch = pad_samples([{"audio": np.ones((length, 2), np.float32), "targets": np.float32(1)}], batch_size=rows)
    with CompileLog() as log, pytest.raises(UnplannedShapeError, match=message):
        table(jnp.zeros(()), batch)
    assert log.total.traces == log.total.backend_compiles == 0
    planned = pad_samples([{"audio": np.ones((5, 2), np.float32), "targets": np.float32(1)}], pad_to={"audio": 32})
    assert float(table(jnp.zeros(()), planned)) == 10, "the next allowed call works"


def test_the_error_names_the_plan():
    plan = plan_shapes(LengthTable(("audio",), np.array([[4], [8]])), max_shapes=2, batch_size=2)
    table = warm_up(summed, plan.spec(a_batch()), jnp.zeros(()), progress=False)
    with pytest.raises(UnplannedShapeError, match=rf"of 2 of the plan {plan.shapes_fingerprint[:12]}\)"):
        table(jnp.zeros(()), a_batch(7))


def test_other_modalities_are_unplanned_too():
    batch = pad_samples([{"smell": np.ones((8, 2), np.float32)}])
    with pytest.raises(UnplannedShapeError, match=r"the 2 planned ones have the modalities \['audio'\]"):
        warmed()(jnp.zeros(()), batch)


def test_a_table_that_is_not_strict_warns_once_per_shape_and_counts():
    table = warmed(strict=False)
    with pytest.warns(PlanWarning, match=r"unplanned shape, 1 x \(audio 5\): .*; it was compiled now") as caught:
        table(jnp.zeros(()), a_batch(5))
    assert caught[0].filename == __file__
    assert float(table(jnp.zeros(()), a_batch(5))) == 10, "no second warning, which would be an error here"
    assert table.unplanned == [BatchShape.of(1, {"audio": 5})]
    with pytest.warns(PlanWarning, match="audio 6"):
        table(jnp.zeros(()), a_batch(6))
    assert len(table.unplanned) == 2


def test_a_table_that_may_not_compile_does_not_count():
    table = warmed(strict=False)
    with forbid_compiles(), pytest.raises(CompileError, match="'summed' would be compiled"):
        table(jnp.zeros(()), a_batch(7))
    assert table.unplanned == []


def test_a_partial_function_has_the_name_that_jax_gives_it():
    def inner_name(factor, state, batch):
        return state + factor * batch.features["audio"].sum()

    table = StepTable(partial(inner_name, 2.0))
    with CompileLog() as log:
        table(jnp.zeros(()), a_batch())
    assert table.name == "inner_name"
    assert log[table.name].backend_compiles == log[table.name].shapes == 1


def test_what_is_compiled_on_purpose_is_not_unplanned():
    table = warmed()
    table.compile(jnp.zeros(()), a_batch(5))
    assert float(table(jnp.zeros(()), a_batch(5))) == 10
    assert table.unplanned == []


def test_an_error_of_the_step_names_the_shape():
    def broken(state, batch):
        return state + batch.features["audio"].sum(axis=7)

    with pytest.raises(ValueError, match="axis 7") as caught:
        warm_up(broken, BatchSpec([BatchShape.of(2, {"audio": 8})], a_batch()), jnp.zeros(()), progress=False)
    assert "while 'broken' was traced for 2 x (audio 8)" in caught.value.__notes__


def test_the_table_as_text():
    heading, longer, shorter = str(warmed()).splitlines()
    assert heading.split() == ["summed", "seconds", "device", "MB"]
    assert longer.startswith("1 x (audio 32)")
    assert shorter.startswith("2 x (audio 8)")


def test_a_batch_at_another_shape():
    batch = pad_samples([{"audio": np.ones((3, 2), np.float32), "targets": np.zeros((2, 2), np.int32)}])
    struct = batch_struct(batch, BatchShape.of(5, {"audio": 7}))
    assert struct.shape == BatchShape.of(5, {"audio": 7})
    assert struct.features["audio"].shape == (5, 7, 2)
    assert (struct.lengths["audio"].shape, struct.lengths["audio"].dtype) == ((5,), np.int32)
    assert (struct.targets.shape, struct.targets.dtype) == ((5, 2, 2), np.int32)
    assert batch_struct(batch._replace(targets=None), struct.shape).targets is None
    with pytest.raises(PaddingError, match=r"a batch of \['audio'\] and a shape of \['text'\]"):
        batch_struct(batch, BatchShape.of(5, {"text": 7}))
