import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from multimodal_pad import PackingPlan, ShapePlan, plan_shapes
from multimodal_pad.cli import main
from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(300).lengths


@pytest.fixture
def lengths_csv(tmp_path):
    path = tmp_path / "lengths.csv"
    np.savetxt(path, TABLE.values, fmt="%d", delimiter=",", header=",".join(TABLE.modalities), comments="")
    return path


def test_plan_prints_the_plan_and_the_comparison(lengths_csv, capsys):
    assert main(["plan", str(lengths_csv), "--max-shapes", "5", "--align", "audio=16"]) == 0
    printed = capsys.readouterr().out
    plan = plan_shapes(TABLE, max_shapes=5, alignment={"audio": 16})
    assert str(plan) in printed
    for policy in ("planned", "fixed", "powers of two", "quantiles"):
        assert f"│ {policy}" in printed
    assert f"{plan.efficiency:.3f}" in printed.split("planned ")[-1]


def test_plan_writes_the_plan_and_the_picture(lengths_csv, tmp_path, capsys):
    out, plot = tmp_path / "plan.json", tmp_path / "plan.png"
    arguments = ["plan", str(lengths_csv), "--max-shapes", "4", "--cost", "transformer", "--d-model", "64"]
    assert main([*arguments, "--out", str(out), "--plot", str(plot)]) == 0
    plan = ShapePlan.load(out)
    assert plan.fingerprint == TABLE.fingerprint
    assert plan.cost == TransformerCost(TABLE.modalities, d_model=64)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lengths.csv", "plan.json", "plan.png"]
    before = out.read_bytes()
    assert main([*arguments[:2], "--out", str(out)]) == 2
    assert f"{out} exists; name another file, or give --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*arguments[:2], "--out", str(out), "--overwrite"]) == 0
    assert len(ShapePlan.load(out)) == 8


@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_a_manifest_is_planned_for_by_its_fields(tmp_path, capsys, command):
    rows = [{"duration": length / 50, "supervisions": [{"text": "oh my god"}]} for length in range(1, 40)]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    fields = ["--field", "audio=duration@50", "--field", "text=supervisions.text:words"]
    assert main([command, str(tmp_path / "cuts.jsonl.gz"), *fields, "--max-shapes", "2"]) == 0
    assert "audio" in capsys.readouterr().out
    assert main([command, str(tmp_path / "cuts.jsonl.gz"), "--field", "audio=duration"]) == 2
    assert "line 1, 'duration': got 0.02; a length is a whole number" in capsys.readouterr().err
    assert main([command, str(tmp_path / "cuts.jsonl.gz"), *fields[:2], *fields[:2]]) == 2
    assert "got --field for ['audio', 'audio']; name each modality once" in capsys.readouterr().err
    assert main([command, str(tmp_path), *fields]) == 2
    assert "--field" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [["text"], ["text", "audio"], ["text", "audio", "visual"]])
@pytest.mark.parametrize("grouping", ["length", "random"])
def test_plots_of_any_number_of_modalities(lengths_csv, tmp_path, modalities, grouping):
    plot = tmp_path / "plan.svg"
    arguments = ["plan", str(lengths_csv), "--max-shapes", "14", "--grouping", grouping, "--plot", str(plot)]
    assert main([*arguments, "--modalities", *modalities]) == 0
    assert "<svg" in plot.read_text()


