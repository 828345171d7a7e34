import json
import subprocess
import sys

import numpy as np
import pytest

from multimodal_pad import LengthTable, ShapePlan, plan_shapes
from multimodal_pad.cli import main
from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import read_lengths
from multimodal_pad.planning.comparison import ladders_within, policy_efficiency
from multimodal_pad.planning.cost import TransformerCost, position_count
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
    assert (plan.batch_sizes * plan.shapes.sum(axis=1) <= 12000).all()
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


def test_every_kind_of_file_gives_the_same_lengths(lengths_csv, tmp_path):
    columns = dict(zip(TABLE.modalities, TABLE.values.T, strict=True))
    np.save(tmp_path / "plain.npy", TABLE.values)
    fields = np.rec.fromarrays(list(columns.values()), names=list(columns))
    np.save(tmp_path / "fields.npy", fields)
    np.savez(tmp_path / "columns.npz", **columns)
    read = [
        read_lengths(lengths_csv),
        read_lengths(tmp_path / "plain.npy", TABLE.modalities),
        read_lengths(tmp_path / "fields.npy"),
        read_lengths(tmp_path / "columns.npz"),
    ]
    assert {table.fingerprint for table in read} == {TABLE.fingerprint}
    chosen = ["visual", "text"]
    for path in (lengths_csv, tmp_path / "fields.npy", tmp_path / "columns.npz"):
        assert read_lengths(path, chosen).fingerprint == TABLE.select(chosen).fingerprint


def test_columns_that_are_not_asked_for_may_hold_anything(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text('id,text,audio\n"a, b",3,\n"c",5,x\n')
    assert read_lengths(path, ["text"]).values.tolist() == [[3], [5]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "text,audio\n3,4\n\n5,x\n", r"l\.csv: line 4, 'audio': got 'x'; a length is a whole number"),
        ("l.csv", "text,audio\n3,4\n5,-1\n", r"line 3, 'audio': got '-1'"),
        ("l.csv", "text,audio\n3,4.5\n", r"line 2, 'audio': got '4\.5'"),
        ("l.csv", "text,audio\nnan,4\n", r"line 2, 'text': got 'nan'"),
        ("l.csv", "text,audio\n3,\n", r"line 2, 'audio': got ''"),
        ("l.csv", "text,audio\n3,4\n5\n", r"line 3: got 1 values for the columns"),
        ("l.csv", "text,text\n3,4\n", "the first line must name the columns, each once"),
        ("l.csv", "", "the first line must name the columns"),
        ("l.csv", "text\n", "no samples"),
        ("l.csv", "3,4\n5,6\n", r"the first line must name the columns, each once; got \['3', '4'\]"),
        ("l.csv", "text\n1e300\n", "sample 0, 'text': got the length 1e[+]300"),
        ("l.csv", 'text\n"' + "1" * 200_000 + '"\n', "l.csv: "),
        ("l.txt", "3 4", r"kind '\.txt'; lengths are read from \.csv, \.npy, \.npz"),
        ("l.npy", "no array", "l.npy: "),
        ("l.npz", "no archive", "l.npz: "),
    ],
)
def test_files_that_hold_no_lengths(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        read_lengths(path)


def test_arrays_that_hold_no_lengths(tmp_path):
    np.save(tmp_path / "a.npy", TABLE.values)
    with pytest.raises(SourceError, match=r"got the modalities \[\]; it must be .*--modalities"):
        read_lengths(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"b\.npy: "):
        read_lengths(tmp_path / "b.npy", ["text"])
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    with pytest.raises(SourceError, match=r"a\.npz: holds a single array; name it \.npy"):
        read_lengths(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "damaged.npz", text=np.random.default_rng(0).integers(0, 99, 9999))
    (tmp_path / "several.npy").write_bytes((tmp_path / "damaged.npz").read_bytes())
    with pytest.raises(SourceError, match=r"several\.npy: holds several arrays; name it \.npz"):
        read_lengths(tmp_path / "several.npy", ["text"])
    whole = (tmp_path / "damaged.npz").read_bytes()
    for damaged in (whole[:2000] + b"XXXX" * 200 + whole[2800:],):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"damaged\.npz: "):
            read_lengths(tmp_path / "damaged.npz")
    np.savez(tmp_path / "damaged.npz", text=np.arange(999))
    whole = (tmp_path / "damaged.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:500] + b"XXXX" + whole[504:]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"damaged\.npz: "):
            read_lengths(tmp_path / "damaged.npz")
    np.savez(tmp_path / "c.npz", text=np.ones((2, 2)))
    with pytest.raises(SourceError, match="one length per sample"):
        read_lengths(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", text=np.array([1.5]))
    with pytest.raises(SourceError, match=r"d\.npz: sample 0, 'text': got the length 1\.5"):
        read_lengths(tmp_path / "d.npz")


@pytest.mark.parametrize("grouping", ["length", "random"])
def test_ladders_have_no_more_shapes_than_asked_for(grouping):
    for count in (1, 5, 20):
        ladders = ladders_within(TABLE, count, grouping=grouping)
        assert list(ladders) == ["fixed", "powers of two", "quantiles"]
        for name, policy in ladders.items():
            row = policy_efficiency(policy, TABLE, position_count, grouping=grouping)
            assert 1 <= row.shapes <= count, name
            assert 0 < row.cost <= 1


def test_ladders_are_aligned_like_the_plan():
    alignment = {"audio": 16, "text": 3}
    ladders = ladders_within(TABLE, 9, alignment=alignment)
    assert len(ladders) == 3
    for policy in ladders.values():
        for name, step in alignment.items():
            assert (policy.round_up(TABLE.values)[:, TABLE.modalities.index(name)] % step == 0).all()


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


def test_a_plan_beats_the_ladders_with_as_many_shapes():
    plan = plan_shapes(TABLE, max_shapes=8)
    assert plan.efficiency > 1.2 * max(
        policy_efficiency(policy, TABLE, position_count).cost for policy in ladders_within(TABLE, 8).values()
    )


def test_json_on_disk_is_plain(lengths_csv, tmp_path):
    out = tmp_path / "plan.json"
    assert main(["plan", str(lengths_csv), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["format"] == "multimodal_pad shape plan"


def test_a_single_column_is_enough(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("text\n3\n5\n9\n")
    assert read_lengths(path).fingerprint == LengthTable(("text",), np.array([[3], [5], [9]])).fingerprint
