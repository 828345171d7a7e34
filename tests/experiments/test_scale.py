import json

from experiments.scaling.corpora import main, markdown


def test_a_quick_run(tmp_path, capsys):
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [row["samples"] for row in results["rows"]] == [500, 2000]
    for row in results["rows"]:
        (part,) = row["parts"]
        assert part["steps"] == -(-row["samples"] // 32)
        assert part["peak_gib"] >= part["imported_gib"] > part["table_gib"]
        assert set(part["resumed"]) == {"start", "middle", "end"}
    assert sum(line.startswith("|") for line in markdown(results).splitlines()) == 4
    assert "| 2,000 | 63 |" in capsys.readouterr().out
