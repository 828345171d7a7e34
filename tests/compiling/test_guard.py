"""Each known cause of a compilation is caught, by name, and what is compiled goes on working."""

import logging
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import BatchSpec, pad_samples
from multimodal_pad.compiling import CompileGuard, CompileLog, forbid_compiles, use_compilation_cache, warm_up
from multimodal_pad.compiling.events import CompileEvent
from multimodal_pad.errors import CompileError
from tests.helpers.caches import restored_cache_options

BATCH = np.ones((3, 2), np.float32)


@jax.tree_util.register_pytree_node_class
class _Rows:
    """A batch of another structure that the step takes as well."""

    def __init__(self, parts):
        self.parts = parts

    def sum(self):
        return sum(part.sum() for part in self.parts)

    def tree_flatten(self):
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(parts)


def make_step():
    def guarded_step(state, batch):
        return state + batch.sum()

    return jax.jit(guarded_step)


@pytest.fixture
def step():
    """A compiled step, and what calls it as it was compiled."""
    jitted = make_step()
    jitted(np.float32(0), BATCH)
    return jitted


def again(step):
    assert float(step(np.float32(1), BATCH)) == 7


def with_another_precision(step):
    with jax.default_matmul_precision("tensorfloat32"):
        step(np.float32(0), BATCH)


