import json

import numpy as np
import pytest

from experiments.randomness import differences, main, markdown
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
    assert [row["window"] for row in results["windows"]] == [1, 1024] * 3
    for row in results["windows"]:
        for figures in row["figures"]:
            assert 0 < figures["real_cost"] <= 1
            assert -1 <= figures["adjacent"] <= 1
            assert figures["spread"] <= 1 + 1e-9
    assert [(curve["grouping"], curve["seed"]) for curve in results["curves"]] == [
        (grouping, seed) for seed in range(2) for grouping in ("random", "length")
    ]
    assert differences(results, "dev_loss").shape == (2, 1)
    assert np.isfinite(differences(results, "train_loss")).all()
    assert (quick / "randomness.png").read_bytes().startswith(b"\x89PNG")
    lines = markdown(results).splitlines()
    assert sum(line.startswith(("| 64, ", "| 500, ")) for line in lines) == 6
    assert sum(line.startswith("| 0 |") for line in lines) == 1, "one epoch"


@pytest.mark.experiment
def test_a_folder_that_is_there_is_left_alone(quick, capsys):
    assert main(["--quick", "--out", str(quick)]) == 2
    assert "exists" in capsys.readouterr().err
