"""``make compare`` and ``make test`` take the build of JAX that fits the machine, and say so in their first line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import jax_build

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make")
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
SMI = """#!{python}
import sys
if sys.argv[1].startswith("--query-gpu=") and "compute_cap" in sys.argv[1] and not {capabilities}:
    sys.exit('Field "compute_cap" is not a valid field to query.')
print({says!r}.format(driver="580.95.05"))
sys.exit({status})
"""

pytestmark = pytest.mark.skipif(MAKE is None or os.name != "posix", reason="needs make")


@pytest.fixture
def fake_smi(tmp_path, monkeypatch):
    """An nvidia-smi that gives such an answer is the only program in the path."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CUDA", "JAX_PLATFORMS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)

    def install(says, status=0, capabilities=True):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SMI.format(python=sys.executable, says=says, status=status, capabilities=capabilities))
        path.chmod(0o755)

    return install


def make(*arguments):
    """As where nothing is installed yet, unless a folder is given that says otherwise."""
    nowhere = [] if any(argument.startswith("VENV=") for argument in arguments) else ["VENV=not-installed"]
    command = [MAKE, *arguments, *nowhere, f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


H200 = "580.95.05, NVIDIA H200, 9.0"


@pytest.mark.parametrize(
    ("says", "extra", "first"),
    [
        (H200, "cuda13", "JAX for CUDA 13 (NVIDIA H200, driver 580.95.05); CUDA= is for the CPU."),
        ("570.12, NVIDIA H200, 9.0", "cuda12", "JAX for CUDA 12 (NVIDIA H200, driver 570.12); CUDA= is for the CPU."),
        ("525.60.13, NVIDIA A100, 8.0", "cuda12", "JAX for CUDA 12 (NVIDIA A100, driver 525.60.13); CUDA= is for"),
        ("580.1, Tesla V100, 7.0", "cuda12", "JAX for CUDA 12 (Tesla V100, driver 580.1)"),
        (f"{H200}\n580.95.05, Tesla V100, 7.0", "cuda12", "JAX for CUDA 12 (NVIDIA H200, driver 580.95.05)"),
        ("580.1, NVIDIA H200, [N/A]", "cuda13", "JAX for CUDA 13 (NVIDIA H200, driver 580.1)"),
        ("470.1, Tesla V100, 7.0", "cpu", "JAX on the CPU: the NVIDIA driver 470.1 is too old; CUDA 12 needs 525."),
        ("525.1, Tesla K80, 3.7", "cpu", "Tesla K80 is too old; CUDA 12 needs compute capability 5.2, and it has 3.7."),
    ],
)
def test_the_driver_decides(says, extra, first, fake_smi, tmp_path):
    fake_smi(says)
    done = make("-n", "test", f"VENV={tmp_path / 'venv'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert first in done.stdout.splitlines()[0]
    assert f"--editable '.[dev,{extra}]'" in done.stdout
    assert f"touch {tmp_path / 'venv'}/installed-{VERSION}-{extra}-dev" in done.stdout


@pytest.mark.parametrize("goal", ["compare", "evidence"])
def test_for_experiments_as_for_tests(goal, fake_smi):
    fake_smi(H200)
    done = make("-n", goal)
    assert done.stdout.startswith("JAX for CUDA 13 (NVIDIA H200")
    assert "--editable '.[experiments,cuda13]'" in done.stdout


@pytest.mark.parametrize(
    ("cuda", "extra", "first"),
    [
        ("", "cpu", "JAX on the CPU, by CUDA=."),
        ("12", "cuda12", "JAX for CUDA 12, by CUDA=12."),
        ("13", "cuda13", "JAX for CUDA 13, by CUDA=13."),
    ],
)
def test_who_calls_make_decides(cuda, extra, first, fake_smi, monkeypatch):
    fake_smi(H200)
    done = make("-n", "test", f"CUDA={cuda}")
    assert done.stdout.splitlines()[0] == first
    assert f"--editable '.[dev,{extra}]'" in done.stdout
    monkeypatch.setenv("CUDA", cuda)
    assert make("-n", "test").stdout == done.stdout


def test_another_cuda_is_refused(fake_smi):
    fake_smi(H200)
    done = make("-n", "test", "CUDA=11")
    assert done.returncode == 2
    assert "got CUDA=11; give 12 or 13, or nothing for the CPU, or leave CUDA out" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("goal", ["check", "docs", "format"])
def test_other_goals_are_on_the_cpu_and_ask_no_driver(goal, fake_smi):
    fake_smi(H200)
    done = make("-n", goal)
    assert done.returncode == 0
    assert ",cpu]'" in done.stdout
    assert "JAX for CUDA" not in done.stdout


def test_an_old_nvidia_smi_knows_no_compute_capability(fake_smi):
    fake_smi("530.1, NVIDIA A100", capabilities=False)
    assert jax_build.find_gpu() == ("530.1", "NVIDIA A100", None)
    assert make("-n", "test").stdout.startswith("JAX for CUDA 12 (NVIDIA A100, driver 530.1)")


@pytest.mark.parametrize(("says", "status"), [("No devices were found.", 6), ("No devices were found.", 0)])
def test_a_driver_without_a_gpu(says, status, fake_smi):
    fake_smi(says, status)
    done = make("-n", "test")
    assert done.stdout.startswith("JAX on the CPU: nvidia-smi finds no GPU (No devices were found).")
    assert "--editable '.[dev,cpu]'" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 2025\nGCC version: gcc 12.3",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U16)\n",
    ],
)
def test_without_nvidia_smi_the_kernel_says(text, tmp_path, monkeypatch):
    proc, dev = tmp_path / "version", tmp_path / "dev"
    dev.mkdir()
    monkeypatch.setenv("PATH", str(dev))
    monkeypatch.setattr(jax_build, "PROC", proc)
    monkeypatch.setattr(jax_build, "DEV", dev)
    with pytest.raises(jax_build.NoGpuError, match="no NVIDIA driver is found"):
        jax_build.find_gpu()
    proc.write_text(text)
    with pytest.raises(jax_build.NoGpuError, match="no NVIDIA driver is found"):
        jax_build.find_gpu()
    (dev / "nvidiactl").touch()
    (dev / "nvidia0").touch()
    assert jax_build.find_gpu() == ("580.65.06", "an NVIDIA GPU", None)
    assert jax_build.choose(None, jax_build.find_gpu)[0] == "cuda13"


