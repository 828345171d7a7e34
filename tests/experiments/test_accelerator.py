import json
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from experiments.accelerator import __main__ as command
from experiments.accelerator import checks, end_to_end, markdown, parts, report, torch_part
from experiments.accelerator.budget import SHORTEST, Budget, Clock
from experiments.accelerator.config import SECOND_STARTS, Config, quick
from experiments.accelerator.parts import LeftOut, Part, Run
from experiments.accelerator.record import Record, read, write
from experiments.lib.provenance import measured_on, where_measured
from multimodal_pad import BatchShape, PaddingError

DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "cpu": "a CPU", "cores": 2, "memory_gib": 8}
ORIGIN = {
    "command": "python -m experiments.accelerator",
    "commit": "0" * 40,
    "python": "3.11",
    "versions": {"jax": "0.10", "flax": "0.12"},
    "device": DEVICE,
}


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


def test_every_part_that_measures_steps_is_known_by_its_name():
    chosen = {part.name for part in parts.PARTS if part.module.endswith(".steps")}
    assert chosen == set(Config().steps) == set(report.STEPS)
    assert {part.name for part in parts.PARTS if part.module.endswith("second_start")} == set(SECOND_STARTS)


# Checks.


@pytest.mark.parametrize("implementation", ["xla", "tiled"])
def test_attention_passes_its_checks(implementation):
    row = checks.check_attention(checks.Case(implementation, "float32", "float32"), "odd lengths")
    assert max(row["output_apart"], row["gradient_apart"]) < 1e-5
    assert row["nan_changes"] == row["repeat_changes"] == 0


def test_the_checks_see_an_attention_that_is_wrong(monkeypatch):
    right = checks.masked_attention

    def wrong(query, key, value, *, key_lengths, **options):
        return right(query, key, value, key_lengths=key_lengths * 0 + key.shape[1], **options)

    monkeypatch.setattr(checks, "masked_attention", wrong)
    row = checks.check_attention(checks.Case("xla", "float32"), "odd lengths")
    assert row["output_apart"] > 1e-2
    assert row["gradient_apart"] > 1e-2
    assert row["nan_changes"] == np.inf


@pytest.mark.slow
def test_the_model_passes_its_checks_and_a_gradient_one_percent_off_is_seen():
    check = checks.ModelCheck((3, 5))
    check.slopes = check.slopes * 1.01
    row = check.check(checks.Case("xla", "float32", "float32"))
    assert row["output_apart"] < 1e-5
    assert row["nan_changes"] == row["repeat_changes"] == 0
    assert 3e-3 < row["gradient_apart"] < 3e-2


# PyTorch, end to end.


def test_torch_is_left_out_where_it_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_part, "find_spec", lambda _: None)
    with pytest.raises(LeftOut, match="PyTorch is not installed"):
        torch_part.measure("torch", Config(), Record(tmp_path / "torch.json"), Clock(0, 1), tmp_path)


def test_torch_is_left_out_where_it_runs_on_another_device(tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "device.json", {"device": {"platform": "tpu"}})
    with pytest.raises(LeftOut, match=r"PyTorch .* runs on (cpu|gpu) here, and JAX on tpu"):
        torch_part.measure("torch", Config(), Record(tmp_path / "torch.json"), Clock(0, 1), tmp_path)


class Batches:
    """A batcher of two shapes in turn, as ``run_windows`` needs it."""

    def __init__(self, shapes):
        self.lengths = shapes

    def epoch(self, _):
        return iter([SimpleNamespace(shape=shape) for shape in self.lengths * 100])


def test_steps_without_a_program_are_passed_over_and_do_not_count():
    known, unknown = BatchShape.of(2, {"text": 8}), BatchShape.of(2, {"text": 9})

    class Table:
        steps = {known: None}  # noqa: RUF012

        def __call__(self, state, batch):
            assert batch.shape == known
            return state, SimpleNamespace(loss=np.zeros(()))

    work = SimpleNamespace(table=Table(), state=[])
    windows = end_to_end.run_windows(work, Batches([known, unknown]), {known: 0.0}, seconds=0.0, most=3)
    assert [window["shapes"] for window in windows] == [{known: end_to_end.WINDOW_STEPS}]
    assert 0 <= windows[0]["waited"] <= windows[0]["seconds"]
    slow = end_to_end.run_windows(work, Batches([known]), {known: end_to_end.WINDOW_SECONDS * 0.6}, seconds=0.0, most=3)
    assert [window["shapes"].total() for window in slow] == [2]


# The command and its tables.


def test_the_table_of_a_gpu_names_driver_and_cudnn():
    gpu = {"driver": "570.1", "libraries": {"jax-cuda12-pjrt": "0.10", "nvidia-cudnn-cu12": "9.1"}}
    results = {**ORIGIN, "device": {**DEVICE, "platform": "gpu", "kind": "NVIDIA H200", **gpu}}
    assert "1 x NVIDIA H200 (driver 570.1), nvidia-cudnn-cu12 9.1; Python" in where_measured(results)
    assert "1 x NVIDIA H200 (driver 570.1), nvidia-cudnn-cu12 9.1; jax" in measured_on(results)


def test_pages_are_filled_from_a_run_by_the_name_of_the_package():
    assert import_module("experiments.accelerator").markdown is report.markdown


def test_what_stands_there_is_not_overwritten(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path)]) == 2
    assert "exists; name another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_are_above_0(minutes, tmp_path, capsys):
    assert command.main(["--minutes", minutes, "--out", str(tmp_path / "run")]) == 2
    assert "--minutes" in capsys.readouterr().err


