"""Checkpoints that are damaged or half-written: none is taken for whole, and the one before it is restored."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.checkpoints import (
    assert_restored,
    assert_same,
    assert_skipped,
    make_state,
    names,
    restore,
    save_steps,
)


@pytest.mark.slow
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
            assert aside not in names(tmp_path)  # reading alone changes nothing
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


@pytest.mark.slow
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
