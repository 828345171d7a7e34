import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import altair as alt
import pytest

from experiments import fill_tables
from experiments.evidence import __main__ as evidence
from experiments.evidence import page as evidence_page
from experiments.evidence.figures import FIGURES, claims_figures, quality_figures
from experiments.evidence.headline import headline
from experiments.evidence.page import Section, write_page
from experiments.evidence.sections import make_sections
from experiments.lib.charts import Chart, Figure
from experiments.lib.colours import PLANNED, POLICIES
from experiments.lib.output import write_results
from experiments.lib.tables import Table, spread
from multimodal_pad.cli import exit_status
from tests.helpers.browser import look

FOLDER = fill_tables.ROOT / "results" / "evidence"


@pytest.fixture(scope="module")
def found():
    """The committed results of each part."""
    return evidence.collect(FOLDER)


def without_script(text):
    """A page up to the library that draws its charts, which is Vega's."""
    return text.partition("<script>(() => {")[0]


def test_the_page_is_one_file_with_nothing_to_fetch(tmp_path):
    chart = alt.Chart(alt.Data(values=[{"a": 1}])).mark_bar().encode(x="a:Q")
    figure = Figure("A <figure>", "Read it.", [Chart(chart, "One bar.")])
    table = Table("Title <1>", ["", "figure"], [["a & b", "1"]], "A note with `code`.")
    folded = table._replace(title="Long", folded=True)
    file = write_page(
        "A page",
        [
            Section("one", "Why?", ["Because **8** < 9."], [figure], [table, folded], "`command`", "Use **this**."),
            Section("two", "How?", ["So."], [figure], [table], "`command`", "not shown"),
        ],
        tmp_path,
    )
    text = file.read_text(encoding="utf-8")
    assert file == tmp_path / evidence_page.FILE
    assert "Because <strong>8</strong> &lt; 9." in text
    assert "<td class=words>a &amp; b</td><td class=figures>1</td>" in text
    assert "<h3>Title &lt;1&gt;</h3><div" in text
    assert "<details><summary><h3>Long</h3></summary><div" in text
    assert "<a href=#one>Why?</a>" in text
    assert "<p class=headline>Use <strong>this</strong>.</p>" in text
    assert "not shown" not in text
    assert "<h3>A &lt;figure&gt;</h3>" in text
    assert len(set(re.findall(r'<div class="chart" id="([^"]+)"', text))) == 2
    assert text.count("<script>(() => {") == 1
    assert not re.search(r"(src|href)=[^#>]", without_script(text))
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_the_committed_page_is_that_of_the_committed_results(found, tmp_path):
    sections = make_sections(found)
    assert {section.anchor for section in sections} == found.keys() >= {"claims", "training", "shapes", "kernel"}
    for section in sections:
        assert section.answer
        assert all(section.answer)
        assert all(table.rows for table in section.tables)
        assert section.figures
    page = write_page(evidence.TITLE, sections, tmp_path)
    committed = (FOLDER / evidence_page.FILE).read_text(encoding="utf-8")
    assert without_script(page.read_text(encoding="utf-8")) == without_script(committed)


def test_the_headline_is_the_fastest_here_against_fixed_padding_and_pytorch(found):
    rows = found["training"]["training"]["rows"]
    seconds = {(row["name"], row["batches"]): row["seconds"]["10"] for row in rows}
    ours = min(row["seconds"]["10"] for row in rows if row["library"].startswith("jax"))
    torch = min(row["seconds"]["10"] for row in rows if row["library"].startswith("torch"))
    told = make_sections(found)[0].headline.replace("\N{NO-BREAK SPACE}", " ")
    assert f"**{ours:,.0f} s**" in told
    assert f"**{seconds['fixed padding', 'fixed/random'] / ours:.1f} times** as fast as fixed padding" in told
    assert f"{torch / ours:.1f} times as fast as the fastest measured of PyTorch." in told
    assert all(not section.headline for section in make_sections(found)[1:])


@pytest.mark.parametrize(("parts", "begins"), [(["shapes"], "The real cost of **"), (["kernel"], ""), ([], "")])
def test_the_headline_of_few_parts(found, parts, begins):
    told = headline({name: found[name] for name in parts})
    assert told.startswith(begins)
    assert bool(told) == bool(begins)


