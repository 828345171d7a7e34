"""A case is one input; it runs in a process of its own, which reports the outcome."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

SECONDS = 120
MEMORY = 8 * 2**30
"""Limits of a case: seconds, and bytes of memory that it may request."""

ROOT = Path(__file__).resolve().parents[2]
_TELLS = "outcome of the case: "


@dataclass(frozen=True)
class Case:
    """An input that is handed in.

    Attributes:
        kind: what is wrong, or unusual, with it.
        text: the input, in words.
        run: hands it in, and returns what came out, in words.
        module: where it stands, as a module's name.
    """

    kind: str
    text: str
    run: Callable[[], str]
    module: str


def case(kind: str, text: str) -> Callable[[Callable[[], str]], Case]:
    """Make a function a case of its module.

    >>> @case("numbers", "one and one")
    ... def one_and_one():
    ...     return str(1 + 1)
    >>> one_and_one.kind, one_and_one.run()
    ('numbers', '2')
    """
    return lambda run: Case(kind, text, run, run.__module__)


def cases_of(module: str) -> dict[str, Case]:
    """Return the cases of a module by name, in its order."""
    return {name: value for name, value in vars(import_module(module)).items() if isinstance(value, Case)}


def hand_in(module: str, name: str, package: Path = ROOT) -> dict[str, Any]:
    """Run a case in a process of its own and an empty folder, with the package of the folder ``package``.

    Returns:
        ``kind``: "value", "error of the package", "other error" or "no end"; ``outcome`` in words; ``seconds``;
        ``peak_mib`` of resident memory.
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from experiments.inputs import case; case.tell(*sys.argv[1:])",
                module,
                name,
            ],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, told = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return {"kind": "no end", "outcome": f"no end after {SECONDS} s", "seconds": SECONDS, "peak_mib": None}
        lines = [line for line in out.splitlines() if line.startswith(_TELLS)]
        if not lines:
            last = told.strip().splitlines()[-1:] or [""]
            return {
                "kind": "other error",
                "outcome": f"the process ends with status {process.returncode}: {_short(last[0], folder)}",
                "seconds": None,
                "peak_mib": None,
            }
        found = json.loads(lines[-1].removeprefix(_TELLS))
        return {**found, "outcome": _short(found["outcome"], folder)}


def _short(text: str, folder: str, longest: int = 400) -> str:
    """Put the text on one line, without paths of this machine and control characters."""
    text = text.replace(f"{folder}/", "").replace(folder, ".").replace(str(ROOT), ".")
    text = re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"/tmp/[\w.-]+/", "", text))
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def _peak_mib() -> int:
    """Return the peak resident memory of this process, or of the largest that it started."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(max(peaks) / 1024)


def tell(module: str, name: str) -> None:
    """Run a case in this process, and print the outcome as JSON."""
    from multimodal_pad import PaddingError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # since nohup has it ignored
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    try:
        kind, outcome = "value", cases_of(module)[name].run()
    except PaddingError as error:
        kind, outcome = "error of the package", f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - any error is the outcome
        kind, outcome = "other error", f"{type(error).__name__}: {error}"
    told = {
        "kind": kind,
        "outcome": outcome,
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mib": _peak_mib(),
    }
    print(_TELLS + json.dumps(told), flush=True)
