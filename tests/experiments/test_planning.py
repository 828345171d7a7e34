import json
import subprocess
import sys

import pytest

from experiments.planning.__main__ import main, markdown


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("planning") / "run"
    assert main(["--quick", "--out", str(out)]) == 0
    return out


@pytest.mark.experiment
def test_the_results_say_how_good_plans_are(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    for row in results["plans"]:
        assert row["ladders"]["fixed"]["cost"] <= row["efficiency"] <= row["bound"]
        assert row["scheduled_efficiency"] <= row["efficiency"]
        assert len(row["planned_shapes"]) == row["shapes"]
        assert len(row["seconds"]) == 2
    assert [row["shapes"] for row in results["plans"]] == [1, 4, 8, 16, 32]
    efficiencies = [row["efficiency"] for row in results["plans"]]
    assert efficiencies == sorted(efficiencies)
    assert results["transfers"]
    for row in results["transfers"]:
        assert row["efficiency"] <= row["own_efficiency"] * 1.01
    (large,) = results["large"]
    assert large["samples"] == 20_000
    assert 0 < large["efficiency"] <= large["bound"] <= 1
    assert large["peak_memory_gib"] > large["table_gib"]
    assert {"command", "commit", "versions", "device", "config"} <= set(results)
    assert (quick / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.experiment
def test_the_table_has_a_row_per_number_of_shapes(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    lines = markdown(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:9]] == ["1", "4", "8", "16", "32"]
    assert "synthetic" in lines[0]


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert main(["--data-dir", "nowhere", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_a_large_table_is_planned_without_jax():
    """Its process measures its own memory, which JAX would be most of."""
    code = "import sys, experiments.planning.__main__; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