def test_a_headline_without_the_others_is_of_the_fastest_alone(found):
    training = found["training"]["training"]
    packed = [row for row in training["rows"] if row["name"] == "packed"]
    told = headline({"training": {"training": {**training, "rows": packed}}})
    assert told.endswith("with **packed batches** and one compiled program.")


def test_what_was_left_out_is_said_first(found):
    first, *others = make_sections(found, ["quality: needs MELD"])
    assert first.answer[-1] == "Left out: quality: needs MELD."
    assert not any("Left out: quality" in text for section in others for text in section.answer)


def test_claims_have_a_point_for_each_kind_of_batches_that_was_measured(found):
    of_claim = {claim["section"]: claim["figures"] for claim in found["claims"]["claims"]}
    new = {
        "3.1": {"saved of a batch's bytes, exact": [0.5, 0.6], "saved of a batch's bytes, packed": [0.8]},
        "5.1": {"time saved, with compiling, exact": [-3.0], "time saved, with compiling, planned": [0.4]},
        "6.4": {"meld: saved, planned": [0.7], "meld: saved, packed": [0.9], "meld: real cost, packed": [0.9]},
    }
    for figures in (of_claim, new):
        results = {"claims": [{"section": name, "figures": each} for name, each in figures.items()]}
        savings, distributions = claims_figures(results)
        dots = savings.charts[0].chart.to_dict()["layer"][-1]["data"]["values"]
        assert all(-100 <= dot["drawn"] <= 100 for dot in dots)
        assert {dot["colour"] for dot in dots} <= set(savings.legend.values())
        assert len(distributions.charts) == 2
    assert [(dot["name"], dot["kind"]) for dot in dots] == [
        ("bytes of a batch", "exact"),
        ("bytes of a batch", "exact"),
        ("bytes of a batch", "packed"),
        ("time to train, with compiling", "exact"),
        ("time to train, with compiling", "planned"),
    ]
    assert [dot["saved"] for dot in dots][-2:] == [-300, 40]
    assert claims_figures({"claims": [{"section": "3.3", "figures": {}}]}) == []


def test_every_padding_of_quality_is_drawn(found):
    rows = found["quality"]["rows"]
    more = [{**rows[0], "padding": "planned/random"}, {**rows[0], "padding": "packed"}]
    (figure,) = quality_figures({**found["quality"], "rows": [*rows, *more]})
    values = figure.charts[0].chart.to_dict()["data"]["values"]
    assert {"planned, random batches", "packed", "exact"} <= {dot["row"].replace("\n", " ") for dot in values}


def test_a_policy_has_the_same_colour_in_every_figure(found):
    (training,) = FIGURES["training"](found["training"])
    (shapes,) = FIGURES["shapes"](found["shapes"])
    savings, *_ = FIGURES["claims"](found["claims"])
    assert training.legend["fixed padding"] == shapes.legend["fixed padding"] == POLICIES["fixed"]
    assert training.legend["planned shapes"] == shapes.legend["planned"] == PLANNED[0]
    assert savings.legend["exact"] == shapes.legend["own maxima"] == POLICIES["exact"]
    assert training.legend["packed"] == POLICIES["packed"]


@pytest.fixture
def parts(monkeypatch):
    """Two parts that write at once, and one that fails."""
    ran = []

    def run(command):
        ran.append(command)
        folder = command[command.index("--out") + 1]
        if "fails" in folder:
            return 2
        Path(folder).mkdir(parents=True)
        Path(folder, "results.json").write_text("{}", encoding="utf-8")
        return 0

    monkeypatch.setattr(evidence, "run_to_its_end", run)
    monkeypatch.setattr(evidence, "make_sections", lambda *_: [])
    return ran


def test_parts_that_are_there_are_not_run_again(parts, tmp_path, capsys):
    out = tmp_path / "evidence"
    assert evidence.main(["--only", "scaling", "shapes", "--out", str(out)]) == 0
    assert [command[2] for command in parts] == ["experiments.scaling", "experiments.peers"]
    assert evidence.main(["--only", "scaling", "kernel", "--out", str(out)]) == 0
    assert [command[-1] for command in parts[2:]] == [str(out / "kernel")]
    assert "scaling: there already" in capsys.readouterr().err


