"""Choose the build of JAX that make installs: ``python tools/jax_build.py [CUDA]``.

Prints the extra of pyproject.toml that brings it (``cpu``, ``cuda12`` or ``cuda13``), and a sentence with the reason.
CUDA is 12, 13, or empty for the CPU; without it, the NVIDIA driver decides. It runs before anything is installed, with
whatever Python there is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc/driver/nvidia/version")
DEV = Path("/dev")


class Build(NamedTuple):
    """A build of JAX for NVIDIA's GPUs, with its oldest driver and lowest compute capability."""

    version: str
    driver: int
    capability: tuple[int, int]

    @property
    def extra(self) -> str:
        """Return its extra in pyproject.toml."""
        return f"cuda{self.version}"


# https://docs.jax.dev/en/latest/installation.html, and the release notes of the two CUDA toolkits.
BUILDS = (Build("13", 580, (7, 5)), Build("12", 525, (5, 2)))


class Found(NamedTuple):
    """Version of the NVIDIA driver, name of a GPU, and the lowest compute capability of all of them, where known."""

    driver: str
    name: str
    capability: tuple[int, int] | None = None


class NoGpuError(Exception):
    """Raised with the reason why there is no GPU to use."""


def choose(cuda: str | None, find: Callable[[], Found]) -> tuple[str, str]:
    """Return the extra, and the sentence; ``find`` returns :class:`Found` or raises :class:`NoGpuError`."""
    chosen = {build.version: build.extra for build in BUILDS}
    if cuda == "":
        return "cpu", "JAX on the CPU, by CUDA=."
    if cuda is not None and cuda not in chosen:
        sys.exit(f"got CUDA={cuda}; give 12 or 13, or nothing for the CPU, or leave CUDA out")
    if cuda is not None:
        return chosen[cuda], f"JAX for CUDA {cuda}, by CUDA={cuda}."
    try:
        found = find()
    except NoGpuError as why:
        return "cpu", f"JAX on the CPU: {why}."
    major = int(found.driver.split(".")[0])
    old = [build for build in BUILDS if found.capability is not None and found.capability < build.capability]
    fitting = [build for build in BUILDS if major >= build.driver and build not in old]
    if fitting:
        where = f"{found.name}, driver {found.driver}"
        return fitting[0].extra, f"JAX for CUDA {fitting[0].version} ({where}); CUDA= is for the CPU."
    oldest = BUILDS[-1]
    if major < oldest.driver:
        reason = f"the NVIDIA driver {found.driver} is too old; CUDA {oldest.version} needs {oldest.driver}"
    else:
        needs, has = (".".join(map(str, version)) for version in (oldest.capability, found.capability or ()))
        reason = f"{found.name} is too old; CUDA {oldest.version} needs compute capability {needs}, and it has {has}"
    return "cpu", f"JAX on the CPU: {reason}."


def find_gpu() -> Found:
    """Find a GPU by nvidia-smi or, where that is not installed, as in some containers, by the kernel."""
    try:
        return from_nvidia_smi()
    except FileNotFoundError:
        return from_kernel(PROC, DEV)


def from_nvidia_smi() -> Found:
    """Read the output of nvidia-smi, which has no compute capability with an old driver."""
    failed = "no answer"
    for fields in ("driver_version,name,compute_cap", "driver_version,name"):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            break
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        rows = [[part.strip() for part in line.split(",")] for line in lines]
        if done.returncode == 0 and rows and all(row[0][:1].isdigit() for row in rows):
            return Found(rows[0][0], rows[0][1], lowest([row[2] for row in rows if len(row) > 2]))
        failed = lines[0].rstrip(".") if lines else failed
    raise NoGpuError(f"nvidia-smi finds no GPU ({failed})")


def lowest(capabilities: list[str]) -> tuple[int, int] | None:
    """Return the lowest of compute capabilities such as ``9.0``; None where none is known."""
    pairs = [text.split(".") for text in capabilities if re.fullmatch(r"\d+\.\d+", text)]
    return min(((int(major), int(minor)) for major, minor in pairs), default=None)


def from_kernel(proc: Path, dev: Path) -> Found:
    """Read the version of the driver's kernel module, which containers have even without its devices."""
    found = re.search(r"\d{3}\.\d+(\.\d+)?", proc.read_text(errors="replace")) if proc.is_file() else None
    if found is None or not list(dev.glob("nvidia[0-9]*")):
        raise NoGpuError("no NVIDIA driver is found")
    return Found(found.group(), "an NVIDIA GPU")


if __name__ == "__main__":
    print(*choose(sys.argv[1] if len(sys.argv) > 1 else None, find_gpu))
