"""The ready writers: whole lines, no step twice, and files that others read."""

import csv
import json

import numpy as np
import pytest

from multimodal_pad.errors import TrainingError
from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.logs import CsvLog, JsonLinesLog, TensorBoardLog
from tests.helpers.training import MeanModel, make_batcher


def step(number, **more):
    return {"event": "step", "steps": number, "loss": 1 / number, **more}


def epoch(steps, **more):
    return {"event": "epoch", "steps": steps, "train_loss": 0.5, **more}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_are_there_at_once(tmp_path):
    log = JsonLinesLog(tmp_path / "new" / "run.jsonl")
    for number in (1, 2):
        log(step(number))
        assert lines(tmp_path / "new" / "run.jsonl")[-1] == step(number)


def test_what_is_no_number_is_null(tmp_path):
    JsonLinesLog(tmp_path / "run.jsonl")({"event": "epoch", "steps": 3, "eval_corr": np.nan, "eval_mae": float("inf")})
    (line,) = lines(tmp_path / "run.jsonl")
    assert line == {"event": "epoch", "steps": 3, "eval_corr": None, "eval_mae": None}


def test_names_and_words_are_quoted(tmp_path):
    record = {"event": 'a "word"', "steps": 3, "50 %s": 1.5e-300, "\n": True, "é": None}
    JsonLinesLog(tmp_path / "run.jsonl")(record)
    assert lines(tmp_path / "run.jsonl") == [record]


def test_what_comes_again_is_cut_off(tmp_path):
    """Two steps an epoch; the run was killed in a write, after step 5, and goes on from the end of the first epoch."""
    path, compiled = tmp_path / "run.jsonl", {"event": "compile", "seconds": 1.0}
    before = [compiled, step(1), step(2), epoch(2), step(3), step(4), epoch(4), step(5)]
    path.write_text("".join(json.dumps(record) + "\n" for record in before) + '{"event": "st')
    log = JsonLinesLog(path)
    log(compiled)
    assert lines(path) == [*before, compiled]
    log(step(3))
    assert lines(path) == [compiled, step(1), step(2), epoch(2), compiled, step(3)]
    log(step(4))
    log(epoch(4))
    assert lines(path)[-2:] == [step(4), epoch(4)]


def test_an_epoch_that_comes_first_keeps_its_last_step(tmp_path):
    path = tmp_path / "run.jsonl"
    first = JsonLinesLog(path)
    for record in (step(1), step(2), epoch(2, train_loss=9.0), step(3)):
        first(record)
    JsonLinesLog(path)(epoch(2))
    assert lines(path) == [step(1), step(2), epoch(2)]


def test_rows_of_a_table(tmp_path):
    path = tmp_path / "steps.csv"
    first = CsvLog(path)
    for number in (1, 2, 3):
        first(step(number, shape="6 x (audio 4, text 2)"))
    with path.open("a") as file:
        file.write("step,4")
    again = CsvLog(path)
    for number in (3, 4):
        again(step(number, shape="other"))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["steps"], row["shape"]) for row in rows] == [
        ("1", "6 x (audio 4, text 2)"),
        ("2", "6 x (audio 4, text 2)"),
        ("3", "other"),
        ("4", "other"),
    ]
    assert float(rows[2]["loss"]) == 1 / 3


def test_a_table_is_of_one_event_and_of_the_names_of_the_first(tmp_path):
    log = CsvLog(tmp_path / "run.csv")
    log(step(1))
    with pytest.raises(TrainingError, match=r"got a record of 'epoch' .*give each event its own file"):
        log(epoch(1))
    with pytest.raises(TrainingError, match=r"with \['rate'\], and the columns"):
        log(step(2, rate=0.5))
    with pytest.raises(TrainingError, match=r"has the columns \['event', 'steps', 'loss'\] and the record .*'rate'"):
        CsvLog(tmp_path / "run.csv")(step(2, rate=0.5))
    CsvLog(tmp_path / "run.csv")(step(1, rate=0.5))  # nothing is left of the old one
    assert (tmp_path / "run.csv").read_text() == "event,steps,loss,rate\nstep,1,1.0,0.5\n"


def test_a_run_that_goes_on_logs_each_step_once(tmp_path):
    def run(checkpoints, *more):
        logs = {"on_step": [CsvLog(tmp_path / "steps.csv"), log, *more], "on_epoch": log, "on_compile": log}
        options = {"optimizer": make_optimizer(0.1), "checkpoints": checkpoints, "save_every": 2}
        return fit(MeanModel(), make_batcher(), epochs=2, **logs, **options, progress=False)

    def fail(record):
        if record["steps"] == 11:
            raise RuntimeError("so far")

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        log = JsonLinesLog(tmp_path / "run.jsonl")
        with pytest.raises(RuntimeError):
            run(checkpoints, fail)
        log = JsonLinesLog(tmp_path / "run.jsonl")
        result = run(checkpoints)
    found = lines(tmp_path / "run.jsonl")
    assert [line["steps"] for line in found if line["event"] == "step"] == list(range(1, 15))
    losses = [line["train_loss"] for line in found if line["event"] == "epoch"]
    assert losses == [record.train_loss for record in result.history]
    with (tmp_path / "steps.csv").open(newline="") as file:
        assert [int(row["steps"]) for row in csv.DictReader(file)] == list(range(1, 15))


def test_tensorboard_files_hold_the_names(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path)
    log({"event": "compile", "seconds": 1.0})
    log(step(1, shape="6 x (audio 4)"))
    log(epoch(1, best=True))
    log.close()
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert all(name in written for name in (b"step/loss", b"epoch/train_loss", b"epoch/best"))
    assert b"shape" not in written


def test_tensorboard_needs_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr("multimodal_pad.training.logs.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r'install it with pip install "multimodal-pad\[tensorboard\]"'):
        TensorBoardLog(tmp_path)