def test_what_needs_the_corpus_is_left_out_with_a_line(parts, tmp_path, capsys):
    assert evidence.main(["--only", "quality", "--out", str(tmp_path / "evidence")]) == 0
    assert not parts
    assert "quality: needs --data-dir" in capsys.readouterr().err


def test_claims_are_given_the_quality_that_was_measured(parts, tmp_path):
    out = tmp_path / "evidence"
    assert evidence.main(["--only", "quality", "claims", "--data-dir", "MELD", "--quick", "--out", str(out)]) == 0
    command = parts[1]
    assert command[command.index("--quality") + 1] == str(out / "quality" / "results.json")
    assert "--quick" in command


def test_a_part_that_fails_ends_the_run(parts, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evidence, "PARTS", (evidence.Part("fails", "scaling"), evidence.Part("next", "scaling")))
    assert evidence.main(["--out", str(tmp_path / "evidence")]) == 2
    assert len(parts) == 1
    assert "the part fails has failed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_the_page_is_whole_at_any_width(found, width, dark):
    seen = look(FOLDER / evidence_page.FILE, width, dark=dark)
    drawn = sum(len(figure.charts) for section in make_sections(found) for figure in section.figures)
    assert drawn > 20
    assert seen == {"cut": [], "wider": False, "charts": drawn, "violations": [], "wrong": [], "fetched": []}


def test_a_folder_that_can_not_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert evidence.main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module",
    ["peers.batcher", "peers.__main__", "compare.__main__", "packing.__main__", "scaling.__main__", "claims.__main__"],
)
def test_a_script_that_can_not_write_says_so_at_once(module, tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    run = import_module(f"experiments.{module}").main
    assert run(["--quick", "--out", str(tmp_path / "file" / "below")]) == 2
    assert "below: can't be written" in capsys.readouterr().err


@pytest.mark.experiment
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for child processes in /proc")
@pytest.mark.parametrize("part", ["scaling", "training"])
def test_control_c_ends_it_with_a_line_and_leaves_nothing(part, tmp_path):
    command = [sys.executable, "-m", "experiments.evidence", "--quick", "--only", part, "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stderr.readline().startswith(f"[1/1] {part}")
            wait_for_folder(tmp_path / "out")
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped" in said
    # Nothing can be raised in JAX's callback of the garbage collector: Python prints it, and the signal is handed on.
    said = re.sub(
        r"Exception ignored in: <function _xla_gc_callback.*?KeyboardInterrupt: *\n", "", said, flags=re.DOTALL
    )
    assert "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


def wait_for_folder(out):
    """Until the part has a folder in the making, and some time more."""
    deadline = time.monotonic() + 60
    while not (out.is_dir() and any(out.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_control_c_that_the_part_has_not_had_is_handed_on(monkeypatch):
    monkeypatch.setattr(evidence, "SECONDS_TO_STOP", 0.5)
    begun = time.monotonic()
    timer = threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        evidence.run_to_its_end([sys.executable, "-c", "import time; time.sleep(100)"])
    timer.join()
    assert time.monotonic() - begun < 50


def test_a_full_disk_leaves_nothing_that_looks_finished(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        assert exit_status(lambda: write_results("any", [], out, lambda _: {}, lambda _: "", full)) == 2
        assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_page("A page", [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_fails_does_not_take_the_measurement_with_it(tmp_path, capsys):
    def draw(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_results("any", [], tmp_path / "run", lambda _: {"seconds": 3}, lambda _: "", draw)
    assert [path.name for path in tmp_path.iterdir()] == ["run.unfinished.json"]
    assert json.loads((tmp_path / "run.unfinished.json").read_text())["seconds"] == 3
    assert "run.unfinished.json" in capsys.readouterr().err.replace("\n", "")


def test_processes_of_an_experiment_can_share_a_gpu(tmp_path, monkeypatch):
    def preallocates(_):
        return {"preallocates": os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]}

    for given, wanted in ((None, "false"), ("true", "true")):
        monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
        if given is not None:
            monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", given)
        write_results("any", [], tmp_path / wanted, preallocates, lambda _: "")
        assert json.loads((tmp_path / wanted / "results.json").read_text())["preallocates"] == wanted


def test_spread_of_one_value_and_of_several():
    assert spread([1.5], ".1f") == "1.5"
    assert spread([1, 2, 3, 4, 5], ".0f") == "3 (2 to 4)"
