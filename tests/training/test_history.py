"""The record of a training: as a table, and through the JSON of a checkpoint."""

import json

import numpy as np

from multimodal_pad.training import EpochRecord, History
from multimodal_pad.training.run import Run


def test_the_table_marks_the_best_epoch_only():
    history = History(
        EpochRecord(i, 1 / (i + 1), 2.0, {"loss": loss}, best=best, samples_per_second=1e3, padding_efficiency=0.5)
        for i, (loss, best) in enumerate([(3.0, True), (1.0, True), (2.0, False)])
    )
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "eval_loss", "seconds", "samples/s", "real"]
    assert [("*" in line) for line in lines[1:]] == [False, True, False]
    assert lines[2].split() == ["1", "*", "0.5", "1", "2.0", "1,000", "50%"]


def test_a_table_of_nothing_and_of_what_is_not_known():
    assert str(History()) == "no epochs"
    shown = str(History([EpochRecord(0, 0.5, 1.0)]))
    assert shown.splitlines()[1].split() == ["0", "0.5", "1.0", "-", "-"]
    assert "*" not in shown


def test_a_record_goes_through_json():
    history = History([EpochRecord(0, 1.0, 2.0, {"corr": np.nan}, {"rank": np.inf}, best=True, steps=3, shapes=2)])
    run = Run(epoch=1, step=2, steps=5, metric_sums={"a": np.nan}, shapes=["6 x (audio 4)"], history=history)
    record = json.loads(json.dumps(run.to_record({"seed": 0}, {"monitor": "loss"}), allow_nan=False))
    again = Run.from_record(record)
    assert str(again) == str(run)
    assert isinstance(again.history, History)
    assert str(again.history) == str(history)
    assert record["batcher"] == {"seed": 0}


def test_a_record_of_an_older_version_is_read():
    epoch = {"epoch": 0, "train_loss": 0.5, "seconds": 1.0, "evaluation": {"loss": "nan"}}
    old = {
        "epoch": 1, "step": 2, "steps": 9, "loss_sum": 6.0, "samples": 12, "seconds": 0.5, "best_epoch": 0,
        "best_score": 0.5, "history": [epoch], "batcher": {}, "settings": {},
    }  # fmt: skip
    run = Run.from_record(old)
    assert run.loss == 0.5
    assert np.isnan(run.history[0].evaluation["loss"])
    json.dumps(run.to_record({}, {}), allow_nan=False)
