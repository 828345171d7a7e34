"""All the evidence in one run: the claims of Algorithm 1, what scales how, and other libraries on the same samples.

Each part is a script of its own that writes a folder under --out; a part that is there already is not run again, so
that an interrupted run goes on where it stopped. From what is there, index.html is made: one file to read top to
bottom. results/evidence is the run that README and docs show. On two CPU cores --quick takes about 8 minutes, the full
run about two hours.

With make: make evidence ARGS="--data-dir DIR"
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from experiments.evidence.page import write_page
from experiments.evidence.sections import RESULTS, make_sections
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status

TITLE = "What padding costs, and what planned shapes save"
SECONDS_TO_STOP = 20.0
"""Compiling can't be interrupted, and takes about so long."""


class Part(NamedTuple):
    """One script of the evidence.

    Attributes:
        name: of its folder.
        module: of its script, in ``experiments``.
        options: what it is called with, the folder and --data-dir aside.
        quick_options: the same with --quick; None where nothing else changes.
        needs_corpus: it has nothing to say of synthetic utterances.
    """

    name: str
    module: str
    options: tuple[str, ...] = ()
    quick_options: tuple[str, ...] | None = None
    needs_corpus: bool = False


PARTS = (
    Part(
        "quality",
        "quality",
        ("--paddings", "planned", "planned/random", "fixed", "exact", "packed", "--seeds", "0", "1", "2", "3", "4"),
        ("--paddings", "planned", "fixed", "exact", "packed", "--seeds", "0"),
        needs_corpus=True,
    ),
    Part("claims", "claims"),
    Part("scaling", "scaling"),
    Part("kernel", "peers", ("--only", "kernel")),
    Part("shapes", "peers", ("--only", "shapes")),
    Part("packing", "packing"),
    Part("training", "peers", ("--only", "training", "--contenders", "main")),
)


def collect(out: Path) -> dict[str, dict[str, Any]]:
    """Return the results of the parts that are there, by name."""
    found = {}
    for part in PARTS:
        file = out / part.name / RESULTS
        if file.exists():
            found[part.name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def run_parts(out: Path, only: list[str], data_dir: str | None, quick: bool, console: Console) -> list[str]:
    """Run what is not there yet, one after the other; a line per part that was left out.

    Raises:
        PaddingError: a part has failed; its own message stands above.
    """
    left_out = []
    chosen = [part for part in PARTS if part.name in only]
    for number, part in enumerate(chosen, start=1):
        if (out / part.name / RESULTS).exists():
            console.print(f"[{number}/{len(chosen)}] {part.name}: there already", markup=False)
            continue
        if part.needs_corpus and data_dir is None:
            left_out.append(f"{part.name}: needs --data-dir, the folder of MELD's three CSV files")
            console.print(f"[{number}/{len(chosen)}] {left_out[-1]}", markup=False)
            continue
        command = _command(part, out, data_dir, quick)
        console.print(f"[{number}/{len(chosen)}] {part.name}: {' '.join(command[1:])}", markup=False, soft_wrap=True)
        begun = time.perf_counter()
        if run_to_its_end(command):
            raise PaddingError(f"the part {part.name} has failed; its message is above. What was finished is in {out}")
        console.print(f"    {time.perf_counter() - begun:,.0f} s", markup=False)
    return left_out


def run_to_its_end(command: list[str]) -> int:
    """Return the exit status; with Ctrl-C the part is waited for, so that it clears up behind itself."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_STOP)  # from a terminal it has had the signal, too
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_STOP)
            process.kill()
            raise


def _command(part: Part, out: Path, data_dir: str | None, quick: bool) -> list[str]:
    options = part.quick_options if quick and part.quick_options is not None else part.options
    command = [sys.executable, "-m", f"experiments.{part.module}", *options]
    if data_dir is not None:
        command += ["--data-dir", data_dir]
    if part.name == "claims" and (out / "quality" / RESULTS).exists():
        command += ["--quality", str(out / "quality" / RESULTS)]
    return [*command, *(["--quick"] if quick else []), "--out", str(out / part.name)]


def main(arguments: list[str]) -> int:
    """Run what is missing and write the page; the exit status."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="MELD's three CSV files (default: lengths that follow MELD's)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"of {', '.join(names)}"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/evidence-here"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny runs, to see that everything works (default --out: results/evidence-quick)",
    )
    options = parser.parse_args(arguments)
    if options.quick and options.out == parser.get_default("out"):
        options.out = Path("results/evidence-quick")
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    console = Console(stderr=True)
    _check_writable(options.out)
    left_out = run_parts(options.out, options.only, options.data_dir, options.quick, console)
    page = write_page(TITLE, make_sections(collect(options.out), left_out), options.out)
    console.print(f"Written: {page}", markup=False, soft_wrap=True)


def _check_writable(out: Path) -> None:
    """At once: not to find out at the end that nothing can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise PaddingError(f"--out {out}: can't be written ({error.strerror}); give another folder") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
