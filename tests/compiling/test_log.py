import re

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad import pad_samples
from multimodal_pad.compiling import CompileLog, StepTable, use_compilation_cache
from tests.helpers.caches import no_cache, restored_cache_options


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


def test_a_log_that_is_open_twice_counts_once():
    def twice_logged(x):
        return x + 1

    log = CompileLog()
    with log:
        with log:
            jax.jit(twice_logged)(np.zeros(2))
        jax.jit(twice_logged)(np.zeros(3))
    with log:
        jax.jit(twice_logged)(np.zeros(4))
    assert log["twice_logged"].backend_compiles == 3


def test_cache_hits_are_told_from_compiles(tmp_path):
    """A hit in the persistent cache is a backend event too; the log says how many of them were hits."""

    def cached_step(x):
        return jnp.sin(x) @ x

    with restored_cache_options():
        use_compilation_cache(tmp_path / "cache")
        with CompileLog() as cold:
            jax.jit(cached_step)(np.ones(7, np.float32))
        jax.clear_caches()
        with CompileLog() as warm:
            jax.jit(cached_step)(np.ones(7, np.float32))
    first, second = cold["cached_step"], warm["cached_step"]
    assert (first.backend_compiles, first.cache_hits, first.cache_misses, first.compiled) == (1, 0, 1, 1)
    assert (second.backend_compiles, second.cache_hits, second.cache_misses, second.compiled) == (1, 1, 0, 0)
    assert first.cache_seconds == first.saved_seconds == 0
    assert 0 < second.cache_seconds <= second.backend_seconds
    assert cold.report().endswith("the compilation cache had 0 of 1 programs")
    assert cold.cache_report() == ["the compilation cache had 0 of 1 programs"]
    line = r"the compilation cache had 1 of 1 programs: \d+\.\d s of reading instead of \d+ s of compiling"
    assert re.search(line, warm.report())


@no_cache()
def test_the_report_has_a_line_per_function():
    def reported_step(state, batch):
        return state + batch.features["audio"].sum()

    def other_step(x):
        return x * 2

    table = StepTable(reported_step)
    with CompileLog() as log:
        for length in (3, 4):
            table(np.float32(0), pad_samples([{"audio": np.ones((length, 2), np.float32)}]))
        jax.jit(other_step)(np.ones(3))
        jax.jit(lambda x: x - 1)(np.ones(3))
    heading, line, others = log.report("reported_step").splitlines()
    assert heading.split() == ["function", "shapes", "traces", "compiled", "from", "cache", "seconds"]
    assert line.split()[:5] == ["reported_step", "2", "2", "2", "0"]
    assert float(line.split()[5]) == round(log["reported_step"].seconds, 1)
    assert others.startswith("2 others")
    assert others.split()[2:5] == ["2", "2", "0"]
    everything = log.report().splitlines()[1:]
    assert {row.split()[0] for row in everything} >= {"reported_step", "other_step"}
    assert "reported_step" not in CompileLog().report()
