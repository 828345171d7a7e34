"""``multimodal-pad inspect``: what is in a flat cache, and what padding it costs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multimodal_pad.commands.bars import telling
from multimodal_pad.sources.inspection import Inspection, inspect_cache
from multimodal_pad.sources.manifest import QUANTILES
from multimodal_pad.sources.verification import verify_cache

HELP = """Print what is in a flat cache: samples, lengths and missing modalities of each split, and how much of the
training split's padding is real under fixed, exact and planned padding."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of ``multimodal-pad``."""
    parser = commands.add_parser(
        "inspect",
        help="print what is in a flat cache, and what padding it costs",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("cache", metavar="CACHE", type=Path, help="a folder that multimodal-pad convert made")
    parser.add_argument(
        "--verify", action="store_true", help="read all of it, and compare the SHA-256 of every file with the manifest"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows of a batch (default: 32)")
    parser.add_argument("--max-shapes", type=int, default=8, metavar="N", help="of the plan (default: 8)")


def _run(options: argparse.Namespace) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=160)
    files = None
    if options.verify:
        with telling() as tell:
            files = verify_cache(options.cache, tell)
    found = inspect_cache(options.cache, batch_size=options.batch_size, max_shapes=options.max_shapes)
    for line in _origin(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if files is not None:
        console.print(f"verified: {files} files are what was written", markup=False, highlight=False)
    for split in found.manifest["splits"]:
        console.print(_lengths(found.manifest, split))
    console.print(_padding(found, options.batch_size))


def _origin(found: Inspection) -> list[str]:
    manifest = found.manifest
    lines = [f"{manifest['source']['kind']}, {found.bytes / 1e6:,.1f} MB"]
    for file in manifest["source"]["inputs"]:
        many = f"{file['files']:,} files, " if "files" in file else ""
        lines.append(f"from {file['path']} ({many}{file['bytes'] / 1e6:,.1f} MB, SHA-256 {file['sha256'][:16]}...)")
    for name, facts in manifest["modalities"].items():
        if "vocabulary_size" in facts:
            what = f"token ids of a vocabulary of {facts['vocabulary_size']:,}"
        else:
            what = " x ".join(map(str, facts["feature_shape"])) + " features"
        standard = ", standardised by train" if name in manifest["standardized"] else ""
        lines.append(f"{name}: {facts['dtype']}, {what}{standard}")
    return lines


def _lengths(manifest: dict[str, Any], split: str) -> Table:
    facts = manifest["splits"][split]
    targets = facts["targets"]
    labels = "no targets" if targets is None else f"targets {targets['dtype']} {tuple(targets['shape'])}"
    left_out = f", {len(facts['left_out'])} left out" if facts["left_out"] else ""
    title = f"{escape(split)}: {facts['samples']:,} samples{left_out}, {labels}; lengths"
    table = Table(title=title, title_justify="left")
    table.add_column("modality")
    columns = ["mean", *[f"p{level}" for level in QUANTILES], "max"]
    for heading in (*columns, "missing", "NaN, inf made 0"):
        table.add_column(heading, justify="right")
    for name, row in facts["lengths"].items():
        missing = facts["missing"][name]
        share = f"{missing:,} ({100 * missing / facts['samples']:.1f} %)" if missing else "0"
        table.add_row(
            escape(name), *[_short(row[key]) for key in columns], share, f"{facts['nonfinite'].get(name, 0):,}"
        )
    return table


def _short(value: float) -> str:
    """At most three digits after the point, and none where they are 0."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def _padding(found: Inspection, batch_size: int) -> Table:
    title = f"{escape(found.split)}, batches of {batch_size}: real share of what is padded"
    table = Table(title=title, title_justify="left")
    table.add_column("padding")
    names = list(found.manifest["modalities"])
    for heading in ("shapes", "cost", *names, "padded cost"):
        table.add_column(escape(heading), justify="right")
    least = list(found.policies.values())[-1].padded_cost
    for name, row in found.policies.items():
        shares = [f"{share:.3f}" for share in (row.cost, *row.positions)]
        table.add_row(name, f"{row.shapes:,}", *shares, f"{row.padded_cost / least:.2f} x")
    return table
