"""How full are packed batches, how full could any packing make them, and how well do other packers do?

Batches are dealt to each plan, and the real positions in their capacities are counted. Beside each is the bound: no
packing of at most B samples a batch has a higher fill, since its capacity holds the longest sample, too. Other
packers get the same lengths and capacities, and a number of samples per batch that varies.

With Python: python -m experiments.packing --data-dir DIR --out results/packing/mine
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.distributions import draw_lengths
from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table, paragraphs
from experiments.packing import contenders as packing
from experiments.packing.contenders import SEED, told_fill
from multimodal_pad import LengthTable, Packed, make_schedule, plan_packing
from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.layouts.packed import PACKED
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.sources import Meld

MEDIANS = (8, 20, 45, 60, 120)
"""Median lengths of the five log-normal modalities."""

CORRELATION = 0.2  # of the logarithms of the lengths


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    Attributes:
        data_dir: MELD's CSV files, or None for synthetic lengths that follow MELD's.
        samples: of the tables that are drawn.
        batch_sizes: samples of a batch.
        alignments: what capacities are multiples of; 1 is before rounding.
        peers: what other packers are compared in.
    """

    data_dir: str | None = None
    samples: int = 9988
    batch_sizes: tuple[int, ...] = (8, 32, 128)
    alignments: tuple[int, ...] = (1, 8, 64)
    peers: packing.Config = field(default_factory=packing.Config)


QUICK = {
    "samples": 300,
    "batch_sizes": (8,),
    "alignments": (1, 8),
    "peers": packing.Config(batch_size=8, bins=(4,), repeats=1),
}
"""Options under --quick, to check that everything works."""


def log_normal_five(samples: int, seed: int = 0) -> LengthTable:
    """Draw five modalities, whose logarithms have a standard deviation of 1 and a correlation of 0.2.

    >>> log_normal_five(3).values.min() >= 1
    np.True_
    """
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((samples, len(MEDIANS)))
    logs = np.sqrt(CORRELATION) * rng.standard_normal((samples, 1)) + np.sqrt(1 - CORRELATION) * own
    names = tuple(f"m{number}" for number in range(1, len(MEDIANS) + 1))
    return LengthTable(names, np.maximum(1, np.rint(MEDIANS * np.exp(logs))).astype(np.int64))


def length_tables(config: Config) -> dict[str, LengthTable]:
    """Return the length tables whose batches are packed."""
    meld = draw_lengths("meld", config.samples) if config.data_dir is None else Meld(config.data_dir, "train").lengths
    return {
        "like MELD" if config.data_dir is None else "MELD": meld,
        "log-normal": log_normal_five(config.samples),
        "equal": draw_lengths("constant", config.samples),
    }


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    tables = length_tables(config)
    cases = list(product(tables, config.batch_sizes, (1, 2), config.alignments))
    task = progress.add_task("packing", total=len(cases))
    rows = []
    for name, batch_size, shapes, alignment in cases:
        options = {"batch_size": batch_size, "max_shapes": shapes, "alignment": alignment}
        rows.append({"lengths": name, **measure(tables[name], **options)})
        progress.advance(task)
    corpus, meld = next(iter(tables.items()))
    return {
        "config": asdict(config),
        "samples": {name: len(table) for name, table in tables.items()},
        "modalities": {name: list(table.modalities) for name, table in tables.items()},
        "longest": {name: table.longest(None).tolist() for name, table in tables.items()},
        "corpus": corpus,
        "rows": rows,
        "peers": packing.compare(meld, config.peers, progress),
    }


