"""Checkpoints that are saved and restored: bit by bit, the newest and the best, beside a training that goes on."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from multimodal_pad.compiling import CompileLog, forbid_compiles
from multimodal_pad.errors import TrainingError
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.checkpoints import assert_restored, assert_same, make_state, names, restore, save_steps
from tests.helpers.devices import cpu_environment, without_xla_log

DTYPES = ["bfloat16", "float16", "float32", "float64", "int32", "int64", "uint8", "bool", "complex64"]


class Pair(NamedTuple):
    first: object
    second: object


def zeros(array):
    return np.zeros(array.shape, array.dtype)


@st.composite
def arrays(draw):
    """Any bits, NaNs with a payload included; on the device where JAX has the dtype."""
    dtype = jnp.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4))
    size = dtype.itemsize * int(np.prod(shape))
    bits = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    array = (bits % 2 if dtype.kind == "b" else bits).view(dtype).reshape(shape)
    on_device = dtype.itemsize < 8 and draw(st.booleans())
    return jax.device_put(array) if on_device else array


STATES = st.recursive(
    arrays(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.builds(Pair, inner, st.none() | inner),
        st.dictionaries(st.text(max_size=4), inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@given(state=STATES, record=st.dictionaries(st.text(), JSON, max_size=3))
@settings(max_examples=20)
def test_a_restored_checkpoint_is_what_was_saved_bit_by_bit(state, record):
    like = jax.tree.map(lambda x: jax.device_put(zeros(x)) if isinstance(x, jax.Array) else zeros(x), state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        checkpoints.save(0, state, record)
        got = checkpoints.restore(like)
    assert got is not None
    assert_same(got.state, state)
    assert got.record == record
    assert json.dumps(got.record) == json.dumps(record)


def test_the_last_ones_and_the_best_are_kept_also_over_a_new_start(tmp_path):
    losses = {1: 0.5, 2: 0.1, 3: 0.1, 4: 0.7, 5: 0.2, 6: None, 7: 0.9, 8: None}
    for half in ([1, 2, 3, 4], [5, 6, 7, 8]):
        with Checkpoints(tmp_path, keep_last=2, keep_best=3) as checkpoints:
            for step in half:
                checkpoints.save(step, make_state(step), {"epoch": step}, loss=losses[step])
    assert names(tmp_path) == ["2", "3", "5", "7", "8"]
    assert_restored(tmp_path, 8)


def test_none_is_best_without_losses(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, keep_best=2) as checkpoints:
        for step in (3, 7, 8):
            checkpoints.save(step, make_state(step), {})
    assert names(tmp_path) == ["8"]


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    size = 300_000
    state = {"on_device": jnp.zeros(size), "on_host": np.zeros(size, np.float32)}
    on_host = state["on_host"]
    with Checkpoints(tmp_path, keep_last=9) as checkpoints:
        for number in range(1, 6):
            checkpoints.save(number, state, {})
            before = state["on_device"].unsafe_buffer_pointer()
            for _ in range(20):
                state["on_device"] = step(state["on_device"])
            assert state["on_device"].unsafe_buffer_pointer() == before  # saving keeps no hold on the buffer
            on_host += 20
    for number in range(1, 6):
        with Checkpoints(tmp_path) as checkpoints:
            got = checkpoints.restore(state)
        assert got is not None
        assert got.step == 6 - number
        assert_same(got.state, jax.tree.map(lambda x, n=got.step: x * 0 + 20 * (n - 1), state))
        shutil.rmtree(tmp_path / str(got.step))


def test_restoring_compiles_nothing_and_puts_arrays_where_they_were(tmp_path):
    like = make_state(0)
    like["leaves"][0] = jax.device_put(like["leaves"][0], jax.devices()[0])
    save_steps(tmp_path, 1)
    with CompileLog() as log, forbid_compiles(), Checkpoints(tmp_path) as checkpoints:
        got = checkpoints.restore(like)
    assert got is not None
    assert log.total.backend_compiles == 0
    assert [leaf.committed for leaf in got.state["leaves"]] == [True, False, False]


def test_like_may_have_been_donated(tmp_path):
    save_steps(tmp_path, 1)
    like = make_state(0)
    for leaf in like["leaves"]:
        leaf.delete()
    with Checkpoints(tmp_path) as checkpoints:
        got = checkpoints.restore(like)
    assert got is not None
    assert_same(got.state, make_state(1))


MESH = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from multimodal_pad.compiling import forbid_compiles
from multimodal_pad.training.checkpoint import Checkpoints
mesh = Mesh(np.array(jax.devices()), ("data",))
layouts = [NamedSharding(mesh, PartitionSpec(axis)) for axis in ("data", None)]
state = [jax.device_put(np.arange(6.0, dtype=np.float32), layout) for layout in layouts]
with forbid_compiles(), Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, state, {})
    got = checkpoints.restore(state).state
assert [leaf.sharding for leaf in got] == layouts
assert [len(leaf.addressable_shards) for leaf in got] == [2, 2]
assert all(np.asarray(leaf).tolist() == list(range(6)) for leaf in got)
"""


