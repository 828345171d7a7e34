"""``multimodal-pad plan``: choose the batch shapes for a table of lengths."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import TaskProgressColumn, TimeRemainingColumn

from multimodal_pad.commands.help_text import HelpFormatter
from multimodal_pad.commands.lengths_given import path_or_input, read_given
from multimodal_pad.commands.pairs import add_field_option, chosen_fields
from multimodal_pad.commands.shares import share_headings, shown_shares
from multimodal_pad.commands.tables import print_table
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import BatchBudget, Cost, TransformerCost, attention_area, position_count
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.output import check_replaceable
from multimodal_pad.planning.comparison import PolicyEfficiency, ladders_within, packing_efficiency, policy_efficiency
from multimodal_pad.planning.packing import MARGINS, plan_packing
from multimodal_pad.planning.packing_plot import plot_packing
from multimodal_pad.planning.picture import check_plots
from multimodal_pad.planning.plan_plot import plot_plan
from multimodal_pad.planning.planned import Planned
from multimodal_pad.planning.planner import MOST_SHAPES, plan_shapes
from multimodal_pad.planning.run_time import RunTime
from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.sources import NumpyDir
from multimodal_pad.sources.inspection import train_split
from multimodal_pad.sources.manifest import read_manifest
from multimodal_pad.terminal import in_a_line, output_console, progress_console, tell

HELP = """Choose the batch shapes for a table of lengths: jointly over all modalities, under a compile budget.

LENGTHS has a row per sample and a column per modality, in positions (tokens, frames), 0 where the modality is
missing: a .csv whose first line names the columns, a .npz with an array per modality, a .npy (name its columns with
--modalities), or a flat cache of multimodal-pad convert (its split train). Manifests of JSON lines, such as those of
NeMo and Lhotse, and other tables are read by --field, which gives the length of each modality. With - a .csv is read
from standard input.

Prints the plan, and the padding efficiency of fixed padding, powers of two and quantiles with as many shapes. With
--packed, samples lie end to end instead, and the plan is one capacity for each modality; it is printed beside the
others with 8 shapes."""

EXAMPLES = """examples:
  multimodal-pad plan lengths.csv --max-shapes 8
  multimodal-pad plan lengths.csv --max-shapes 16 \\
      --align 8 --align audio=16 \\
      --out plan.json --plot plan.png
  multimodal-pad plan lengths.npy --modalities text audio \\
      --cost transformer --d-model 512 --layers 6
  multimodal-pad plan lengths.csv --max-shapes auto \\
      --epochs 10 --compile-seconds 9 \\
      --seconds-per-cost 2e-6
  multimodal-pad plan cuts.jsonl.gz \\
      --field audio=duration@50 \\
      --field text=supervisions.text:words
  multimodal-pad plan lengths.csv --packed --batch-size 32 \\
      --out packing.json --plot packing.png
  multimodal-pad plan lengths.csv --packed \\
      --batch-positions 20000
  sqlite3 -csv -header corpus.db \\
      'select text, audio from lengths' |
      multimodal-pad plan -

in Python:
  policy = Planned(ShapePlan.load("plan.json"))
  policy = Packed(PackingPlan.load("packing.json"))"""


PADDED_SHAPES = 8  # by default, and of the plan beside a packing plan


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of ``multimodal-pad``."""
    plan = commands.add_parser(
        "plan",
        usage="multimodal-pad plan LENGTHS [options]",
        help="choose the batch shapes for a table of lengths",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=HelpFormatter,
    )
    plan.set_defaults(run=_plan)
    plan.add_argument(
        "lengths",
        metavar="LENGTHS",
        type=path_or_input,
        help="a .csv, .npy, .npz or .jsonl file, a flat cache, or - for a CSV from standard input",
    )
    plan.add_argument(
        "--max-shapes",
        type=_shape_count,
        metavar="N",
        help=f"compile budget, or auto (default: {PADDED_SHAPES}; with --packed 1)",
    )
    plan.add_argument("--modalities", nargs="+", metavar="NAME", help="columns to plan for (default: all)")
    add_field_option(plan)
    plan.add_argument(
        "--align",
        action="append",
        type=_alignment,
        default=[],
        metavar="[NAME=]N",
        help="padded lengths are multiples of N; may be repeated: --align 8 --align audio=16",
    )
    plan.add_argument("--grouping", choices=["length", "random"], help="how the batches will be made (default: length)")
    plan.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the search (default: 0)")
    plan.add_argument("--effort", type=float, metavar="X", help="search for longer: X times as many moves (default: 1)")
    packed = plan.add_argument_group("packed batches")
    packed.add_argument("--packed", action="store_true", help="lay samples end to end, in one shape or two")
    packed.add_argument("--tile-pairs", action="store_true", help="list what attention compares, for a GPU or TPU")
    packed.add_argument("--shares", type=int, metavar="N", help="parts of a batch, one per device (default: 1)")
    cost = plan.add_argument_group("cost")
    cost.add_argument(
        "--cost",
        choices=["positions", "attention", "transformer"],
        default="positions",
        help="cost of a row: its positions (default), query-key pairs, or FLOPs of this package's transformer",
    )
    cost.add_argument("--d-model", type=int, metavar="N", help="width of the transformer (default: 40)")
    cost.add_argument("--layers", type=int, metavar="N", help="layers of each of its encoders (default: 4)")
    cost.add_argument("--batch-overhead", type=float, metavar="X", help="cost of a batch beside its rows")
    rows = plan.add_argument_group("samples per batch")
    rows.add_argument("--batch-size", type=int, metavar="N", help="samples of a batch, at every shape (default: 32)")
    rows.add_argument(
        "--batch-positions", type=float, metavar="N", help="instead: as many samples as N positions hold,"
    )
    rows.add_argument("--batch-multiple", type=int, metavar="N", help="in multiples of N (default: 8),")
    rows.add_argument("--batch-largest", type=int, metavar="N", help="and at most N")
    auto = plan.add_argument_group("for --max-shapes auto")
    auto.add_argument("--epochs", type=float, metavar="N", help="epochs of the run")
    auto.add_argument("--compile-seconds", type=float, metavar="S", help="seconds to compile one batch shape")
    auto.add_argument("--seconds-per-cost", type=float, metavar="S", help="seconds of a step, per unit of its cost")
    output = plan.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FILE", help="write the plan as JSON")
    output.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the plan, with the samples and the padding of each shape (.png, .svg or .pdf)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace these files where they are there")


