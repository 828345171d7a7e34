import json

import pytest

from experiments.start_up.compiler_options import main, markdown, table

RESULTS = {
    "config": {"compilations": 2, "rounds": 2},
    "corpus": "synthetic",
    "sets": ["", "xla_a=1"],
    "compile_seconds": {"": [10.0, 20.0], "xla_a=1": [5.0, 10.0]},
    "steps": [{"shape": "8 x (text 4)", "step_seconds": {"": [1.0, 2.0], "xla_a=1": [1.1, 2.2]}}],
    "command": "python -m experiments.start_up.compiler_options",
    "commit": "0123456789",
    "python": "3.11.7",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "device": {"platform": "cpu", "kind": "cpu", "count": 1, "cpu": "one", "cores": 2, "memory_gib": 8.0},
}


def test_ratios_are_taken_round_by_round():
    usual, tried = table(RESULTS).rows
    assert usual == ["XLA as it is", "15.0 (12.5 to 17.5) s", "1", "1"]
    assert tried == ["`xla_a=1`", "7.5 (6.2 to 8.8) s", "0.50", "1.10"]


@pytest.mark.experiment
def test_a_quick_run(tmp_path, capsys):
    tried = "xla_cpu_enable_fast_min_max=true"
    assert main(["--quick", "--options", tried, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["sets"] == ["", tried]
    assert all(len(seconds) == 1 and min(seconds) > 0 for seconds in results["compile_seconds"].values())
    assert markdown(results) in shown


@pytest.mark.parametrize("text", ["xla_a", "xla_a=", "=1"])
def test_options_without_a_value_are_one_line(tmp_path, capsys, text):
    assert main(["--options", text, "--out", str(tmp_path / "run")]) == 2
    assert f"got the option {text!r}; write name=value" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