CAUSES = {
    "tail batch": (lambda step: step(np.float32(0), BATCH[:2]), r"at batch, now f32\[2,2\] and before f32\[3,2\]"),
    "dtype": (lambda step: step(np.float32(0), BATCH.astype(np.int32)), r"at batch, now i32\[3,2\] and before f32"),
    "weak type": (
        lambda step: step(0.0, BATCH),
        r"at state, now f32\[\]\{weak_type=True\}.*\ngive arrays of a fixed dtype",
    ),
    "committed": (
        lambda step: step(np.float32(0), jax.device_put(BATCH, jax.devices()[0])),
        r"traced for these types before, so its arguments lie elsewhere now \(committed.*\nplace state and batches",
    ),
    "new closure": (
        lambda _: make_step()(np.float32(0), BATCH),
        r"never seen function:\n.*guarded_step.*\n(.*\n)*make the function, and its jax.jit, once",
    ),
    "configuration": (
        with_another_precision,
        f"jax_default_matmul_precision differs: now tensorfloat32 and before {jax.config.jax_default_matmul_precision}",
    ),
    "another structure": (
        lambda step: step(np.float32(0), _Rows([BATCH, BATCH])),
        r"different input pytree:\n(.*\n)*give arguments of the same structure",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_is_caught_and_explained(name, step):
    cause, message = CAUSES[name]
    with CompileLog() as log, forbid_compiles():
        with pytest.raises(CompileError, match=message) as caught:
            cause(step)
        again(step)
        with pytest.raises(CompileError, match=message):
            cause(step)  # JAX has traced it by now, and tells no more
    assert str(caught.value).startswith(f"'guarded_step' would be compiled at {__file__}:")
    assert log.total.backend_compiles == 0
    cause(step)
    again(step)


def test_a_model_that_is_switched_to_evaluation():
    class Model(nnx.Module):
        def __init__(self):
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.dropout(x)

    @nnx.jit
    def model_step(model, x):
        return model(x).sum()

    model = Model()
    model_step(model, BATCH)
    model.eval()
    with (
        forbid_compiles("model_step"),
        pytest.raises(CompileError, match=r"deterministic', Static\(value=True") as caught,
    ):
        model_step(model, BATCH)
    assert len(str(caught.value)) < 1500
    assert __file__ in str(caught.value).splitlines()[0], "not a file of Flax"
    model.train()
    with forbid_compiles("model_step"):
        model_step(model, BATCH)


def test_a_warm_up_under_the_guard_is_explained():
    """It traces in one thread and compiles in another."""

    def warmed_step(state, batch):
        return state + batch.features["audio"].sum()

    example = pad_samples([{"audio": BATCH}])
    with forbid_compiles(), pytest.raises(CompileError, match=r"never seen function:\s+warmed_step"):
        warm_up(warmed_step, BatchSpec([example.shape], example), np.float32(0), progress=False)


def test_small_eager_operations_count_too():
    x = jnp.ones(1009)
    with forbid_compiles(), pytest.raises(CompileError, match="'multiply' would be compiled"):
        _ = x * x
    with forbid_compiles("guarded_step"):
        _ = x * x


def test_other_threads_are_guarded(step):
    caught = []

    def work():
        try:
            step(np.float32(0), BATCH[:1])
        except CompileError as error:
            caught.append(error)

    with forbid_compiles():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "now f32[1,2]" in str(caught[0])


def test_the_listeners_exception_stops_the_compilation(step):
    """Undocumented in JAX: an exception from the event that begins a backend compile comes out of the call."""
    with CompileLog() as log, forbid_compiles(), pytest.raises(CompileError):
        step(np.float32(0), BATCH[:2])
    assert log["guarded_step"].traces == 1
    assert log["guarded_step"].backend_compiles == 0


def test_what_compiles_all_the_same_is_reported_after_the_step(step, monkeypatch):
    """Where a version of JAX swallowed the exception, the guard would still see that a compilation ended."""
    monkeypatch.setattr(CompileGuard, "starting", lambda *_: None)
    with forbid_compiles("guarded_step") as guard:
        guard.check()
        step(np.float32(0), BATCH[:2])
        with pytest.raises(CompileError, match="'guarded_step' compiled where nothing may"):
            guard.check()
        guard.check()  # told once
    with pytest.raises(CompileError, match="'guarded_step' compiled"), forbid_compiles():
        step(np.float32(0), BATCH[:1])


def test_an_error_of_the_block_is_not_hidden():
    with pytest.raises(RuntimeError, match="mine"), forbid_compiles() as guard:  # noqa: PT012
        guard.ended(CompileEvent("backend", "let_through", 0.1))
        raise RuntimeError("mine")


def test_guards_nest_and_leave_no_trace(step, caplog):
    assert not jax.config.jax_explain_cache_misses
    with caplog.at_level(logging.WARNING), forbid_compiles("something_else"), forbid_compiles():
        assert jax.config.jax_explain_cache_misses
        with pytest.raises(CompileError, match=r"now f32\[2,2\]"):
            step(np.float32(0), BATCH[:2])
    assert not jax.config.jax_explain_cache_misses
    with forbid_compiles():
        with forbid_compiles():
            pass
        with pytest.raises(CompileError, match=r"now f32\[1,2\]"):  # the outer one still knows why
            step(np.float32(0), BATCH[:1])
    assert caplog.records == [], "JAX's explanation is in the error, not in the log"
    assert logging.getLogger("jax._src.interpreters.partial_eval").filters == []
    step(np.float32(0), BATCH[:2])


def test_whoever_asked_jax_to_explain_still_reads_it(step, caplog):
    jax.config.update("jax_explain_cache_misses", True)
    try:
        with caplog.at_level(logging.WARNING), forbid_compiles(), pytest.raises(CompileError, match="now f32"):
            step(np.float32(0), BATCH[:2])
        assert jax.config.jax_explain_cache_misses
    finally:
        jax.config.update("jax_explain_cache_misses", False)
    assert "TRACING CACHE MISS" in caplog.text


def test_a_helper_in_the_same_file_does_not_explain_the_step():
    """JAX explains the inner function too; its name ends as the outer one's does, and the file's is in both."""

    @jax.jit
    def other_test_guard(x):
        return x * 2

    def test_guard(state, x):
        return other_test_guard(x) + state

    jitted = jax.jit(test_guard)
    jitted(np.float32(0), BATCH)
    with forbid_compiles(), pytest.raises(CompileError, match=r"for test_guard defined at") as caught:
        jitted(np.int32(0), BATCH[:2])
    assert "at state, now i32[] and before f32[]" in str(caught.value)


def test_a_partial_guard_is_quiet_beside_the_cache(tmp_path, caplog):
    with restored_cache_options(), caplog.at_level(logging.WARNING), forbid_compiles("guarded_step"):
        use_compilation_cache(tmp_path / "cache")
        jax.jit(lambda x: x * 3)(BATCH)
    assert caplog.records == []


def test_long_explanations_are_cut_to_the_difference():
    before, now = "a" * 500 + "old" + "b" * 900, "a" * 500 + "new" + "b" * 900
    step = jax.jit(lambda name, batch: batch.sum() + len(name), static_argnums=0)
    step(before, BATCH)
    with forbid_compiles(), pytest.raises(CompileError, match=r"now .*aanewbb.* and before .*aaoldbb.*, so ") as caught:
        step(now, BATCH)
    text = str(caught.value)
    assert len(text) < 600 + len(__file__) * text.count(__file__)
    assert "previously" not in text
