"""Quick runs of the experiments on conversion, reading and MELD's quality."""

import json

import numpy as np
import pytest

from experiments.quality import __main__ as quality
from experiments.sources import conversion, feature_files, reading
from tests.helpers.corpora import write_meld

pytestmark = pytest.mark.filterwarnings("ignore::multimodal_pad.PlanWarning")


def results_of(experiment, out, *options):
    assert experiment.main(["--quick", "--out", str(out), *options]) == 0
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


@pytest.mark.experiment
def test_conversion(tmp_path, monkeypatch):
    write_meld(tmp_path, features=False)
    monkeypatch.chdir(tmp_path)
    results = results_of(conversion, tmp_path / "run", "--data-dir", str(tmp_path))
    mosi, meld = results["rows"]
    assert mosi["padded_to"] == {"text": 50, "audio": 375, "visual": 500}
    assert list(mosi["policies"]) == ["fixed, as in the file", "fixed, longest", "exact, random", "planned 8, length"]
    costs = [row["cost"] for row in mosi["policies"].values()]
    assert costs[0] <= costs[1] <= costs[2] <= costs[3]
    assert 30 < mosi["convert"][0]["peak_mib"] < 1000
    assert mosi["cache_bytes"] < mosi["input_bytes"]
    assert meld["samples"] == {"train": 8, "dev": 3, "test": 4}
    assert "| as large as CMU-MOSI | fixed, as in the file (50 / 375 / 500) | 1 |" in conversion.markdown(results)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.experiment
def test_feature_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = results_of(feature_files, tmp_path / "run")
    assert results["samples"] == {"train": 20, "val": 4, "test1": 4}
    assert results["files"] == 84
    costs = [row["cost"] for row in results["policies"].values()]
    assert list(results["policies"]) == ["fixed, longest", "exact, random", "planned 8, length", "packed 1"]
    assert costs[0] <= costs[1] < costs[2] <= costs[3]
    assert 30 < results["convert"][0]["peak_mib"] < 1000
    assert 0.9 * results["input_bytes"] < results["cache_bytes"] < 1.1 * results["input_bytes"]
    shown = feature_files.markdown(results)
    assert "| to the longest sample (`frm_unalign`) | 1 |" in shown
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_whole_corpus_padding_holds_is_as_mertools_makes_it():
    frames, width = np.array([3, 5, 5, 1]), 2
    padded = [
        feature if len(feature) == 5 else np.concatenate((np.zeros((5 - len(feature), width)), feature), axis=0)
        for feature in (np.ones((length, width), np.float32) for length in frames)
    ]
    assert feature_files.padded_bytes(frames, width) == 3 * sum(array.nbytes for array in padded)


def test_utterances_last_as_long_as_in_meld():
    frames = feature_files.draw_frames(7000, 50, 0)
    assert 3.0 < frames.mean() / 50 < 3.3
    assert 1 <= frames.min() <= frames.max() <= 1430


def test_generated_lengths_fit_the_file():
    lengths = conversion.mosi_lengths(1284, 0, (50, 375, 500))
    assert lengths.max(axis=0).tolist() == [50, 357, 428]
    assert lengths.min() >= 1


def test_reading(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.chdir(tmp_path)
    results = results_of(reading, tmp_path / "run")
    assert [row["name"] for row in results["rows"]] == [
        "flat cache",
        "TFDS, array_record",
        ".npz per sample",
        "the pickle itself",
    ]
    for row in results["rows"]:
        assert 0 < row["percentiles"]["50"][0] <= row["percentiles"]["95"][0]
    assert "| flat cache | " in reading.markdown(results)


@pytest.mark.experiment
def test_quality(tmp_path):
    written = write_meld(tmp_path, features=False)
    paddings = ["--paddings", *quality.COMPARED, "planned/random"]
    results = results_of(quality, tmp_path / "run", "--data-dir", str(tmp_path), "--seeds", "3", *paddings)
    assert [(row["padding"], row["seed"]) for row in results["rows"]] == [
        ("planned", 3),
        ("fixed", 3),
        ("packed", 3),
        ("planned/random", 3),
    ]
    assert [row["config"]["grouping"] for row in results["rows"]] == ["length", "length", "length", "random"]
    assert results["samples"] == {split: len(samples) for split, samples in written.splits.items()}
    targets = [sample["targets"] for sample in written.splits["train"]]
    commonest = np.bincount(targets).argmax()
    wanted = np.array([sample["targets"] for sample in written.splits["test"]])
    share = np.mean(wanted == commonest)
    assert results["floors"]["the commonest label"] == pytest.approx(share * 2 * share / (1 + share))
    shown = quality.markdown(results)
    for row in ("fixed padding", "packed", "planned padding, random batches"):
        assert f"| our model, {row} | " in shown
    assert quality.main(["--quick"]) == 2


@pytest.mark.parametrize(
    ("scores", "shown", "difference", "opposite"),
    [
        (
            {"planned": [0.5, 0.6], "fixed": [0.5, 0.5]},
            ["0.550 ± 0.071", "0.500 ± 0.000"],
            "+0.050 ± 0.071",
            "-0.050 ± 0.071",
        ),
        ({"planned": [0.5], "fixed": [0.6]}, ["0.500", "0.600"], "-0.100", "+0.100"),
    ],
)
def test_means_and_deviations_over_the_seeds(scores, shown, difference, opposite):
    rest = {"padding_efficiency": {"text": 1}, "shapes": 1, "seconds": 1, "parameters": 1}
    rows = [
        {"padding": padding, "test": {"weighted_f1": score, "loss": 1 - score}, **rest}
        for padding, values in scores.items()
        for score in values
    ]
    seeds = list(range(len(scores["fixed"])))
    table = quality.table({"config": {"seeds": seeds}, "rows": rows, "floors": {}, "samples": {"train": 9}})
    assert [row[1] for row in table.rows[:2]] == shown
    places = [place for place, name in enumerate(table.heading) if name == "less fixed"]
    assert [[row[place] for place in places] for row in table.rows[:2]] == [[difference, opposite], ["", ""]]
