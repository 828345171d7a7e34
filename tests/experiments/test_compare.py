import json
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments.compare.__main__ import main, parse_arguments
from experiments.compare.report import against_ladder, markdown
from experiments.lib.measure import predict_seconds
from experiments.lib.policies import parse_policy
from multimodal_pad import PaddingError

ROW_KEYS = {
    "policy",
    "grouping",
    "shapes",
    "backend_compiles",
    "compile_seconds_before",
    "compile_seconds_during",
    "position_efficiency",
    "cost_efficiency",
    "batch_bytes_mean",
    "device_bytes_max",
    "step_ms_median",
    "samples_per_second",
    "seconds_to_train",
    "loss_first",
    "loss_last",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    arguments = ["--quick", "--modalities", "text", "--samples", "48", "--policies"]
    arguments += ["fixed", "exact", "exact/length", "planned_2/length"]
    assert main([*arguments, "--max-minutes", "9", "--out", str(out)]) == 0
    return out


@pytest.mark.experiment
def test_the_results_say_everything(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    assert [row["policy"] for row in results["rows"]] == ["fixed", "exact", "exact", "planned_2"]
    for row in results["rows"]:
        assert set(row) >= ROW_KEYS
        assert set(row["position_efficiency"]) == {"text", "total"}
        assert row["steps_measured"] == row["steps"], "the quick run is measured whole"
        assert row["estimated"] == []
        assert row["backend_compiles"] == row["shapes"] == row["shapes_so_far"][-1]
        assert len(row["measured"]["losses"]) == row["steps"] == 3
        before, during = row["compile_seconds_before"], row["compile_seconds_during"]
        assert row["seconds_to_train"] > before + during > 0
        assert (during > 0) == (row["policy"] == "exact"), "whatever is finite compiles before the first step"
        if row["policy"] != "exact":
            assert set(row["measured"]["backend_compiles"]) == {row["shapes"]}
    fixed, exact, _, planned = results["rows"]
    assert 1 <= planned["shapes"] <= 2
    assert planned["preparing_seconds"] > 0
    assert fixed["cost_efficiency"] < planned["cost_efficiency"]
    assert fixed["loss_first"] == pytest.approx(exact["loss_first"], abs=1e-5), "same samples, same model"
    assert fixed["loss_last"] == pytest.approx(exact["loss_last"], rel=1e-3)
    assert fixed["position_efficiency"]["text"] < exact["position_efficiency"]["text"]
    assert fixed["batch_bytes_mean"] > exact["batch_bytes_mean"]
    assert {"command", "commit", "versions", "device", "config", "started"} <= set(results)


@pytest.mark.experiment
def test_the_report_draws_a_batch_of_each_policy(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    page = (quick / "report.html").read_text(encoding="utf-8")
    for row in results["rows"]:
        batch = row["batch"]
        assert len(batch["lengths"]) <= 16
        assert np.max(batch["lengths"]) <= batch["padded"][0]
    assert "One batch of each policy" in page
    assert "exact, length" in page


@pytest.mark.experiment
def test_the_table_is_one_row_per_figure(quick):
    results = json.loads((quick / "results.json").read_text(encoding="utf-8"))
    lines = [line for line in markdown(results).splitlines() if line.startswith("|")]
    assert lines[0] == "|  | fixed, random | exact, random | exact, length | planned 2, length |"
    assert lines[2] == f"| batch shapes | {' | '.join(str(row['shapes']) for row in results['rows'])} |"
    assert "~" not in "".join(lines[:20])


@pytest.mark.experiment
def test_the_number_of_shapes_is_chosen_and_nothing_is_compiled_twice(tmp_path):
    arguments = ["--quick", "--modalities", "text", "--samples", "48", "--policies", "planned_auto/length"]
    assert main([*arguments, "--epochs", "1", "--max-minutes", "9", "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    (row,) = results["rows"]
    assert 1 <= row["compiled_while_planning"] <= 2
    assert row["backend_compiles"] == row["shapes"] == row["shapes_so_far"][-1]
    assert row["estimated"] == []
    assert re.match(r"\d+ batch shape", row["reason"])
    assert f"It chose {row['reason']}." in markdown(results)
    assert f"Planning of planned auto, length, compiles and times {row['compiled_while_planning']} shape" in markdown(
        results
    )
    compiled = re.search(r"^train_step +(\d+) ", results["compile_report"], re.MULTILINE)
    assert compiled
    assert int(compiled[1]) == row["shapes"]


@pytest.mark.experiment
def test_a_run_cut_short_says_so(tmp_path):
    arguments = ["--quick", "--modalities", "text", "--policies", "exact", "--max-minutes", "0.0001"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    row = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["rows"][0]
    assert row["steps_measured"] == 1 < row["steps"]
    assert "seconds_to_train" in row["estimated"]
    assert row["backend_compiles"] == row["shapes"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "shortest"], "got the policy 'shortest'; choose one of"),
        (["--policies", "fixed/size"], "got the policy 'fixed/size'"),
        (["--policies", "planned_0"], "got the policy 'planned_0'"),
        (["--source", "meld"], "--source meld needs --data-dir"),
        (["--source", "meld", "--data-dir", "nowhere"], "train_sent_emo.csv: no such file"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--epochs", "0"], "got --epochs 0"),
        (["--max-minutes", "-1"], "got --max-minutes -1"),
        (["--seed", "-1"], "got --seed -1"),
        (["--modalities", "smell"], "not ['smell']"),
        (["--out", "tests"], "tests exists; name another folder"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    """It is known before anything is measured."""
    (tmp_path / "file").write_text("in the way")
    assert main(["--quick", "--out", str(tmp_path / "file" / "run")]) == 2
    shown = capsys.readouterr()
    assert "error: " in shown.err
    assert "fixed" not in shown.out


@pytest.mark.slow
def test_help_names_every_policy():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.compare", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("fixed", "exact", "powers_of_two", "planned_N", "--max-minutes", "--quick", "~"):
        assert word in done.stdout


def test_quick_gives_way_to_what_is_given():
    config, _ = parse_arguments(["--quick", "--epochs", "3"])
    assert (config.epochs, config.samples) == (3, 64)


def test_plans_are_compared_with_powers_of_two_in_the_same_grouping():
    def row(policy, grouping, shapes, efficiency, rate, seconds):
        figures = {"shapes": shapes, "cost_efficiency": efficiency, "samples_per_second": rate}
        return {"policy": policy, "grouping": grouping, "seconds_to_train": seconds, **figures}

    rows = [
        row("powers_of_two", "length", 30, 0.5, 200.0, 800.0),
        row("planned_8", "length", 8, 0.8, 400.0, 200.0),
        row("planned_8", "random", 8, 0.2, 100.0, 900.0),
    ]
    assert against_ladder({"rows": rows}) == [
        "planned 8, length, against powers of two, length: batch shapes 8 against 30, 0.62 of the padded cost, 0.50 of "
        "the time once compiled, 0.25 of the time to train."
    ]


def test_policies_and_groupings():
    assert parse_policy("powers_of_two/length") == ("powers_of_two", "length")
    assert parse_policy("planned_12") == ("planned_12", "random")
    assert parse_policy("planned_auto/length") == ("planned_auto", "length")
    with pytest.raises(PaddingError, match="/random"):
        parse_policy("powers_of_two/size")


@pytest.mark.parametrize(
    ("work", "seconds", "asked", "wanted"),
    [
        ([1, 2, 4], [3, 5, 9], [0, 1, 3], [1, 3, 7]),  # a line: 1 + 2 c
        ([1, 1, 1, 2], [3, 3, 90, 5], [4], [9]),  # an outlier does not bend it
        ([2, 2], [4, 6], [2], [5]),  # one amount of work alone
    ],
)
def test_predicted_seconds(work, seconds, asked, wanted):
    work, asked = (np.stack([np.ones(len(x)), x], axis=1) for x in (work, asked))
    np.testing.assert_allclose(predict_seconds(work, np.array(seconds, float), asked), wanted)


def test_predictions_never_fall_with_work():
    work = np.array([[1.0, 1], [1, 4]])
    cheap, dear = predict_seconds(work, np.array([4.0, 1]), work)
    assert 0 < cheap <= dear