def measure(lengths: LengthTable, *, batch_size: int, max_shapes: int, alignment: int) -> dict[str, Any]:
    """Measure how full a plan's batches are in a dealt epoch, with the bound of any packing."""
    begun = time.perf_counter()
    plan = plan_packing(lengths, batch_size=batch_size, max_shapes=max_shapes, alignment=alignment, cost=reference_cost)
    planned = time.perf_counter()
    steps = make_schedule(lengths, Packed(plan), seed=SEED).steps()
    dealt = time.perf_counter()
    stats = PaddingStats(lengths.modalities, reference_cost, PACKED)
    stats.record(steps, lengths)
    counts = (steps.ids.reshape(len(steps), -1) != EMPTY).sum(axis=1)
    wanted = -(-len(lengths) // batch_size)
    return {
        "batch_size": batch_size,
        "max_shapes": max_shapes,
        "alignment": alignment,
        "capacities": plan.lengths.tolist(),
        "batches": len(steps),
        "extra": len(steps) - wanted,
        "full_batches": int((counts == batch_size).sum()),
        "fill": stats.position_efficiency,
        "fill_in_cost": stats.cost_efficiency,
        "bound": fill_bound(lengths, batch_size, max_shapes, alignment),
        "plan_seconds": planned - begun,
        "deal_seconds": dealt - planned,
    }


def fill_bound(lengths: LengthTable, batch_size: int, shapes: int = 1, alignment: int = 1) -> dict[str, float]:
    """Bound the fill of any packing of at most ``batch_size`` samples a batch, per modality and in ``"total"``.

    There are at least N / B batches. With one shape the capacity of each holds a mean batch and the longest sample;
    with two shapes only the sum of capacities is bounded, by the sum of all lengths.

    >>> fill_bound(LengthTable(("text",), np.array([[9], [2], [1], [2]])), 2)["text"]  # 14 in 2 x 9
    0.7777777777777778
    """
    real = lengths.values.sum(axis=0)
    batches = -(-len(lengths) // batch_size) if shapes == 1 else 1
    least = np.maximum(-(-real // batches), lengths.longest(None) if shapes == 1 else 1)
    held = batches * (-(-least // alignment) * alignment)
    each = dict(zip(lengths.modalities, (real / held).tolist(), strict=True))
    return {**each, "total": float(real.sum() / held.sum())}


def fill_table(results: dict[str, Any]) -> Table:
    """Make a row per length table, batch size and number of shapes."""
    alignments = results["config"]["alignments"]
    cases: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        cases.setdefault((row["lengths"], row["batch_size"], row["max_shapes"]), []).append(row)
    body = []
    for (name, batch_size, most), rows in cases.items():
        shapes = [len(row["capacities"]) for row in rows]
        if most == 1 or max(shapes) > 1:  # a plan of two shapes has only one where a second doesn't pay
            extra = max(row["extra"] for row in rows)
            body.append(
                [
                    name,
                    str(batch_size),
                    str(max(shapes)),
                    told_fill(rows[0]["fill"]),
                    *(f"{row['fill']['total']:.3f} ({row['bound']['total']:.3f})" for row in rows),
                    *(f"{row['fill_in_cost']:.3f}" for row in rows),
                    f"{rows[0]['batches']:,}" + (f", {extra} extra" if extra else ""),
                    f"{np.median([row['plan_seconds'] for row in rows]):.2f} s",
                    f"{np.median([row['deal_seconds'] for row in rows]):.2f} s",
                ]
            )
    first, *others = (f"{count:,} samples ({name})" for name, count in results["samples"].items())
    rounded = [_rounding(alignment) for alignment in alignments]
    heading = ["lengths", "B", "shapes", f"fill by modality, {rounded[0]}", *(f"fill, {how}" for how in rounded)]
    return Table(
        "How full packed batches are",
        [*heading, *(f"real cost, {how}" for how in rounded), "batches", "planning", "dealing"],
        body,
        f"Fill is the share of real positions in the capacities of an epoch: of {first}, by modality "
        f"{', '.join(results['modalities'][results['corpus']])}; of {' and '.join(others)}. Log-normal: 5 modalities "
        f"of medians {', '.join(map(str, MEDIANS))}, sigma 1 and a correlation of {CORRELATION:g} (lowest to highest). "
        "Capacities are rounded up to multiples of 8, or of 64, which are tiles of attention. Brackets hold the bound, "
        "which no packing of at most B samples a batch exceeds. Real cost is by the reference cost, where the padded "
        "cost of a packed batch is that of its samples and of its empty positions.",
    )


def _rounding(alignment: int) -> str:
    return "unrounded" if alignment == 1 else f"to {alignment}"


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of how full batches are, and one of other packers."""
    return [fill_table(results), packing.table(results["peers"], results["corpus"])]


def markdown(results: dict[str, Any]) -> str:
    """Return both tables, and where they were measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(*(table.markdown() for table in tables(results)), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("packing", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    return run_experiment("packing", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