def _shape_count(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number or auto") from None


def _alignment(text: str) -> tuple[str, int]:
    """Parse ``8`` to ``("", 8)``, for all modalities, and ``audio=16`` to ``("audio", 16)``."""
    name, _, step = text.rpartition("=")
    try:
        return name, int(step)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number, or NAME=N") from None


def _plan(options: argparse.Namespace) -> None:
    console = output_console()
    _check_options(options)
    lengths = _read(options.lengths, options.modalities, chosen_fields(options))
    cost = _cost(options, lengths.modalities)
    everywhere = {name: step for align, step in options.align if not align for name in lengths.modalities}
    alignment = everywhere | {name: step for name, step in options.align if name}
    if options.packed:
        _plan_packed(options, lengths, cost, alignment, console)
        return
    batch_size, overhead = _batch_size(options), options.batch_overhead or 0.0
    most = PADDED_SHAPES if options.max_shapes is None else options.max_shapes
    grouping = options.grouping or "length"
    with _bar(MOST_SHAPES if most == "auto" else most) as done:
        plan = plan_shapes(
            lengths,
            max_shapes=most,
            cost=cost,
            alignment=alignment,
            grouping=grouping,
            batch_size=batch_size,
            batch_overhead=overhead,
            run_time=_run_time(options),
            seed=options.seed,
            effort=1 if options.effort is None else options.effort,
            progress=done,
        )
    batches: Any = {"grouping": grouping, "batch_size": batch_size if isinstance(batch_size, int) else 1}
    policies = {"planned": Planned(plan), **ladders_within(lengths, len(plan), alignment=plan.alignment, **batches)}
    price = _price(cost, batch_size, overhead)
    rows = {name: policy_efficiency(policy, lengths, cost, price=price, **batches) for name, policy in policies.items()}
    if options.plot is not None:
        plot_plan(plan, lengths, options.plot, {name: row for name, row in rows.items() if name != "planned"})
    if options.out is not None:
        plan.save(options.out, overwrite=options.overwrite)
    tell(console, str(plan))
    _compare(console, lengths.modalities, rows, "Padding efficiency, every batch full")
    _tell_written(options, console)


def _plan_packed(
    options: argparse.Namespace, lengths: LengthTable, cost: Cost, alignment: dict[str, int], console: Console
) -> None:
    with _bar(len(MARGINS)) as done:
        plan = plan_packing(
            lengths,
            batch_size=_batch_size(options),
            max_shapes=1 if options.max_shapes is None else options.max_shapes,
            alignment=alignment or 8,
            shares=1 if options.shares is None else options.shares,
            tile_pairs=options.tile_pairs,
            cost=cost,
            seed=options.seed,
            progress=done,
        )
    if options.plot is not None:
        plot_packing(plan, lengths, options.plot, seed=options.seed)
    if options.out is not None:
        plan.save(options.out, overwrite=options.overwrite)
    # In a rough search: a longer one gains 1 % or so, and the command is about the packing.
    planned = plan_shapes(lengths, max_shapes=PADDED_SHAPES, cost=cost, alignment=alignment or 1, effort=0)
    policies = {"planned": Planned(planned), **ladders_within(lengths, PADDED_SHAPES, alignment=planned.alignment)}
    padded = {name: policy_efficiency(policy, lengths, cost) for name, policy in policies.items()}
    tell(console, str(plan))
    title = f"Padding efficiency, packed and in up to {PADDED_SHAPES} padded shapes"
    _compare(console, lengths.modalities, {"packed": packing_efficiency(plan, lengths, cost), **padded}, title)
    _tell_written(options, console)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that sets how much is done, with a progress bar on a terminal."""
    console = progress_console()
    columns = TaskProgressColumn, TimeRemainingColumn
    with progress_bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("planning", total=total)
        yield lambda found: bar.update(task, completed=found)


def _tell_written(options: argparse.Namespace, console: Console) -> None:
    for path in (options.out, options.plot):
        if path is not None:
            tell(console, in_a_line(f"Written: {path}"))


def _read(path: Path | Literal["-"], modalities: list[str] | None, fields: dict[str, str] | None) -> LengthTable:
    """Read the lengths of a file, of a flat cache's training split, or of one split's folder."""
    if path == "-" or not path.is_dir():
        return read_given(path, modalities, fields)
    if fields is not None:
        raise PaddingError(f"got --field for {path}, a flat cache, which has its lengths; leave it out")
    manifest = read_manifest(path)
    table = NumpyDir(path, None if manifest is None else train_split(manifest)).lengths
    return table if modalities is None else table.select(modalities)


def _check_options(options: argparse.Namespace) -> None:
    """Raise where an option would be ignored or a file could not be written, before any work is done."""
    padded = ("grouping", "effort", "batch_overhead")
    if options.packed:
        given = [f"--{name.replace('_', '-')}" for name in padded if getattr(options, name) is not None]
        if given:
            raise PaddingError(f"got {', '.join(given)} with --packed; they are for padded batches")
        if options.max_shapes == "auto":
            raise PaddingError("got --max-shapes auto with --packed; packed batches have 1 shape, or 2")
    elif options.shares is not None or options.tile_pairs:
        raise PaddingError(f"--{'tile-pairs' if options.tile_pairs else 'shares'} is for --packed")
    auto = (options.epochs, options.compile_seconds, options.seconds_per_cost)
    if options.max_shapes == "auto" and None in auto:
        raise PaddingError("--max-shapes auto needs --epochs, --compile-seconds and --seconds-per-cost")
    if options.max_shapes != "auto" and any(value is not None for value in auto):
        raise PaddingError("--epochs, --compile-seconds and --seconds-per-cost are for --max-shapes auto")
    if options.batch_positions is None and (options.batch_multiple, options.batch_largest) != (None, None):
        raise PaddingError("--batch-multiple and --batch-largest are for --batch-positions")
    if options.batch_positions is not None and options.batch_size is not None:
        raise PaddingError("give --batch-size or --batch-positions, not both")
    if options.cost != "transformer" and (options.d_model, options.layers) != (None, None):
        raise PaddingError("--d-model and --layers are for --cost transformer")
    paths = [path for path in (options.out, options.plot) if path is not None]
    for path in paths:
        if os.path.lexists(path) and not options.overwrite:
            raise FileExistsError(f"{path} exists; name another file, or give --overwrite")
        check_replaceable(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if len(paths) == 2 and paths[0].resolve() == paths[1].resolve():
        raise PaddingError(f"--out and --plot are both {options.out}; name two files")
    if options.plot is not None:
        check_plots(options.plot)


def _cost(options: argparse.Namespace, modalities: tuple[str, ...]) -> Cost:
    if options.cost == "transformer":
        width = 40 if options.d_model is None else options.d_model
        layers = 4 if options.layers is None else options.layers
        return TransformerCost(modalities, d_model=width, crossmodal_layers=layers, memory_layers=layers)
    return attention_area if options.cost == "attention" else position_count


def _batch_size(options: argparse.Namespace) -> int | BatchBudget:
    if options.batch_positions is None:
        return 32 if options.batch_size is None else options.batch_size
    multiple = 8 if options.batch_multiple is None else options.batch_multiple
    return BatchBudget(options.batch_positions, multiple=multiple, largest=options.batch_largest)


def _run_time(options: argparse.Namespace) -> RunTime | None:
    if options.max_shapes != "auto":
        return None
    return RunTime(options.epochs, options.compile_seconds, options.seconds_per_cost)


def _price(cost: Cost, batch_size: int | BatchBudget, overhead: float) -> Cost:
    """Return the cost of a padded row with its share of a batch's overhead."""

    def price(shapes: np.ndarray) -> np.ndarray:
        sizes = batch_size.batch_sizes(shapes) if isinstance(batch_size, BatchBudget) else batch_size
        return cost(shapes) + overhead / np.maximum(sizes, 1)

    return price


def _compare(console: Console, modalities: tuple[str, ...], rows: dict[str, PolicyEfficiency], title: str) -> None:
    """Print the plan, which is the first row, beside the usual policies."""
    first = next(iter(rows.values()))
    cells = [
        [
            name,
            f"{row.shapes:,}",
            *shown_shares(row.cost, row.positions),
            f"{row.padded_cost / first.padded_cost:.2f} x",
        ]
        for name, row in rows.items()
    ]
    print_table(console, title, ["policy", "shapes", "cost", *share_headings(modalities), "padded cost"], cells)
