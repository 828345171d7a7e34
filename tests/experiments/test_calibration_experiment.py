import json

import pytest

from experiments.planning.calibration import main, markdown


@pytest.mark.experiment
def test_a_quick_run(tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert len(results["unseen"]) == 2
    for row in results["unseen"]:
        assert min(row["seconds"], row["two_rates"], row["one_rate"]) > 0
    assert markdown(results) in shown
    assert "\n| text " in shown


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert main(["--data-dir", "nowhere", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere")
    assert not (tmp_path / "run").exists()
