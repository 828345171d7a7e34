import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from multimodal_pad.compiling import CompileLog, forbid_compiles
from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.devices import cpu_environment, without_xla_log

DTYPES = ["bfloat16", "float16", "float32", "float64", "int32", "int64", "uint8", "bool", "complex64"]


class Pair(NamedTuple):
    first: object
    second: object


def make_state(value, size=3000):
    """What a training saves: arrays on the device (large enough for a file of their own) and one on the host."""
    return {
        "leaves": [
            jnp.arange(size, dtype=jnp.float32) + value,
            jnp.arange(5, dtype=jnp.bfloat16) * value,
            jnp.asarray(value, jnp.int32),
        ],
        "best": np.full(7, value, np.float32),
    }


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def zeros(array):
    return np.zeros(array.shape, array.dtype)


def save_steps(folder, *steps):
    with Checkpoints(folder, keep_last=9) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"epoch": step})


def restore(folder, size=3000):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(make_state(0, size))


def assert_restored(folder, step):
    got = restore(folder)
    assert got is not None
    assert (got.step, got.record) == (step, {"epoch": step})
    assert_same(got.state, make_state(step))


def assert_skipped(folder, step, taken):
    with pytest.warns(CheckpointWarning, match=rf"{step} is damaged \(.+\) and is skipped; .*{taken} is taken"):
        assert_restored(folder, taken)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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


def test_whatever_happens_to_a_file_no_wrong_state_is_restored(tmp_path):
    save_steps(tmp_path, 1, 2)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    rng = np.random.default_rng(0)
    skipped = set()
    for file in files:
        whole = file.read_bytes()
        spots = [0, len(whole) // 2, len(whole) - 1, *rng.integers(0, len(whole), 3).tolist()]
        flipped = [whole[:spot] + bytes([whole[spot] ^ rng.integers(1, 256)]) + whole[spot + 1 :] for spot in spots]
        for content in [*flipped, whole[: len(whole) // 2], b"", None]:
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                got = restore(tmp_path)
            assert got is not None
            assert_same(got.state, make_state(got.step))
            assert got.record == {"epoch": got.step}
            assert [w.category for w in warned] == [CheckpointWarning] * (2 - got.step)
            if got.step == 1:
                skipped.add(file.relative_to(tmp_path / "2").parts[0])
        file.write_bytes(whole)
    assert skipped == {"state", "record"}
    assert_restored(tmp_path, 2)


@contextmanager
def changed_record(folder):
    path = folder / "record" / "metadata"
    saved = json.loads(path.read_text())
    yield saved
    path.write_text(json.dumps(saved))


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def change_the_record(folder):
    with changed_record(folder) as saved:
        saved["content"]["record"]["epoch"] = 7


def forget_the_checksum(folder):
    with changed_record(folder) as saved:
        del saved["crc32"]


DAMAGES = {
    "an empty folder": (empty, "record can't be read"),
    "no arrays": (lambda folder: shutil.rmtree(folder / "state"), "state can't be read"),
    "no record": (lambda folder: shutil.rmtree(folder / "record"), "record can't be read"),
    "no JSON": (lambda folder: (folder / "record" / "metadata").write_text("{"), "record can't be read"),
    "not our JSON": (lambda folder: (folder / "record" / "metadata").write_text("[1]"), "not a record of this package"),
    "no checksum": (forget_the_checksum, "not a record of this package"),
    "another record": (change_the_record, "record has changed since it was written"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, damage, why):
    save_steps(tmp_path, 1, 2)
    damage(tmp_path / "2")
    with pytest.warns(CheckpointWarning, match=rf"2 is damaged \(.*{why}.*{tmp_path}/1 is taken"):
        assert_restored(tmp_path, 1)


def test_arrays_of_another_checkpoint_are_not_taken_for_its_own(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    shutil.rmtree(tmp_path / "3" / "state")
    shutil.copytree(tmp_path / "2" / "state", tmp_path / "3" / "state")
    assert_skipped(tmp_path, 3, taken=2)


def test_where_all_are_damaged_nothing_starts_over_in_silence(tmp_path):
    save_steps(tmp_path, 1, 2)
    empty(tmp_path / "1")
    empty(tmp_path / "2")
    with pytest.raises(TrainingError, match=r"all checkpoints in .* are damaged .*start anew"):
        restore(tmp_path)
    assert names(tmp_path) == ["1", "2"]


def test_a_damaged_checkpoint_is_set_aside_when_its_step_is_reached_again(tmp_path):
    save_steps(tmp_path, 1, 2)
    for aside in ("damaged-2", "damaged-2-2"):
        empty(tmp_path / "2")
        with Checkpoints(tmp_path) as checkpoints:
            with pytest.warns(CheckpointWarning, match="2 is damaged"):
                checkpoints.restore(make_state(0))
            assert aside not in names(tmp_path)  # whoever only reads changes nothing
            checkpoints.save(2, make_state(2), {"epoch": 2})
        assert aside in names(tmp_path)
        assert_restored(tmp_path, 2)


def test_what_is_half_written_is_skipped_and_deleted_by_the_next_save(tmp_path):
    save_steps(tmp_path, 1)
    half = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", half)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(CheckpointWarning, match=rf"{half} is half-written.* is skipped; {tmp_path}/1 is taken"):
            checkpoints.restore(make_state(0))
        assert half.exists()
        checkpoints.save(2, make_state(2), {"epoch": 2})
    assert names(tmp_path) == ["1", "2"]
    assert_restored(tmp_path, 2)


def test_a_first_checkpoint_that_is_half_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    with pytest.warns(CheckpointWarning, match=r"half-written.*there is no other, so nothing is restored"):
        assert restore(tmp_path) is None


SAVE_FOR_EVER = """
import itertools, sys, numpy as np
from multimodal_pad.training.checkpoint import Checkpoints
with Checkpoints(sys.argv[1], keep_last=3) as checkpoints:
    for step in itertools.count(1):
        checkpoints.save(step, np.full(200_000, step, np.float32), {"step": step})
        print(step, flush=True)
"""


@pytest.mark.filterwarnings("ignore::multimodal_pad.errors.CheckpointWarning")  # if it was writing, half is there
def test_a_process_that_is_killed_leaves_whole_checkpoints(tmp_path):
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = next(int(line) for line in process.stdout if int(line) == 6)
        process.send_signal(signal.SIGKILL)
    with Checkpoints(tmp_path) as checkpoints:
        got = checkpoints.restore(np.zeros(200_000, np.float32))
        assert got is not None
        assert got.step >= last - 1
        assert got.record == {"step": got.step}
        np.testing.assert_array_equal(got.state, got.step)
        checkpoints.save(got.step + 1, got.state, {"step": got.step + 1})


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


def test_a_write_that_fails_in_the_background_is_named_and_the_next_one_is_well(tmp_path):
    like = np.zeros(3000)  # alone: of several writes Orbax leaves some behind where one fails
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, like + 1, {})
        checkpoints.wait()
        for ask in (checkpoints.wait, checkpoints.close, lambda: checkpoints.save(3, like, {})):
            with file_size_limit(1000):
                checkpoints.save(2, like + 7, {})
                with pytest.raises(TrainingError, match=r"step 2 was not written to .*too large"):
                    ask()
            assert names(tmp_path) == ["1", "2.orbax-checkpoint-tmp"]
        checkpoints.save(2, like + 2, {})
        got = checkpoints.restore(like)
    assert names(tmp_path) == ["1", "2"]
    assert got is not None
    assert_same(got.state, like + 2)


@contextmanager
def file_size_limit(size):
    """As a full disk, for files above the size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
