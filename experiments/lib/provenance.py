"""The provenance of a result: command, commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import jax
from jax.extend.backend import get_backend

PACKAGES = ("multimodal-pad", "jax", "jaxlib", "flax", "optax", "numpy")
GPU_PACKAGES = ("jax-cuda", "jax-rocm", "nvidia-cudnn", "nvidia-cublas", "nvidia-cuda-runtime")
"""Prefixes of the names of packages that hold a GPU's libraries."""

ROOT = Path(__file__).resolve().parents[2]

LINK = "link"
"""Key under which results carry the link from a page to their file."""


def provenance(module: str, arguments: list[str]) -> dict[str, Any]:
    """Return what a reader needs to run an experiment again, as JSON values."""
    device = jax.devices()[0]
    return {
        "command": " ".join(["python -m", module, *arguments]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": _memory_gib(),
            **({} if device.platform == "cpu" else _accelerator()),
        },
    }


def measured_on(results: dict[str, Any]) -> str:
    """Return hardware, versions and commit in one short line; on a page, with a link to the result file.

    `experiments.fill_tables` puts the link under ``LINK``, since it depends on the page.
    """
    device, versions = results["device"], results["versions"]
    found = (
        f"{device['cpu']}, {device['cores']} cores, {_accelerator_of(device)}; jax {versions['jax']}, "
        f"flax {versions['flax']}; commit {_short(results['commit'])}"
    )
    return f"{found}; [result]({results[LINK]})" if LINK in results else found


def where_measured(results: dict[str, Any]) -> str:
    """Return hardware, versions, commit and command, in a sentence, for a page that stands without its result file."""
    device, versions = results["device"], results["versions"]
    return (
        f"{device['cpu']}, {device['cores']} cores, {device['memory_gib']} GiB, {_accelerator_of(device)}; "
        f"Python {results['python']}, jax {versions['jax']}, flax {versions['flax']}; "
        f"commit {_short(results['commit'])}; `{results['command']}`."
    )


def _accelerator_of(device: dict[str, Any]) -> str:
    """Name a run's accelerator, with its driver and cuDNN where it has them."""
    if device["platform"] == "cpu":
        return "CPU only"
    driver = f" (driver {device['driver']})" if device.get("driver") else ""
    cudnn = [f", {name} {number}" for name, number in device.get("libraries", {}).items() if "cudnn" in name]
    return f"{device['count']} x {device['kind']}{driver}{''.join(cudnn)}"


def _short(commit: str | None) -> str:
    """Return ten digits of the commit, and the mark of a changed tree."""
    return "unknown" if commit is None else commit[:10] + commit[40:].replace("+", " + ")


def _commit() -> str | None:
    """Return the commit of the working tree, with ``+changes`` where it differs; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _accelerator() -> dict[str, Any]:
    """Return driver and libraries of the accelerator, from JAX's backend and from the installed packages."""
    found = {(each.metadata["Name"] or "").lower().replace("_", "-"): each.version for each in distributions()}
    return {
        "driver": _driver(),
        "runtime": " ".join(get_backend().platform_version.split()),
        "libraries": {name: found[name] for name in sorted(found) if name.startswith(GPU_PACKAGES)},
    }


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, or None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    if sys.platform == "win32":
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
