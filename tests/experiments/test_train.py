import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments.lib import configs
from experiments.train.__main__ import main, markdown, start_processes
from multimodal_pad.sources import Mult, convert
from tests.helpers.corpora import write_meld, write_mmsa, write_mult
from tests.helpers.devices import cpu_environment

# A tiny run's few samples of the dev split are not served as well as those that the plan is made for.
pytestmark = pytest.mark.filterwarnings("ignore::multimodal_pad.PlanWarning")


def run(out, *options):
    assert main(["--quick", "--dropout", "0", "--out", str(out), *options]) == 0
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def run_text(out, *options):
    return run(out, "--modalities", "text", *options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_text(tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.experiment
def test_a_quick_run_says_everything(alone):
    assert (alone["processes"], len(alone["history"]), alone["samples"]["train"]) == (1, 1, 64)
    assert set(alone["test"]) == {"loss", "accuracy", "weighted_f1"}
    assert "Epoch 0 on test: loss" in markdown(alone)


@pytest.mark.experiment
def test_two_processes_come_to_the_same(tmp_path):
    """Processes of one machine run on its CPU, and so does the one that they are compared with."""
    command = [sys.executable, "-m", "experiments.train", "--quick", "--dropout", "0", "--modalities", "text"]
    subprocess.run([*command, "--out", str(tmp_path / "one")], check=True, env=cpu_environment())
    alone = json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))
    both = run_text(tmp_path / "run", "--processes", "2", "--checkpoints", str(tmp_path / "checkpoints"))
    assert both["processes"] == 2
    assert both["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=1e-5)
    assert both["test"]["loss"] == pytest.approx(alone["test"]["loss"], rel=1e-4)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["8"]


FILES = {
    "mosi": (partial(write_mult, corpus="mosi"), {"acc7", "acc2_has0", "f1_non0", "mae", "corr"}),
    "mosei": (partial(write_mult, corpus="mosei_senti", nonfinite=True), {"acc5"}),
    "iemocap": (partial(write_mult, corpus="iemocap"), {"happy_f1", "neutral_accuracy"}),
    "ch_sims": (partial(write_mmsa, corpus="sims"), {"acc3", "f1"}),
    "meld": (write_meld, {"accuracy", "weighted_f1"}),
}


@pytest.mark.experiment
@pytest.mark.parametrize("name", FILES)
def test_every_corpus_trains_from_a_file_in_its_format(name, tmp_path):
    write, figures = FILES[name]
    written = write(tmp_path / "files")
    if name == "ch_sims":
        written.path.rename(written.path.with_name("unaligned_39.pkl"))
    results = run_text(tmp_path / "run", "--config", name, "--data-dir", str(tmp_path / "files"))
    assert figures < set(results["test"])
    assert list(results["samples"].values()) == [len(samples) for samples in written.splits.values()]
    assert np.isfinite(results["history"][0]["train_loss"])
    assert set(results["config"]["kernel_sizes"]) >= {"audio", "visual"}
    assert "Expected" in import_module(f"experiments.lib.configs.{name}").__doc__


def test_every_configuration_has_a_test():
    assert sorted([*FILES, "synthetic"]) == configs.NAMES


@pytest.mark.experiment
def test_a_flat_cache_under_fixed_padding(tmp_path):
    written = write_mult(tmp_path / "files")
    convert({split: Mult(written.path, split) for split in written.splits}, tmp_path / "cache")
    options = ["--config", "mosi", "--data-dir", str(tmp_path / "cache"), "--padding", "fixed"]
    options += ["--modalities", "visual"]
    results = run(tmp_path / "run", *options)
    assert (results["shapes"], list(results["padding_efficiency"])) == (1, ["visual", "total"])
    assert np.isfinite(results["test"]["mae"])


@pytest.mark.slow
def test_packed_training_has_one_program_for_all_splits(tmp_path):
    results = run_text(tmp_path / "run", "--padding", "packed")
    assert results["shapes"] == 1
    assert results["padding_efficiency"]["text"] > 0.8
    assert np.isfinite(results["test"]["loss"])


@pytest.mark.experiment
def test_two_processes_share_packed_batches(tmp_path):
    both = run_text(tmp_path / "run", "--padding", "packed", "--processes", "2")
    assert both["processes"] == 2
    assert np.isfinite(both["test"]["loss"])


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "experiments.train", "--quick", "--modalities", "text", "--processes", "2"]
    with subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True) as process:
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


def test_ctrl_c_while_a_process_is_being_started(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            if len(started) == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("subprocess.Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_processes(2, ["--quick", "--modalities", "text"])
    assert len(started) == 2
    assert all(process.returncode for process in started)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "got --processes 0; it must be at least 1"),
        (["--data-dir", "here"], "got --data-dir here for synthetic utterances; name the corpus"),
        (["--config", "meld"], "give --data-dir, the folder of the three tables of MELD, or a flat cache"),
        (["--config", "meld", "--data-dir", "nowhere"], "nowhere"),
        (
            ["--config", "mosi", "--data-dir", "nowhere"],
            "nowhere: holds neither mosi_data_noalign.pkl nor manifest.json",
        ),
        (["--save-every", "3"], "save_every=3"),
        (["--padding", "packed", "--grouping", "random"], "got --grouping random for packed padding"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
