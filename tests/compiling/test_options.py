"""Compiler options: what reaches XLA, what is left out, and who is told."""

import os
import subprocess
import sys
import threading
import time
import warnings

import jax
import numpy as np
import pytest

from multimodal_pad import BatchShape, BatchSpec, LengthTable, PaddingError, pad_samples, plan_shapes
from multimodal_pad.compiling import (
    StepTable,
    calibrate,
    default_options,
    default_threads,
    fit_batch_sizes,
    options,
    warm_up,
    warming,
)
from multimodal_pad.errors import CompilerOptionWarning

EXAMPLE = pad_samples([{"text": np.ones(3, np.float32)}])
SHAPES = [BatchShape.of(2, {"text": length}) for length in (4, 8)]
KNOWN = {"xla_cpu_enable_fast_min_max": True}


@pytest.fixture
def no_flags(monkeypatch):
    """As where the user has set none; the tests' own are in force all the same, since XLA has read them."""
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.fixture
def passed(monkeypatch):
    """The compiler options of each compilation, as XLA is handed them."""
    from jax._src import compiler

    seen = []
    real = compiler.backend_compile_and_load

    def record(*arguments, **named):
        found = [x for x in (*arguments, *named.values()) if hasattr(x, "env_option_overrides")]
        seen.append(dict(found[0].env_option_overrides))
        return real(*arguments, **named)

    monkeypatch.setattr(compiler, "backend_compile_and_load", record)
    return seen


def new_step():
    """A step that no cache has a program of."""
    constant = np.random.default_rng().random(dtype=np.float32)

    def step(state, batch):
        return state + batch.features["text"].sum() + constant

    return step


@pytest.mark.usefixtures("no_flags")
def test_options_reach_xla_from_every_call(passed):
    plan = plan_shapes(LengthTable(("text",), np.array([[3], [4], [9]])), max_shapes=1)
    state, given = np.float32(0), {"compiler_options": KNOWN}
    calls = [
        lambda: StepTable(new_step(), **given)(state, EXAMPLE),
        lambda: warm_up(new_step(), BatchSpec(SHAPES[:1], EXAMPLE), state, progress=False, **given),
        lambda: calibrate(new_step(), BatchSpec(SHAPES, EXAMPLE), state, **given),
        lambda: fit_batch_sizes(new_step(), plan, state, EXAMPLE, bytes_limit=1e4, progress=False, **given),
    ]
    for call in calls:
        passed.clear()
        call()
        assert passed
        assert any(wanted == {**default_options(), **KNOWN} for wanted in passed), passed


@pytest.mark.usefixtures("no_flags")
def test_what_is_given_comes_on_top_of_the_defaults(passed, monkeypatch):
    monkeypatch.setitem(options.DEFAULTS, jax.default_backend(), {"xla_backend_optimization_level": 1, **KNOWN})
    table = StepTable(new_step(), compiler_options={"xla_backend_optimization_level": 2})
    table(np.float32(0), EXAMPLE)
    assert passed[-1] == {"xla_backend_optimization_level": 2, **KNOWN} == table.compiler_options


@pytest.mark.usefixtures("no_flags")
def test_an_unknown_option_is_left_out_with_one_warning():
    table = StepTable(new_step(), compiler_options={"xla_of_the_future": 1, **KNOWN})
    with pytest.warns(
        CompilerOptionWarning, match="'xla_of_the_future', which this version of XLA does not have"
    ) as told:
        warm_up(table, BatchSpec(SHAPES, EXAMPLE), np.float32(0), progress=False)
    assert len(told) == 1
    assert len(table) == 2
    assert table.compiler_options == {**default_options(), **KNOWN}


@pytest.mark.usefixtures("no_flags")
def test_an_unknown_default_is_left_out_in_silence(monkeypatch):
    monkeypatch.setitem(options.DEFAULTS, jax.default_backend(), {"xla_of_the_past": True})
    table = StepTable(new_step())
    table(np.float32(0), EXAMPLE)
    assert table.compiler_options == {}


@pytest.mark.usefixtures("no_flags")
def test_a_value_that_xla_refuses_is_an_error_that_has_the_options():
    table = StepTable(new_step(), compiler_options={"xla_backend_optimization_level": "high"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_backend_optimization_level") as raised:
        table(np.float32(0), EXAMPLE)
    assert any("compiler options: " in note for note in raised.value.__notes__)


def test_xla_flags_win(monkeypatch, passed):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3 --xla_cpu_enable_fast_min_max")
    monkeypatch.setitem(options.DEFAULTS, jax.default_backend(), {"xla_backend_optimization_level": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StepTable(new_step())(np.float32(0), EXAMPLE)  # a default gives way in silence
    assert passed[-1] == {}
    with pytest.warns(CompilerOptionWarning, match="which XLA_FLAGS sets, too"):
        table = StepTable(new_step(), compiler_options=KNOWN)
    table(np.float32(0), EXAMPLE)
    assert passed[-1] == {}


def test_options_for_a_table_that_has_its_own():
    with pytest.raises(PaddingError, match="got compiler_options for the table of 'step'"):
        warm_up(StepTable(new_step()), BatchSpec(SHAPES, EXAMPLE), np.float32(0), compiler_options=KNOWN)


def test_xla_dumps_what_it_was_told(tmp_path):
    """From XLA itself: the options are in the configuration that it writes down for the module."""
    program = (
        "import numpy as np; from multimodal_pad import pad_samples; from multimodal_pad.compiling import StepTable\n"
        "def dumped(state, batch): return state + batch.features['text'].sum()\n"
        f"StepTable(dumped, compiler_options={{'xla_dump_to': {str(tmp_path)!r}, 'xla_backend_optimization_level': 1}})"
        "(np.float32(0), pad_samples([{'text': np.ones(3, np.float32)}]))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)
    (written,) = tmp_path.glob("*dumped*debug_options")
    assert "xla_backend_optimization_level: 1\n" in written.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("platform", "cores", "wanted"), [("cpu", 1, 1), ("cpu", 2, 2), ("cpu", 64, 8), ("gpu", 16, 8), ("tpu", 4, 2)]
)
def test_threads_follow_from_the_cores_and_the_backend(platform, cores, wanted):
    assert default_threads(platform, cores) == wanted


@pytest.mark.parametrize(("platform", "alone"), [("gpu", True), ("cpu", False)])
def test_on_a_gpu_the_first_program_is_compiled_alone(monkeypatch, platform, alone):
    monkeypatch.setattr(warming.jax, "default_backend", lambda: platform)
    shapes = [BatchShape.of(2, {"text": length}) for length in (3, 4, 5, 6)]
    all_lowered, finished, before = threading.Event(), [], []
    lower, finish = StepTable.lower, StepTable.finish

    def note_lowered(self, state, batch):
        lowered = lower(self, state, batch)
        if batch.shape == shapes[0]:  # the smallest comes last
            all_lowered.set()
        return lowered

    def note_finished(self, shape, *rest):
        before.append(len(finished))
        if shape == shapes[-1]:
            assert all_lowered.wait(60)
            time.sleep(0.1)  # in which others would begin, if they were let
        result = finish(self, shape, *rest)
        finished.append(shape)
        return result

    monkeypatch.setattr(StepTable, "lower", note_lowered)
    monkeypatch.setattr(StepTable, "finish", note_finished)
    warm_up(new_step(), BatchSpec(shapes, EXAMPLE), np.float32(0), threads=3, progress=False)
    assert (min(before[1:]) > 0) == alone