@pytest.fixture
def venv(tmp_path):
    """What stands in for an environment in which everything is installed for the CPU and for CUDA 12."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "platforms: ${JAX_PLATFORMS-any}"\n')
    python.chmod(0o755)
    for extra in ("cpu", "cuda12"):
        (tmp_path / "venv" / f"installed-{VERSION}-{extra}-experiments").touch()
    return tmp_path / "venv"


@pytest.mark.parametrize(
    ("options", "given", "platforms"),
    [(["CUDA="], None, "cpu"), (["CUDA=12"], None, "any"), (["CUDA="], "tpu", "tpu"), (["CUDA=12"], "cpu", "cpu")],
)
def test_jax_keeps_to_the_cpu_where_nothing_else_is_chosen(options, given, platforms, venv, fake_smi, monkeypatch):
    fake_smi(H200)
    if given:
        monkeypatch.setenv("JAX_PLATFORMS", given)
    done = make("compare", *options, f"VENV={venv}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"platforms: {platforms}"
    assert "Installing" not in done.stdout


def test_another_cuda_starts_afresh_and_the_cpu_does_not(venv, fake_smi):
    fake_smi(H200)
    afresh = f'test -z "{venv}/installed-{VERSION}-cuda12-experiments" || rm -rf {venv}\n'
    assert afresh in make("-n", "compare", f"VENV={venv}").stdout
    (venv / f"installed-{VERSION}-cpu-experiments").unlink()
    assert 'test -z "" || rm -rf' in make("-n", "compare", "CUDA=", f"VENV={venv}").stdout