def test_a_run_without_parts_has_a_table_of_what_is_missing():
    text = markdown({**ORIGIN, "parts": {}, "unfinished": {"checks": "no time left"}})
    assert text.startswith("Not measured, or less than there is:\n\n- checks: no time left\n")
    assert text.endswith(measured_on(ORIGIN))


def test_the_tables_say_what_was_estimated_and_what_failed():
    layout = {
        "batches": "length",
        "shapes": 8,
        "shapes_compiled": 3,
        "samples_per_second": [1000.0, 2000, 3000],
        "waiting_share": [0.25],
        "stepping_share": [0.5],
        "real_flops_per_sample": 1e9,
        "peak_bytes_in_use": 2e6,
    }
    torch_row = {**layout, "model": "small", "precision": "TF32", "feed": "ready", "whole": True}
    step = {
        "rows": 32,
        "lengths": {"text": 8},
        "layout": "padded",
        "steps_of_epoch": 7,
        "compile_seconds": 50.4,
        "device_bytes": 3e6,
        "step_ms": [2.0],
        "real_flops": 1e9,
        "paid_flops": 2e9,
        "repeat_changes": 0.0,
    }
    case = {"what": "model", "implementation": "cudnn", "dtype": "bfloat16", "precision": None}
    results = {
        **ORIGIN,
        "products": [{"dtype": "bfloat16", "flops_per_second": [1e12, 5e13]}],
        "parts": {
            "checks": {
                "rows": [{**case, "failed": "NotImplementedError: odd"}],
                "notes": ["1 of 2 checks in the time"],
            },
            "float32": {
                "model": "small",
                "layout": "padded",
                "start": {"shapes": [step] * 3, "seconds_to_first_step": 99.0},
                "policies": {"planned_8": layout},
                "steps": [step],
                "compiled": [step, {**step, "lengths": {"text": 9}}],
            },
            "torch": {"rows": [torch_row]},
            "second_start": {
                "shapes": 3,
                "seconds_to_prepare": 5.0,
                "seconds_to_first_step": 9.0,
                "compiled": 0,
                "cache_hits": 54,
            },
            "packed": {
                "model": "small",
                "layout": "packed",
                "start": {"shapes": [step], "seconds_to_first_step": 40.0},
                "policies": {"packed": {**layout, "batches": "balanced", "shapes": 1, "shapes_compiled": 1}},
                "steps": [{**step, "layout": "packed"}],
                "compiled": [{**step, "layout": "packed"}],
            },
        },
        "unfinished": {},
    }
    text = markdown(results)
    assert "| small | 32 x (text 8) | 7 | 50 s | 2.00 | 0.50 | 500 G | 1.00 % | 3 MB | 0 |" in text
    assert "| small | 32 x (text 9) |  | 50 s | not timed |  |  |  | 3 MB |  |" in text
    assert (
        "| small | JAX, planned_8 | length | 3 of 8 | ~2,000 (1,500 to 2,500) | 0.25 | 2.00 T | 4.00 % | 0.50 |" in text
    )
    assert "| small | PyTorch eager, own maxima, TF32, padded before | length | any | 2,000 (" in text
    assert "| model | cudnn | bfloat16 | default | NotImplementedError: odd |  |  |  |" in text
    assert "| small | padded | 3 | 99 s | 9 s | 5 s | 54 read, 0 compiled |" in text
    assert "| small | packed | 1 | 40 s |  |  |  |" in text
    assert "| small | 32 packed in (text 8) | 7 | 50 s | 2.00 | 0.50 |" in text
    assert "| small | JAX, packed | balanced | 1 | 2,000 (" in text
    assert "- checks: 1 of 2 checks in the time" in text


@pytest.mark.experiment
def test_a_part_that_hangs_is_ended_and_what_it_had_is_kept(run, monkeypatch):
    monkeypatch.undo()  # real processes
    run("device", "sleeps", "works", minutes=0.7).measure()
    results = run.results()
    assert {name: part["figure"] for name, part in results["parts"].items()} == {"sleeps": 1, "works": 2}
    assert set(results["unfinished"]) == {"sleeps"}
    assert results["unfinished"]["sleeps"].startswith("ended after")


@pytest.mark.experiment
def test_everything_runs_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    out = tmp_path / "run"
    assert command.main(["--quick", "--minutes", "8", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(results["unfinished"]) <= {"torch"}
    found = results["parts"]
    assert found["checks"]["rows"]
    for row in found["checks"]["rows"]:
        assert row["nan_changes"] == row["repeat_changes"] == 0
        assert max(row["output_apart"], row["gradient_apart"]) < (1e-5 if row["dtype"] == "float32" else 0.1)
    for name, part in quick(Config()).steps.items():
        assert found[name]["steps"]
        assert all(len(row["step_ms"]) and row["real_flops"] < row["paid_flops"] for row in found[name]["steps"])
        assert list(found[name]["policies"]) == [policy.split("/")[0] for policy in part.policies]
        for policy in found[name]["policies"].values():
            assert min(policy["samples_per_second"]) > 0
            assert all(0 <= share <= 1 for share in policy["waiting_share"])
    assert [row["layout"] for row in found["packed"]["compiled"]] == ["packed"], "one program"
    for again, first in SECOND_STARTS.items():
        assert found[again]["compiled"] == 0 < found[again]["cache_hits"]
        assert found[again]["seconds_to_first_step"] < found[first]["start"]["seconds_to_first_step"]
    if "torch" not in results["unfinished"]:
        assert found["torch"]["outputs_apart"] < 1e-4
    assert "### Steps" in markdown(results)
