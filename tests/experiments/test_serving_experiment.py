import json

import pytest

from experiments.serving import __main__ as serving


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("serving") / "run"
    assert serving.main(["--quick", "--out", str(out)]) == 0
    assert (out / "serving.png").exists()
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


@pytest.mark.experiment
def test_every_request_is_answered_or_refused_and_nothing_compiles(quick):
    assert len(quick["rows"]) == 5 * 2
    for row in quick["rows"]:
        assert row["compilations"] == 0
        assert 0 <= row["refused"] < row["requests"]
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert 0 < row["padding_efficiency"] <= 1
        assert row["answered_per_second"] > 0
    assert quick["shapes"]["2 planned shapes, and parts of them"] == 4
    assert "| one by one | 2 |" in serving.markdown(quick)


def test_a_row_per_way_and_a_column_per_load():
    def row(way, load, p50, refused, answered):
        return {
            "way": way,
            "load": load,
            "offered_per_second": 100 * load,
            "requests": 400,
            "refused": refused,
            "answered_per_second": answered,
            "p50_ms": p50,
            "p99_ms": 9 * p50,
            "padding_efficiency": 0.5,
            "compilations": 0,
        }

    results = {
        "config": {"queue_size": 256, "d_model": 40, "layers": 1, "batch_size": 16, "max_delay_ms": 5.0},
        "corpus": "like MELD",
        "shapes": {"one by one": 8, "packed": 1},
        "unit": 100.0,
        "rows": [row("one by one", 1, 9, 0, 99), row("one by one", 4, 100, 250, 101.2)]
        + [row("packed", 1, 6, 0, 100), row("packed", 4, 7, 0, 390)],
    }
    lines = [line for line in serving.table(results).markdown().splitlines() if line.startswith("|")]
    assert lines[0] == "|  | shapes | 100 requests/s | 400 requests/s | real positions | compiled meanwhile |"
    assert lines[2] == "| one by one | 8 | 9 / 81 | 100 / 900 (101/s) | 0.50 | 0 |"
    assert lines[3] == "| packed | 1 | 6 / 54 | 7 / 63 | 0.50 | 0 |"
