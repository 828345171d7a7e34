"""What becomes of each input that is handed in, before and now?

The cases stand in this folder, a module per subject. Each is handed to the package of an earlier commit and to that of
this tree, in a process and an empty folder of its own, for at most two minutes and with 8 GiB of memory.

With Python: python -m experiments.inputs --out results/inputs/mine
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.progress import Progress

from experiments.inputs.case import ROOT, Case, cases_of, hand_in
from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.provenance import measured_on
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import PaddingError

BEFORE = "48ae543"
SUBJECTS = sorted(
    path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "__main__", "case")
)
SLOW, LARGE = 5, 1024
"""Least seconds, and MiB, that are shown with an outcome."""


def package_of(commit: str, folder: Path) -> Path:
    """Write the package of a commit to a folder; return the folder.

    Raises:
        PaddingError: git does not know the commit.
    """
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit, "multimodal_pad"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        raise PaddingError(f"git has no package of commit {commit!r} here: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return folder


def run(subjects: list[str], before: str, progress: Progress, *, quick: bool = False) -> dict[str, Any]:
    """Run all cases of these subjects, or the first of each, with both packages."""
    found: list[tuple[str, str, Case]] = [
        (subject, name, each)
        for subject in subjects
        for name, each in list(cases_of(f"experiments.inputs.{subject}").items())[: 1 if quick else None]
    ]
    task = progress.add_task("inputs", total=2 * len(found))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        packages = {"before": package_of(before, Path(folder)), "now": ROOT}
        for subject, name, each in found:
            row: dict[str, Any] = {"subject": subject, "name": name, "kind": each.kind, "input": each.text}
            for side, package in packages.items():
                progress.update(task, description=f"{each.kind}, {side}")
                row[side] = hand_in(each.module, name, package)
                progress.advance(task)
            rows.append(row)
    return {"before_commit": before, "cases": rows}


def _cell(outcome: dict[str, Any]) -> str:
    """Make a table's cell: the outcome, and its seconds and memory where they are large."""
    taken = []
    if outcome["kind"] != "no end" and (outcome["seconds"] or 0) >= SLOW:
        taken.append(f"{outcome['seconds']:.0f} s")
    if (outcome["peak_mib"] or 0) >= LARGE:
        taken.append(f"{outcome['peak_mib'] / 1024:.1f} GiB")
    text = outcome["outcome"].replace("|", "\\|").replace("<", "&lt;")
    return f"{text} ({', '.join(taken)})" if taken else text


def markdown(results: dict[str, Any]) -> str:
    """Return the table of kind, input, before and now, and where it was measured."""
    cases = results["cases"]
    counts = {
        side: {kind: sum(each[side]["kind"] == kind for each in cases) for kind in ("other error", "no end")}
        for side in ("before", "now")
    }
    note = (
        f"{len(cases)} inputs. Errors of another library or of Python: {counts['before']['other error']} before, "
        f"{counts['now']['other error']} now; no end within two minutes: {counts['before']['no end']} before, "
        f"{counts['now']['no end']} now. Seconds are shown from {SLOW} s, memory from 1 GiB. Before: commit "
        f"{results['before_commit']}."
    )
    table = Table(
        "What becomes of inputs",
        ["kind", "input", "before", "now"],
        [[each["kind"], each["input"], _cell(each["before"]), _cell(each["now"])] for each in cases],
        note,
        text_columns=4,
    )
    return paragraphs(table.markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("inputs", __doc__)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS, help="which ones (all)")
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT", help=f"the commit to hold against ({BEFORE})")
    options = parser.parse_args(arguments)
    return run_experiment(
        "inputs",
        arguments,
        options.out,
        lambda progress: run(options.subjects, options.before, progress, quick=options.quick),
        markdown,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
