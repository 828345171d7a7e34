"""``multimodal-pad inspect``: the contents of a flat cache or a file of lengths, and the padding efficiency on it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from multimodal_pad.commands.bars import telling
from multimodal_pad.commands.help_text import HelpFormatter
from multimodal_pad.commands.lengths_given import STANDARD_INPUT, path_or_input, read_given
from multimodal_pad.commands.pairs import add_field_option, chosen_fields
from multimodal_pad.commands.shares import share_headings, shown_shares
from multimodal_pad.commands.tables import print_table
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.files import KINDS
from multimodal_pad.planning.comparison import PolicyEfficiency
from multimodal_pad.sources.inspection import Inspection, compare_policies, inspect_cache
from multimodal_pad.sources.manifest import QUANTILES, summarize
from multimodal_pad.sources.verification import verify_cache
from multimodal_pad.terminal import as_cell, output_console, tell

HELP = """Print the contents of a flat cache: samples, lengths and missing modalities of each split, and the padding
efficiency of fixed, exact and planned padding on the training split. For a file of lengths, or a CSV from standard
input (-), as multimodal-pad plan takes them, print the lengths, and the same of padding. Cost is the FLOPs of this
package's transformer."""

LENGTH_COLUMNS = ("modality", "mean", *(f"p{level}" for level in QUANTILES), "max", "missing")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of ``multimodal-pad``."""
    parser = commands.add_parser(
        "inspect",
        usage="multimodal-pad inspect CACHE [options]",
        help="print a flat cache or a file of lengths, and the padding efficiency on it",
        description=HELP,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "cache",
        metavar="CACHE",
        type=path_or_input,
        help=f"a folder that multimodal-pad convert made, a file of lengths ({', '.join(KINDS)}), or - for a CSV "
        "from standard input",
    )
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="columns of a file of lengths (default: all)")
    add_field_option(parser)
    parser.add_argument(
        "--verify", action="store_true", help="read all of it, and compare the SHA-256 of every file with the manifest"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows of a batch (default: 32)")
    parser.add_argument("--max-shapes", type=int, default=8, metavar="N", help="shapes of the plan (default: 8)")


def _run(options: argparse.Namespace) -> None:
    console = output_console()
    if options.cache == "-" or (options.cache.exists() and not options.cache.is_dir()):
        if options.verify:
            raise PaddingError("--verify is for a cache; a file of lengths has no manifest")
        _inspect_lengths(options, console)
        return
    if options.modalities is not None or options.field is not None:
        raise PaddingError("--modalities and --field are for a file of lengths; a cache is printed whole")
    files = None
    if options.verify:
        with telling() as done:
            files = verify_cache(options.cache, done)
    found = inspect_cache(options.cache, batch_size=options.batch_size, max_shapes=options.max_shapes)
    for line in _origin(found):
        tell(console, line)
    if files is not None:
        tell(console, f"verified: {files} files are what was written")
    for split in found.manifest["splits"]:
        _print_lengths(console, found.manifest, split)
    _print_padding(console, found.split, list(found.manifest["modalities"]), found.policies, options.batch_size)


def _inspect_lengths(options: argparse.Namespace, console: Console) -> None:
    lengths = read_given(options.cache, options.modalities, chosen_fields(options))
    name = STANDARD_INPUT if options.cache == "-" else options.cache.name
    found = summarize(lengths)
    rows = [_length_cells(name, row, found["missing"][name], len(lengths)) for name, row in found["lengths"].items()]
    title = f"{as_cell(name)}: {len(lengths):,} samples; lengths"
    print_table(console, title, LENGTH_COLUMNS, rows)
    policies = compare_policies(lengths, None, options.batch_size, options.max_shapes)
    _print_padding(console, name, list(lengths.modalities), policies, options.batch_size)


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
            shape = " x ".join(map(str, facts["feature_shape"]))
            what = f"{shape} features" if shape else "one number per position"
        standard = ", standardised by train" if name in manifest["standardized"] else ""
        lines.append(f"{name}: {facts['dtype']}, {what}{standard}")
    return lines


def _print_lengths(console: Console, manifest: dict[str, Any], split: str) -> None:
    facts = manifest["splits"][split]
    targets = facts["targets"]
    labels = "no targets" if targets is None else f"targets {targets['dtype']} {tuple(targets['shape'])}"
    left_out = f", {len(facts['left_out'])} left out" if facts["left_out"] else ""
    title = f"{as_cell(split)}: {facts['samples']:,} samples{left_out}, {labels}; lengths"
    rows = [
        [*_length_cells(name, row, facts["missing"][name], facts["samples"]), f"{facts['nonfinite'].get(name, 0):,}"]
        for name, row in facts["lengths"].items()
    ]
    print_table(console, title, [*LENGTH_COLUMNS, "NaN, inf made 0"], rows)


def _length_cells(name: str, lengths: Mapping[str, float], missing: int, samples: int) -> list[str]:
    share = f"{missing:,} ({100 * missing / samples:.1f} %)" if missing else "0"
    columns = ("mean", *[f"p{level}" for level in QUANTILES], "max")
    return [as_cell(name), *[_short(lengths[key]) for key in columns], share]


def _short(value: float) -> str:
    """Format with at most three digits after the point, and none where they are 0."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def _print_padding(
    console: Console, what: str, names: list[str], policies: Mapping[str, PolicyEfficiency], batch_size: int
) -> None:
    least = list(policies.values())[-1].padded_cost
    rows = [
        [name, f"{row.shapes:,}", *shown_shares(row.cost, row.positions), f"{row.padded_cost / least:.2f} x"]
        for name, row in policies.items()
    ]
    title = f"{as_cell(what)}, batches of {batch_size}: padding efficiency"
    print_table(console, title, ["padding", "shapes", "cost", *share_headings(names), "padded cost"], rows)
