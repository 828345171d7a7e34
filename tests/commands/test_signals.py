"""Commands that are stopped: from their first import on they end in a line, with a status, and leave nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from multimodal_pad.sources import convert

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

SLOW = """
import sys, time
from pathlib import Path
from multimodal_pad import cli
from multimodal_pad.commands import convert
from multimodal_pad.output import write_folder

def slow(splits, out, **_):
    with write_folder(Path(out)) as folder:
        (folder / "half").write_text("")
        print("writing", flush=True)
        time.sleep(60)

convert.convert = slow
sys.exit(cli.main(["convert", "numpy_dir", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals") / "cache"
    convert({"train": [{"text": np.ones((2, 3), np.float32)}]}, folder)
    return folder


def writing(cache, out):
    """A conversion that has begun to write."""
    command = [sys.executable, "-c", SLOW, str(cache), str(out)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "writing\n"
    return run


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_conversion_that_is_stopped_leaves_nothing(cache, tmp_path, number):
    run = writing(cache, tmp_path / "out")
    assert [path.name.endswith(".part") for path in tmp_path.iterdir()] == [True]
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
    assert (run.returncode, error) == (STATUS[number], "stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_leaves_is_removed_by_the_next_and_not_what_another_writes(cache, tmp_path):
    killed, alive = writing(cache, tmp_path / "one"), writing(cache, tmp_path / "two")
    killed.kill()
    killed.communicate(timeout=60)
    assert len(list(tmp_path.iterdir())) == 2
    convert({"train": [{"text": np.ones((2, 3), np.float32)}]}, tmp_path / "three")
    names = sorted(path.name for path in tmp_path.iterdir())
    alive.terminate()
    alive.communicate(timeout=60)
    assert names[1:] == ["three"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["three"]


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
@pytest.mark.parametrize("after", ["multimodal_pad.signals", "multimodal_pad.planning", "rich.console"])
def test_a_command_that_is_stopped_while_it_starts_ends_in_a_line(number, after, tmp_path):
    """Python tells of each import that has ended; after the first of ours a signal must not be a traceback."""
    if after != "multimodal_pad.planning" and number != signal.SIGINT:
        pytest.skip("one place is enough")
    command = [sys.executable, "-X", "importtime", "-m", "multimodal_pad.cli", "plan", str(tmp_path / "none.csv")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    for line in run.stderr:
        if line.split("|")[-1].strip().startswith(after):
            break
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
    told = [line for line in error.splitlines() if not line.startswith("import time:")]
    if run.returncode == 2:  # it had ended before
        assert told == [f"error: [Errno 2] No such file or directory: '{tmp_path / 'none.csv'}'"]
    else:
        assert (run.returncode, told) == (STATUS[number], ["stopped"])


def test_what_is_ignored_stays_ignored(cache, tmp_path):
    """As nohup does it with the end of the terminal."""
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{SLOW.replace('60', '2')}"
    command = [sys.executable, "-c", code, str(cache), str(tmp_path / "out")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "writing\n"
    run.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert run.poll() is None
    run.terminate()
    assert run.wait(timeout=60) == 143
    run.communicate()
