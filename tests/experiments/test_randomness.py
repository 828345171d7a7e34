import json

import numpy as np
import pytest

from experiments.quality.randomness import differences, main, markdown
from tests.helpers.caches import restored_cache_options


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("randomness") / "run"
    with restored_cache_options():
        assert main(["--quick", "--out", str(out)]) == 0
    return out


@pytest.mark.experiment
def test_the_results_hold_every_window_and_curve(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    assert [row["window"] for row in results["windows"]] == [1, 1024, 1, 1024, None, None, 1, 1024, None]
    for row in results["windows"]:
        for figures in row["figures"]:
            assert 0 < figures["real_cost"] <= 1
            assert -1 <= figures["adjacent"] <= 1
            assert figures["spread"] <= 1 + 1e-9
    assert [(curve["batches"], curve["seed"]) for curve in results["curves"]] == [
        (kind, seed) for seed in range(2) for kind in ("random", "length", "packed")
    ]
    for kind in ("length", "packed"):
        assert differences(results, "dev_loss", kind).shape == (2, 1)
        assert np.isfinite(differences(results, "train_loss", kind)).all()
    assert (quick / "randomness.png").read_bytes().startswith(b"\x89PNG")
    lines = markdown(results).splitlines()
    assert sum(line.startswith(("| 64, ", "| 500, ")) for line in lines) == 9
    assert sum(line.startswith("| 0 |") for line in lines) == 1, "one epoch"


@pytest.mark.experiment
def test_packed_batches_are_of_one_shape_and_waste_least(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    real = {row["policy"]: np.mean([f["real_cost"] for f in row["figures"]]) for row in results["windows"]}
    assert real["500, packed"] > real["500, planned 1"]
    packed = [row["figures"] for row in results["windows"] if row["policy"].endswith("packed")]
    assert {f["label_on_shape"] for figures in packed for f in figures} == {0}


def test_epochs_are_at_least_1(tmp_path, capsys):
    assert main(["--epochs", "0", "--out", str(tmp_path / "run")]) == 2
    assert "got --epochs 0" in capsys.readouterr().err


@pytest.mark.experiment
def test_a_folder_that_is_there_is_left_alone(quick, capsys):
    assert main(["--quick", "--out", str(quick)]) == 2
    assert "exists" in capsys.readouterr().err
