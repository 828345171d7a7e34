"""What the measurement of a device checks, times and prints."""

import json
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.accelerator import __main__ as command
from experiments.accelerator import checks, end_to_end, markdown, parts, report, torch_part
from experiments.accelerator.budget import Clock
from experiments.accelerator.config import SECOND_STARTS, Config, quick
from experiments.accelerator.parts import LeftOut
from experiments.accelerator.record import Record, write
from experiments.lib.provenance import measured_on, where_measured
from multimodal_pad import BatchShape
from tests.helpers.origin import DEVICE, ORIGIN


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


@pytest.mark.long
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