def test_auto_and_a_budget(lengths_csv, tmp_path):
    out = tmp_path / "plan.json"
    arguments = ["plan", str(lengths_csv), "--max-shapes", "auto", "--epochs", "10", "--compile-seconds", "9"]
    arguments += ["--seconds-per-cost", "1e-4", "--batch-positions", "12000", "--batch-largest", "64"]
    assert main([*arguments, "--out", str(out)]) == 0
    plan = ShapePlan.load(out)
    assert 1 < len(plan) < 30
    assert (plan.batch_sizes * plan.lengths.sum(axis=1) <= 12000).all()
    assert (plan.batch_sizes % 8 == 0).all()
    assert plan.batch_sizes.max() <= 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-shapes", "0"], "got max_shapes=0"),
        (["--max-shapes", "auto"], "--max-shapes auto needs --epochs, --compile-seconds and --seconds-per-cost"),
        (["--align", "smell=8"], "alignment for ['smell']"),
        (["--modalities", "smell"], "has no column ['smell'], only ["),
        (["--batch-positions", "20"], "exceed the batch budget of 20"),
        (["--epochs", "3"], "are for --max-shapes auto"),
        (["--batch-multiple", "16"], "are for --batch-positions"),
        (["--batch-multiple", "0", "--batch-positions", "9000"], "got multiple=0"),
        (["--batch-size", "8", "--batch-positions", "9000"], "give --batch-size or --batch-positions, not both"),
        (["--d-model", "512"], "are for --cost transformer"),
        (["--modalities", "text", "text"], "each once"),
        (["--plot", "plan.foo"], "plan.foo: a plot's name must end in one of"),
        (["--plot", "plan"], "plan: a plot's name must end in one of"),
        (["--out", "nowhere/plan.json"], "there is no folder nowhere"),
        (["--out", "x.png", "--plot", "x.png"], "--out and --plot are both x.png"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(lengths_csv, arguments, message, capsys):
    assert main(["plan", str(lengths_csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--align", "audio=much"], ["--max-shapes", "some"], ["--cost", "gold"]])
def test_what_cannot_be_read_is_shown_with_the_usage(lengths_csv, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", str(lengths_csv), *arguments])
    assert arguments[1] in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(lengths_csv, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("multimodal_pad.commands.plan.plan_shapes", interrupted)
    assert main(["plan", str(lengths_csv), "--out", str(tmp_path / "plan.json")]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert [file.name for file in tmp_path.iterdir()] == ["lengths.csv"]


def test_the_command_is_installed_and_needs_neither_jax_nor_matplotlib(lengths_csv):
    code = f"""
import importlib.util, sys

find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "matplotlib" else find(name)
from multimodal_pad.cli import main

assert main(["plan", {str(lengths_csv)!r}]) == 0
assert main(["plan", {str(lengths_csv)!r}, "--plot", "x.png"]) == 2
assert not {{"jax", "matplotlib"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "plots need matplotlib: pip install 'multimodal-pad[plot]'" in done.stderr
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="multimodal-pad")
    assert command.load() is main


def test_the_comparison_prices_a_plan_as_the_plan_does(lengths_csv, capsys):
    arguments = ["plan", str(lengths_csv), "--max-shapes", "3", "--align", "16", "--batch-overhead", "5000"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    plan = plan_shapes(TABLE, max_shapes=3, alignment=16, batch_overhead=5000)
    assert f"│ planned       │      3 │ {plan.efficiency:.3f}" in printed


def test_alignment_of_one_modality_goes_before_that_of_all(lengths_csv, tmp_path):
    out = tmp_path / "plan.json"
    assert main(["plan", str(lengths_csv), "--align", "audio=16", "--align", "8", "--out", str(out)]) == 0
    assert ShapePlan.load(out).alignment == {"text": 8, "audio": 16, "visual": 8}


def test_random_batches_are_compared_as_they_are_planned(tmp_path, capsys):
    path = tmp_path / "l.csv"
    path.write_text("text\n3\n5\n9\n2\n4\n")
    assert main(["plan", str(path), "--grouping", "random", "--max-shapes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "padding efficiency: cost 0.511" in printed
    assert "│ planned       │      1 │ 0.511" in printed


def test_names_are_no_markup(tmp_path, capsys):
    path, plot = tmp_path / "l.csv", tmp_path / "p.png"
    path.write_text('"[/x],[red]a","$\\foo{$"\n3,4\n5,6\n'.replace('"[/x],[red]a"', "[/x][red]a"))
    assert main(["plan", str(path), "--max-shapes", "2", "--plot", str(plot)]) == 0
    assert "[/x][red]a" in capsys.readouterr().out
    assert plot.stat().st_size > 1000


def test_json_on_disk_is_plain(lengths_csv, tmp_path):
    out = tmp_path / "plan.json"
    assert main(["plan", str(lengths_csv), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["format"] == "multimodal_pad shape plan"


def test_packed_plans(tmp_path, capsys):
    lengths = tmp_path / "lengths.csv"
    rows = [f"{1 + i % 7},{3 * (i % 11)}" for i in range(80)]
    lengths.write_text("\n".join(["text,audio", *rows]))
    out, plot = tmp_path / "packing.json", tmp_path / "packing.png"
    arguments = ["plan", str(lengths), "--packed", "--batch-size", "8", "--shares", "2"]
    assert main([*arguments, "--out", str(out), "--plot", str(plot)]) == 0
    plan = PackingPlan.load(out)
    assert (plan.batch_size, plan.shares, len(plan)) == (8, 2, 1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert str(plan) in printed
    assert f"│ packed        │      1 │ {plan.efficiency:.3f}" in printed
    for policy in ("planned", "fixed", "powers of two", "quantiles"):
        assert f"│ {policy}" in printed
    assert printed.count("Written: ") == 2


def test_packed_plans_to_a_budget(lengths_csv, tmp_path):
    out = tmp_path / "packing.json"
    arguments = ["plan", str(lengths_csv), "--packed", "--batch-positions", "3000", "--out", str(out)]
    assert main(arguments) == 0
    plan = PackingPlan.load(out)
    assert plan.lengths.sum() <= 3000
    assert plan.batch_size % 8 == 0
    assert main([*arguments, "--batch-multiple", "4", "--batch-largest", "14", "--overwrite"]) == 0
    assert PackingPlan.load(out).batch_size == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--packed", "--batch-positions", "2"], "batches of 8, the smallest, need capacities of text 8"),
        (["--packed", "--max-shapes", "3"], "got max_shapes=3; packed batches have 1 shape, or 2"),
        (["--packed", "--grouping", "random"], "got --grouping with --packed; they are for padded batches"),
        (["--packed", "--max-shapes", "auto"], "packed batches have 1 shape, or 2"),
        (["--shares", "2"], "--shares is for --packed"),
    ],
)
def test_options_of_the_other_layout_are_refused(tmp_path, capsys, options, message):
    (tmp_path / "lengths.csv").write_text("text\n3\n5\n")
    assert main(["plan", str(tmp_path / "lengths.csv"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("modalities", [10, 40])
def test_many_modalities_fit_the_table(modalities, tmp_path, capsys):
    path = tmp_path / "lengths.csv"
    names = [f"m{number}" for number in range(modalities)]
    np.savetxt(
        path, np.arange(2 * modalities).reshape(2, -1), fmt="%d", delimiter=",", header=",".join(names), comments=""
    )
    assert main(["plan", str(path), "--max-shapes", "2"]) == 0
    (heading,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("┃ policy")]
    assert [cell.strip() for cell in heading.split("┃")[4:-2]] == (
        names if modalities == 10 else ["least of 40", "most of 40"]
    )
