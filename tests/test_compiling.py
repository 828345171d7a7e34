import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Exact, Fixed, Ladder, PaddingError, pad_samples
from multimodal_pad.compiling import CompileLog, StepTable, device_bytes
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

    batcher = BucketBatcher(SOURCE, POLICIES[name], batch_size=8, grouping=grouping, lengths=TABLE)
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


def test_the_log_counts_only_while_it_is_open():
    def logged_step(x):
        return x + 1

    jitted = jax.jit(logged_step)
    jitted(np.zeros(2))
    with CompileLog() as outer:
        jitted(np.zeros(3))
        with CompileLog() as inner:
            jitted(np.zeros(4))
    jitted(np.zeros(5))
    assert outer["logged_step"].backend_compiles == 2
    assert inner["logged_step"].backend_compiles == 1
    assert "logged_step" in outer
    assert outer["never_compiled"].backend_compiles == 0
    assert outer.total.backend_compiles >= 2
    assert outer.total.seconds >= outer["logged_step"].seconds > 0


def test_cache_hits_are_told_from_compiles(tmp_path):
    """A hit in the persistent cache is a backend event too; the log says how many of them were hits."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    from jax.experimental.compilation_cache import compilation_cache

    def cached_step(x):
        return jnp.sin(x) @ x

    try:
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        with CompileLog() as cold:
            jax.jit(cached_step)(np.ones(7, np.float32))
        jax.clear_caches()
        with CompileLog() as warm:
            jax.jit(cached_step)(np.ones(7, np.float32))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert (cold["cached_step"].backend_compiles, cold["cached_step"].cache_hits) == (1, 0)
    assert (warm["cached_step"].backend_compiles, warm["cached_step"].cache_hits) == (1, 1)
    assert cold["cached_step"].cache_seconds == 0
    assert 0 < warm["cached_step"].cache_seconds <= warm["cached_step"].backend_seconds


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
    with pytest.raises(PaddingError, match=r"got float 1\.0 in the state; give arrays"):
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


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="host and device share memory on CPU alone")
def test_the_cpu_backend_takes_a_batch_without_a_copy():
    """This is why every batch gets buffers of its own: JAX goes on reading from them."""
    batch = a_batch()
    on_device = jax.device_put(batch)
    for host, device in zip(jax.tree.leaves(batch), jax.tree.leaves(on_device), strict=True):
        assert device.unsafe_buffer_pointer() == host.ctypes.data
