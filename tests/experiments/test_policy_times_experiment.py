"""A quick run of experiments.planning.policy_times, and its table."""

import json

import numpy as np
import pytest

from experiments.planning.policy_times import EQUAL, VARIED, main, markdown, table, times


@pytest.mark.experiment
def test_a_quick_run(tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert markdown(results) in shown
    policies = ["fixed", "planned_8/length", "packed"]
    for kind in (VARIED, EQUAL):
        found = times(results, kind)
        assert list(found) == policies
        assert all(time.samples == 64 and min(time.compile_seconds, time.epoch_seconds) > 0 for time in found.values())
    assert times(results, EQUAL)["planned_8/length"].shapes == 1
    measured = [row["measured"][0] for row in results["rows"] if row["lengths"] == EQUAL]
    assert len({np.prod([one["rows"], one["lengths"]["text"]]) for one in measured if one["layout"] == "padded"}) == 1


def test_the_fastest_is_bold_and_the_reason_is_told():
    def row(kind, policy, compile_seconds, epoch_seconds):
        figures = {"samples": 100, "shapes": 1, "compile_seconds": compile_seconds, "epoch_seconds": epoch_seconds}
        return {"lengths": kind, "policy": policy, **figures}

    results = {
        "config": {"epochs": [1, 10, 100], "batch_size": 8, "repeats": 5},
        "rows": [
            row(VARIED, "fixed", 5.0, 4.0),
            row(VARIED, "packed", 20.0, 1.0),
            row(EQUAL, "fixed", 5.0, 1.0),
            row(EQUAL, "packed", 5.0, 1.5),
        ],
        "medians": {"text": 6},
        "samples": 100,
        "corpus": "synthetic",
    }
    shown = table(results)
    assert [[cell for cell in row if cell.startswith("**")] for row in shown.rows] == [
        ["**9**"],
        ["**30**", "**120**"],
        ["**6**", "**15**", "**105**"],
        [],
    ]
    assert (
        "Lengths all equal: fixed: 15 s for 10 epochs; packed 20 s (1.50 times as long per sample)." in shown.findings
    )


def test_bad_arguments_are_one_line(tmp_path, capsys):
    for options, message in ((["--data-dir", "nowhere"], "nowhere"), (["--samples", "0"], "got --samples 0")):
        assert main([*options, "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
