"""The command line that all experiments share: where results go, a quick run, and the corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.lib.output import Draw, Markdown, Run, write_results
from multimodal_pad.cli import exit_status


def command_line(name: str, description: str | None, *, data_dir: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of ``python -m experiments.NAME``, with ``--out``, ``--quick`` and, where ``data_dir`` has the
    help for it, ``--data-dir``.

    >>> command_line("planning", "How good?").parse_args(["--quick"])
    Namespace(out=None, quick=True)
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if data_dir is not None:
        parser.add_argument("--data-dir", metavar="DIR", help=data_dir)
    folder = Path("results", *name.split("."))
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {folder}/<time>")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
    return parser


def run_experiment(
    name: str, arguments: list[str], out: Path | None, run: Run, markdown: Markdown, draw: Draw | None = None
) -> int:
    """Run an experiment, write its results by :func:`~experiments.lib.output.write_results`; return the exit status."""
    return exit_status(lambda: write_results(name, arguments, out, run, markdown, draw))
