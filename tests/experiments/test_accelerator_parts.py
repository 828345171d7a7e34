"""The parts of the measurement of a device: each in its share of the time, and what they had is kept."""

import json
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from experiments.accelerator import markdown, parts
from experiments.accelerator.budget import SHORTEST, Budget, Clock
from experiments.accelerator.config import Config
from experiments.accelerator.parts import LeftOut, Part, Run
from experiments.accelerator.record import Record, read, write
from multimodal_pad import PaddingError
from tests.helpers.origin import DEVICE, ORIGIN

# The budget.


@given(
    shares=st.lists(st.floats(0.1, 50), min_size=1, max_size=8),
    took=st.lists(st.floats(0, 2), min_size=8, max_size=8),
    seconds=st.floats(1, 1000),
)
def test_parts_end_within_the_budget_whatever_each_takes(shares, took, seconds):
    now = [0.0]
    budget = Budget(seconds, {str(i): share for i, share in enumerate(shares)}, now=lambda: now[0])
    for i, share in enumerate(took[: len(shares)]):
        allotted = budget.allot(str(i))
        if allotted is None:
            assert seconds - now[0] < SHORTEST
        else:
            assert 0 < allotted.seconds <= allotted.limit
            now[0] += min(share * allotted.seconds, allotted.limit)
    assert now[0] <= seconds * (1 + 1e-9)


def test_what_a_part_leaves_goes_to_the_later_ones():
    now = [0.0]
    budget = Budget(100, {"one": 1, "two": 1, "three": 2}, now=lambda: now[0])
    assert budget.allot("one").seconds == 25
    now[0] = 10
    assert budget.allot("two").seconds == pytest.approx(30)
    now[0] = 96
    assert budget.allot("three") is None


def test_a_clock_is_over_when_its_seconds_are():
    assert Clock(time.time() - 10, 5).over()
    assert 0 < Clock(time.time(), 50).left() <= 50


# Records.


def test_a_record_that_can_not_be_written_leaves_the_old_one(tmp_path):
    record = Record(tmp_path / "part.json")
    record.keep(rows=[1])
    with pytest.raises(TypeError):
        record.keep(rows=object())
    assert read(record.path) == {"rows": [1]}
    assert read(tmp_path / "nothing.json") == {}


# Parts.


def measure(name, _config, record, *_):
    """Of the fake parts, which are named for what becomes of them."""
    if name == "device":
        record.keep(**ORIGIN)
        return
    record.keep(figure=1)
    if name == "fails":
        raise ValueError("no such thing")
    if name == "interrupted":
        raise KeyboardInterrupt
    if name == "sleeps":
        time.sleep(600)
    if name == "hangs":
        raise TimeoutError
    if name == "missing":
        raise LeftOut("needs what is not there")
    record.keep(figure=2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of fake parts in this process, by their names."""

    @contextmanager
    def here(name, prepare, *arguments, **_):
        try:
            yield SimpleNamespace(first=prepare(*arguments)[0])
        except ValueError as error:
            raise RuntimeError(f"{name}: its process ended with ValueError: {error}") from None

    monkeypatch.setattr(parts, "start", here)
    out = tmp_path / "out"

    def make(*names, minutes=8.0):
        def begin(origin):
            assert origin["device"] == DEVICE
            out.mkdir()
            return out

        config = replace(Config(), minutes=minutes)
        chosen = tuple(Part(name, __name__, 0.2 if name == "sleeps" else 1, "says") for name in names)
        return Run(config, chosen, tmp_path / "cache", begin, lambda _: None)

    make.results = lambda: json.loads((out / "results.json").read_text(encoding="utf-8"))
    make.out = out
    return make


def test_parts_that_fail_or_hang_or_are_left_out_do_not_stop_the_others(run):
    went = run("device", "works", "fails", "hangs", "missing", "works too")
    went.measure()
    results = run.results()
    figures = {name: part["figure"] for name, part in results["parts"].items()}
    assert figures == {"works": 2, "fails": 1, "hangs": 1, "missing": 1, "works too": 2}
    assert set(results["unfinished"]) == {"fails", "hangs", "missing"}
    assert results["unfinished"]["fails"] == "its process ended with ValueError: no such thing"
    assert "its limit" in results["unfinished"]["hangs"]
    assert results["unfinished"]["missing"] == "left out: needs what is not there"
    assert went.failed == ["fails"]
    assert (results["command"], results["config"]["minutes"]) == (ORIGIN["command"], 8.0)
    assert sorted(path.name for path in run.out.iterdir())[-1] == "works.json"


def test_ctrl_c_keeps_what_there_is(run):
    with pytest.raises(KeyboardInterrupt):
        run("device", "works", "interrupted", "later").measure()
    results = run.results()
    assert {name: part["figure"] for name, part in results["parts"].items()} == {"works": 2, "interrupted": 1}
    assert results["unfinished"] == {"interrupted": "interrupted", "later": "not begun"}
    text = markdown(results)
    assert "- interrupted: interrupted\n- later: not begun" in text


def test_results_are_there_after_each_part(run, monkeypatch):
    seen = []

    def look(name, _config, record, *_):
        record.keep(**(ORIGIN if name == "device" else {"figure": 2}))
        if name != "device":
            seen.append(run.results())

    monkeypatch.setitem(globals(), "measure", look)
    run("device", "one", "two").measure()
    assert [results["unfinished"] for results in seen] == [dict.fromkeys(("one", "two"), "not begun")] + [
        {"two": "not begun"}
    ]
    assert [set(results["parts"]) for results in seen] == [set(), {"one"}]


def test_without_the_device_nothing_is_measured(run):
    with pytest.raises(PaddingError, match="the part 'fails': its process ended with ValueError"):
        run("fails", "works").measure()
    assert not run.out.exists()


def test_parts_without_time_are_named(run):
    run("device", "works", "works too", minutes=SHORTEST / 60 * 1.0001).measure()
    assert run.results()["unfinished"].keys() <= {"works", "works too"}
    run.out.rename(run.out.with_name("before"))
    write(run.out.with_name("gone.json"), {})
    with pytest.raises(PaddingError, match="the part 'device': no time left"):
        run("device", "works", minutes=SHORTEST / 60 / 2).measure()


@pytest.mark.experiment
def test_a_part_that_hangs_is_ended_and_what_it_had_is_kept(run, monkeypatch):
    monkeypatch.undo()  # real processes
    run("device", "sleeps", "works", minutes=0.7).measure()
    results = run.results()
    assert {name: part["figure"] for name, part in results["parts"].items()} == {"sleeps": 1, "works": 2}
    assert set(results["unfinished"]) == {"sleeps"}
    assert results["unfinished"]["sleeps"].startswith("ended after")
