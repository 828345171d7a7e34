"""A quick run of experiments.overhead, and its table."""

import json

import jax
import pytest

from experiments.overhead import CALLBACKS, CLOCK, HOST, NAMES, PLAIN, main, markdown, medians, table
from multimodal_pad.spans import READ, span


@pytest.mark.experiment
def test_a_quick_run(tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert markdown(results) in capsys.readouterr().out
    for seconds in (CLOCK, HOST):
        found = medians(results, seconds)
        assert list(found) == [PLAIN, NAMES, CALLBACKS]
        assert min(found.values()) > 0
    with span(READ) as block:
        assert isinstance(block, jax.profiler.TraceAnnotation), "names are given as before"


def test_what_is_more_is_told_of_a_step():
    rows = [
        {"loop": loop, CLOCK: [2e-3, 9.0, 2e-3], HOST: [seconds, seconds, 9.0]}
        for loop, seconds in ((PLAIN, 50e-6), (NAMES, 52e-6), (CALLBACKS, 70e-6))
    ]
    config = {"step_ms": 2.0, "rounds": 3, "epochs": 4, "steps": 200, "batch_size": 32}
    shown = table({"config": config, "links": 90, "rows": rows})
    assert [row[1:] for row in shown.rows] == [
        ["2,000", "50.0", "+0.0", "+0.00%"],
        ["2,000", "52.0", "+2.0", "+0.10%"],
        ["2,000", "70.0", "+20.0", "+1.00%"],
    ]
