"""A quick run of experiments.train.overhead, and its table."""

import json

import numpy as np
import pytest

from experiments.train.overhead import (
    CALLBACK,
    CLOCK,
    INSIDE,
    JSON_LINES,
    NAMES,
    PLAIN,
    by_round,
    main,
    markdown,
    table,
)
from multimodal_pad.spans import span
from multimodal_pad.training import epochs


@pytest.mark.experiment
def test_a_quick_run(tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert markdown(results) in capsys.readouterr().out
    assert [row["loop"] for row in results["rows"]] == [PLAIN, NAMES, CALLBACK, JSON_LINES]
    assert all((by_round(results, loop, CLOCK) > 0).all() for loop in (PLAIN, NAMES, CALLBACK, JSON_LINES))
    plain, names, _, lines = (by_round(results, loop, INSIDE) for loop in (PLAIN, NAMES, CALLBACK, JSON_LINES))
    assert (plain > 0).all()  # of nothing, it takes time all the same
    assert np.median(lines) > np.median(names) > 0
    assert epochs.span is span, "names are given as before"


def test_what_is_more_is_told_of_a_step():
    rows = [
        {"loop": loop, CLOCK: clock, INSIDE: [seconds, seconds, 9.0]}
        for loop, clock, seconds in (
            (PLAIN, [2e-3, 9.0, 2e-3], 1e-6),
            (NAMES, [2.01e-3, 2.01e-3, 9.0], 3e-6),
            (JSON_LINES, [9.0, 2.05e-3, 2.05e-3], 21e-6),
        )
    ]
    config = {"step_ms": 2.0, "rounds": 1, "epochs": 4, "steps": 200, "batch_size": 32}
    shown = table({"config": config, "links": 90, "rows": rows})
    assert [row[1:] for row in shown.rows] == [
        ["2,000", "", "", ""],
        ["2,010", "+10 (+10 to +10)", "2.0 (2.0 to 2.0)", "0.10%"],
        ["2,050", "+50 (+50 to +50)", "20.0 (20.0 to 20.0)", "1.00%"],
    ]