@pytest.mark.slow
def test_arrays_over_two_devices_come_back_as_they_were_laid_out(tmp_path):
    command = [sys.executable, "-W", "error", "-c", MESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_it_says_nothing_and_leaves_no_threads(tmp_path, capfd):
    before = threading.enumerate()
    save_steps(tmp_path, 1, 2, 3)
    assert_restored(tmp_path, 3)
    assert threading.enumerate() == before
    out, errors = capfd.readouterr()
    assert (out, without_xla_log(errors)) == ("", "")


def test_an_empty_folder_gives_nothing_and_is_left_alone(tmp_path):
    assert restore(tmp_path / "absent") is None
    assert restore(tmp_path) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda state: state | {"more": np.zeros(2)}, r"nothing at state\['more'\].*has float64\[2\]"),
        (lambda state: {"leaves": state["leaves"]}, r"float32\[7\] at state\['best'\].*has nothing"),
        (lambda state: state | {"best": np.zeros(8, np.float32)}, r"float32\[7\] at .*'best'.*has float32\[8\]"),
        (lambda state: state | {"best": np.zeros(7, np.int32)}, r"float32\[7\] at .*'best'.*has int32\[7\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_an_error_and_not_damage(tmp_path, change, difference):
    save_steps(tmp_path, 1, 2)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(TrainingError, match=f"{difference}.*another model or optimizer"),
    ):
        checkpoints.restore(change(make_state(0)))


def test_a_step_must_be_above_the_last(tmp_path):
    save_steps(tmp_path, 4)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 4):
            with pytest.raises(TrainingError, match=rf"got step {step}, and .* has a checkpoint of step 4; go on"):
                checkpoints.save(step, make_state(step), {})
        checkpoints.save(5, make_state(5), {"epoch": 5})
    assert_restored(tmp_path, 5)


@pytest.mark.parametrize("value", [(1, 2), np.int64(1), np.zeros(2), float("nan"), {1: 2}, object()])
def test_what_json_would_not_give_back_is_named(tmp_path, value):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(TrainingError, match=r"record\['odd'\] would not come back"),
    ):
        checkpoints.save(1, make_state(1), {"even": 2, "odd": [value]})


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (1.5, r"state\['odd'\] is a float.*keep it in the record"),
        ("text", r"state\['odd'\] is a str"),
        (jax.random.key(0), r"state\['odd'\] is key.*random key as"),
        (np.array(["text"]), r"state\['odd'\] is <U4\[1\]"),
        (np.zeros(2, ">f4"), r"state\['odd'\] is >f4\[2\].*byte order"),
        (np.zeros((0, 3)), r"state\['odd'\] is float64\[0, 3\].*at least one number"),
    ],
)
def test_a_state_is_of_arrays(tmp_path, leaf, message):
    with Checkpoints(tmp_path) as checkpoints:
        for use in (lambda state: checkpoints.save(1, state, {}), checkpoints.restore):
            with pytest.raises(TrainingError, match=message):
                use({"odd": leaf})


def test_a_state_has_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TrainingError, match="without arrays"):
        checkpoints.save(1, {}, {})


@pytest.mark.parametrize(
    ("step", "loss", "message"),
    [
        (-1, None, "step=-1; it must be a whole number"),
        (1.5, None, "step=1.5"),
        (1, float("nan"), "loss=nan at step 1"),
    ],
)
def test_steps_are_whole_and_losses_finite(tmp_path, step, loss, message):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TrainingError, match=message):
        checkpoints.save(step, make_state(1), {}, loss=loss)


def test_options_out_of_range_are_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(TrainingError, match="keep_last=0; it must be a whole number, at least 1"):
        Checkpoints(tmp_path, keep_last=0)
    with pytest.raises(TrainingError, match="keep_best=-1; it must be a whole number, at least 0"):
        Checkpoints(tmp_path, keep_best=-1)
    for directory in (file, "gs://bucket/run"):
        with pytest.raises(TrainingError, match="not a local folder"):
            Checkpoints(directory)


def test_a_checkpoint_is_replaced(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(1), {"epoch": 1})
        with pytest.raises(TrainingError, match="has a checkpoint of step 3"):
            checkpoints.save(3, make_state(3), {"epoch": 3})
        checkpoints.save(3, make_state(3), {"epoch": 3}, replace=True)
    assert names(tmp_path) == ["3"]
    assert_restored(tmp_path, 3)


@pytest.mark.parametrize("whole", [False, True])
def test_killed_while_one_is_replaced_the_old_one_or_the_new_one_is_there(whole, tmp_path):
    save_steps(tmp_path, 3)
    (tmp_path / "3").rename(tmp_path / "replaced-3")
    if whole:
        save_steps(tmp_path, 3)
    assert_restored(tmp_path, 3)
    assert names(tmp_path) == ["3"]
