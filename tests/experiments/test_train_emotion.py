import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.train_emotion import main, markdown

# A tiny run's few samples of the dev split are not served as well as those that the plan is made for.
pytestmark = pytest.mark.filterwarnings("ignore::multimodal_pad.PlanWarning")


def run(out, *options):
    assert main(["--quick", "--dropout", "0", "--out", str(out), *options]) == 0
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone") / "run")


def test_a_quick_run_says_everything(alone):
    assert (alone["processes"], len(alone["history"]), alone["samples"]["train"]) == (1, 1, 64)
    assert set(alone["test"]) == {"loss", "accuracy", "weighted_f1"}
    assert "on the test split: loss" in markdown(alone)


def test_two_processes_come_to_the_same(alone, tmp_path):
    both = run(tmp_path / "run", "--processes", "2", "--checkpoints", str(tmp_path / "checkpoints"))
    assert both["processes"] == 2
    assert both["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=1e-5)
    assert both["test"]["loss"] == pytest.approx(alone["test"]["loss"], rel=1e-4)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["8"]


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "experiments.train_emotion", "--quick", "--processes", "2"]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        deadline = time.monotonic() + 60
        while len(started := children.read_text().split()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    for child in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "got --processes 0; it must be at least 1"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["--save-every", "3"], "save_every=3"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
