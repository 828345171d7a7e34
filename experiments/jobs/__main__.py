"""How many lines does each job of a new user take, before and after?

Each job is a whole script, ``experiments/jobs/before/JOB.py`` and ``after/JOB.py``, over the same samples and models
(``given.py``, ``nnx_models.py`` and the like, of which no line is counted). Before, it is what did it with the library
of commit 50e2794, and by hand what that had not. Every script is run, and its lines are counted without blank ones,
comments and docstrings, as ruff formats them.

With Python: python -m experiments.jobs --out results/jobs/mine
"""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import time
import tokenize
from pathlib import Path
from typing import Any

from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.provenance import measured_on
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import PaddingError

FOLDER = Path(__file__).parent
SIDES = ("before", "after")
JOBS = {
    "own_nnx_loop": "a loop of one's own, Flax NNX",
    "equinox_loop": "a loop of one's own, Equinox",
    "linen_loop": "a loop of one's own, Flax Linen",
    "grain": "train on batches that go through Grain",
    "hugging_face": "train on a Hugging Face dataset",
    "stream": "train on a stream",
    "two_devices": "train on two devices",
    "frame_labels": "train with a label per audio frame",
    "contrastive": "train with a contrastive loss",
    "save_and_predict": "train, save, load, predict in order",
    "serve": "serve single requests in batches",
}
"""The scripts by name, and what each does."""


def count_lines(text: str) -> int:
    """Count the lines of a script that hold code, without blank ones, comments and docstrings.

    >>> count_lines('\"\"\"Says what it is.\"\"\"\\n\\n# and why\\nx = (\\n    1\\n)  # one\\n')
    3
    """
    told = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in empty]
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - told)


def run_script(side: str, job: str) -> dict[str, Any]:
    """Run one script in a process of its own; return its lines, its seconds and the end of its output.

    Raises:
        PaddingError: it failed.
    """
    path = FOLDER / side / f"{job}.py"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_DATASETS_OFFLINE": "1"}
    if job == "two_devices":
        environment["XLA_FLAGS"] = (
            f"{environment.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()
        )
    begun = time.perf_counter()
    command = [sys.executable, "-m", f"experiments.jobs.{side}.{job}"]
    done = subprocess.run(
        command, cwd=FOLDER.parents[1], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise PaddingError(f"the script {path} failed:\n{done.stderr[-3000:]}")
    return {
        "lines": count_lines(path.read_text(encoding="utf-8")),
        "seconds": round(time.perf_counter() - begun, 1),
        "printed": done.stdout.splitlines()[-2:],
    }


def run(jobs: list[str], progress: Progress) -> dict[str, Any]:
    """Run all scripts of these jobs."""
    task = progress.add_task("jobs", total=len(SIDES) * len(jobs))
    found: dict[str, Any] = {}
    for job in jobs:
        found[job] = {}
        for side in SIDES:
            progress.update(task, description=f"{job}, {side}")
            found[job][side] = run_script(side, job)
            progress.advance(task)
    return {"jobs": found}


def markdown(results: dict[str, Any]) -> str:
    """Return the table, for the docs, and where it was measured."""
    jobs = results["jobs"]
    rows = [[JOBS[job], *(str(jobs[job][side]["lines"]) for side in SIDES)] for job in jobs]
    total = [str(sum(jobs[job][side]["lines"] for job in jobs)) for side in SIDES]
    table = Table(
        "The jobs of a new user",
        ["job", "lines before", "lines after"],
        [*rows, ["**all**", *total]],
        "Lines of code of whole scripts that run, imports included, without data and model, which are the same on both "
        "sides. Before: commit 50e2794, with code by hand for all that it lacks.",
    )
    return paragraphs(table.markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("jobs", __doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="which ones (all)")
    options = parser.parse_args(arguments)
    jobs = options.jobs[:2] if options.quick else options.jobs
    return run_experiment("jobs", arguments, options.out, lambda progress: run(jobs, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
