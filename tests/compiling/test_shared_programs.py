"""Shapes, tables and processes that share a program compile it once, and leave whole entries in the cache."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import BatchShape, BatchSpec, pad_samples
from multimodal_pad.compiling import CompileLog, StepTable, use_compilation_cache, warm_up, warm_up_all
from tests.helpers.caches import all_whole, entries, no_cache, restored_cache_options
from tests.helpers.devices import without_xla_log

EXAMPLE = pad_samples([{"audio": np.ones((2, 3), np.float32)}])
SHAPES = [BatchShape.of(2, {"audio": length}) for length in (4, 8, 16, 32)]


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A new cache folder that is in use."""
    with restored_cache_options():
        yield use_compilation_cache(tmp_path / "cache")


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.long)])
def test_threads_compile_a_shared_program_once(folder, times):
    """Nothing of the batch is used, so that all shapes have one program. A warning would be an error."""
    for number in range(times):

        def shared_step(state, _batch, number=number):
            return state + number

        with CompileLog() as log:
            table = warm_up(shared_step, BatchSpec(SHAPES, EXAMPLE), np.float32(0), progress=False)
        counts = log["shared_step"]
        assert (counts.compiled, counts.cache_hits, len(table)) == (1, 3, 4)
    assert len(entries(folder)) == times
    assert all_whole(folder)


@pytest.mark.usefixtures("folder")
def test_shapes_of_a_shared_program_still_check_their_arguments():
    table = warm_up(lambda state, _batch: state, BatchSpec(SHAPES[:2], EXAMPLE), np.float32(1), progress=False)
    longer = pad_samples([{"audio": np.ones((8, 3), np.float32)}], batch_size=2)
    assert float(table(np.float32(1), longer)) == 1
    with pytest.raises(TypeError, match=r"compiled with float32\[2,4,3\] and called with float32\[2,8,3\]"):
        table.steps[SHAPES[0]].call(np.float32(1), longer)


def test_without_a_cache_every_shape_is_compiled():
    def shared_step(state, _batch):
        return state + 1

    with no_cache(), CompileLog() as log:
        warm_up(shared_step, BatchSpec(SHAPES, EXAMPLE), np.float32(0), progress=False)
    assert log["shared_step"].compiled == 4


@pytest.mark.usefixtures("folder")
def test_two_tables_of_one_program():
    def new_table():
        def shared_step(state, batch):
            return state + batch.features["audio"].sum()

        return StepTable(shared_step)

    tables = [new_table(), new_table()]
    with CompileLog() as log:
        warm_up_all([(table, BatchSpec(SHAPES, EXAMPLE)) for table in tables], np.float32(0), progress=False)
    assert (log["shared_step"].compiled, log["shared_step"].cache_hits) == (4, 4)


# Processes

PROCESS = """
import sys, time
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from multimodal_pad import BatchShape, BatchSpec, pad_samples
from multimodal_pad.compiling import CompileLog, use_compilation_cache, warm_up

me, other, top, rounds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
example = pad_samples([{"audio": np.ones((2, 3), np.float32)}])
shapes = [BatchShape.of(2, {"audio": length}) for length in (4, 8, 16, 32)]
for number in range(rounds):
    def shared_step(state, batch):
        return state + number
    def used_step(state, batch):
        return state + batch.features["audio"].sum()
    jax.clear_caches()
    use_compilation_cache(top / str(number))
    (top / f"{me}{number}").touch()
    while not (top / f"{other}{number}").exists():
        time.sleep(0.001)
    with CompileLog() as log:
        for step in (shared_step, used_step):
            warm_up(step, BatchSpec(shapes, example), jnp.zeros(()) + number, progress=False)
    assert log["shared_step"].compiled <= 1, log["shared_step"]
    assert log["used_step"].compiled <= 4, log["used_step"]
"""


def run_pair(top: Path, rounds: int) -> None:
    """Two processes that use the same new folders at the same time."""
    command = [sys.executable, "-W", "error", "-c", PROCESS]
    pair = [
        subprocess.Popen([*command, *names, str(top), str(rounds)], stderr=subprocess.PIPE, text=True)
        for names in ("ab", "ba")
    ]
    try:
        errors = [without_xla_log(process.communicate(timeout=300)[1]) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [(process.returncode, text) for process, text in zip(pair, errors, strict=True)] == [(0, "")] * 2
    for number in range(rounds):
        assert len(entries(top / str(number))) >= 5
        assert all_whole(top / str(number))


@pytest.mark.slow
def test_a_pair_of_processes_on_new_folders(tmp_path):
    run_pair(tmp_path, rounds=5)


@pytest.mark.long
def test_twenty_pairs_of_processes(tmp_path):
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        run_pair(tmp_path / str(number), rounds=1)
