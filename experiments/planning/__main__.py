"""How good are planned shapes, how near the bound, and how long does planning take on one core?

With --data-dir, shapes are planned for MELD's training utterances by the reference cost, and then rated on the dev and
test utterances; without it, for synthetic lengths that follow MELD's. Last comes a table of millions of samples.

With Python: python -m experiments.planning --data-dir DIR --out results/planning/mine
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments.lib.command_line import command_line
from experiments.lib.distributions import MODALITIES, log_normal_lengths
from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import LengthTable, Planned, ShapePlan, make_schedule, plan_shapes
from multimodal_pad.cli import exit_status
from multimodal_pad.output import write_folder
from multimodal_pad.planning.comparison import ladders_within, policy_efficiency
from multimodal_pad.planning.plan_fit import plan_efficiency
from multimodal_pad.planning.plan_plot import plot_plan
from multimodal_pad.sources import Meld, Synthetic

SHAPES = (1, 4, 8, 16, 32)
DRAWN = 16
"""Number of shapes of the plan in the picture."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    samples: int = 9988
    batch_size: int = 32
    repeats: int = 3
    effort: float = 1.0
    large_samples: int = 10_000_000
    large_shapes: tuple[int, ...] = (8, 32)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, to one core where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def load(config: Config) -> dict[str, LengthTable]:
    """Load the lengths of each split."""
    if config.data_dir is None:
        return {"train": Synthetic(config.samples).lengths, "dev": Synthetic(config.samples // 9, seed=1).lengths}
    return {split: Meld(config.data_dir, split).lengths for split in ("train", "dev", "test")}


def run(config: Config, splits: dict[str, LengthTable]) -> dict[str, Any]:
    """Measure everything; return the results."""
    train = splits["train"]
    rows, transfers = [], []
    console = Console(stderr=True)
    for count in track(SHAPES, "planning", console=console, disable=not console.is_terminal):
        plan, seconds = _timed_plan(train, count, config)
        rows.append(_plan_row(plan, train, seconds))
        if count > 1:
            transfers += [
                _transfer_row(plan, split, splits[split], config.effort) for split in splits if split != "train"
            ]
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "samples": len(train),
        "plans": rows,
        "transfers": transfers,
        "large": [
            _run_large(config.large_samples, count)
            for count in track(
                config.large_shapes, "planning large tables", console=console, disable=not console.is_terminal
            )
        ],
    }


def _timed_plan(lengths: LengthTable, count: int, config: Config) -> tuple[ShapePlan, list[float]]:
    """Plan several times; return the plan, and the seconds of each time."""
    seconds, plans = [], []
    for _ in range(config.repeats):
        begun = time.perf_counter()
        options = {"batch_size": config.batch_size, "effort": config.effort}
        plans.append(plan_shapes(lengths, max_shapes=count, cost=reference_cost, **options))
        seconds.append(time.perf_counter() - begun)
    return plans[-1], seconds


def _plan_row(plan: ShapePlan, train: LengthTable, seconds: list[float]) -> dict[str, Any]:
    """Measure a plan, its schedule, and ladders with as many shapes."""
    steps = make_schedule(train, Planned(plan), cost=reference_cost)
    padded = float(steps.batch_sizes @ reference_cost(steps.lengths))
    ladders = {
        name: policy_efficiency(policy, train, reference_cost)._asdict()
        for name, policy in ladders_within(train, len(plan)).items()
    }
    return {
        "shapes": len(plan),
        "efficiency": plan.efficiency,
        "bound": plan.bound,
        "gap": plan.gap,
        "scheduled_efficiency": float(reference_cost(train.values).sum()) / padded,
        "seconds": seconds,
        "planned_shapes": plan.lengths.tolist(),
        "modalities": list(plan.modalities),
        "ladders": ladders,
    }


def _transfer_row(plan: ShapePlan, split: str, lengths: LengthTable, effort: float) -> dict[str, Any]:
    """Compare a plan, on lengths that it was not made for, with a plan made for them."""
    covered = Planned(plan).covers(lengths.values)
    kept = LengthTable(lengths.modalities, lengths.values[covered])
    own = plan_shapes(kept, max_shapes=len(plan), cost=reference_cost, effort=effort)
    return {
        "split": split,
        "samples": len(lengths),
        "uncovered": int((~covered).sum()),
        "shapes": len(plan),
        "efficiency": plan_efficiency(plan, kept),
        "own_efficiency": own.efficiency,
    }


def _run_large(samples: int, shapes: int) -> dict[str, Any]:
    """Plan for a large table in a process of its own, whose peak memory is then its own."""
    command = [sys.executable, "-m", "experiments.planning", "--large", str(samples), str(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def plan_large(samples: int, shapes: int) -> dict[str, Any]:
    """Plan shapes for so many lengths of three modalities in multiples of 8."""
    table = LengthTable(MODALITIES, log_normal_lengths(samples))
    begun = time.perf_counter()
    plan = plan_shapes(table, max_shapes=shapes, cost=reference_cost, alignment=8)
    seconds = time.perf_counter() - begun
    return {
        "samples": samples,
        "shapes": len(plan),
        "efficiency": plan.efficiency,
        "bound": plan.bound,
        "seconds": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "table_gib": table.values.nbytes / 2**30,
    }


def draw(lengths: LengthTable, path: Path) -> None:
    """Draw a plan beside the ladders."""
    ladders = ladders_within(lengths, DRAWN).items()
    others = {name: policy_efficiency(policy, lengths, reference_cost) for name, policy in ladders}
    plot_plan(plan_shapes(lengths, max_shapes=DRAWN, cost=reference_cost), lengths, path, others)


def markdown(results: dict[str, Any]) -> str:
    """Return the table, what other splits and sizes give, and where it was measured."""
    from experiments.lib.provenance import measured_on  # imports JAX, which a large table's process does without

    rows = []
    for row in results["plans"]:
        ladders = [
            f"{row['ladders'][name]['cost']:.3f} ({row['ladders'][name]['shapes']})"
            for name in ("powers of two", "quantiles")
        ]
        shares = [f"{row[key]:.3f}" for key in ("efficiency", "scheduled_efficiency", "bound")]
        rows.append([str(row["shapes"]), *shares, *ladders, f"{np.median(row['seconds']):.2f} s"])
    config = results["config"]
    findings = [
        *(
            f"The plan with {row['shapes']} shapes has a real cost of {row['efficiency']:.3f} on {row['split']} "
            f"({row['samples']:,} samples, {row['uncovered']} too long for it); a plan made for that split has "
            f"{row['own_efficiency']:.3f}."
            for row in results["transfers"]
            if row["shapes"] == 16
        ),
        *(
            f"{row['samples']:,} samples in multiples of 8: {row['shapes']} shapes in {row['seconds']:.1f} s and "
            f"{row['peak_memory_gib']:.1f} GiB, of which the table takes {row['table_gib']:.1f} GiB."
            for row in results["large"]
        ),
    ]
    table = Table(
        "Planned shapes",
        ["batch shapes", "planned", "in a schedule", "bound", "powers of two", "quantiles", "planning"],
        rows,
        f"Real cost, by the reference cost, on {results['samples']:,} samples ({results['corpus']}), with batches of "
        f"{config['batch_size']} in the schedule. Brackets hold the number of shapes of the finest ladder within the "
        f"same number. Planning: median of {config['repeats']} plans on one core.",
        text_columns=0,
        findings=" ".join(findings),
    )
    return paragraphs(table.markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("planning", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    parser.add_argument("--large", nargs=2, type=int, metavar=("SAMPLES", "SHAPES"), help="only plan a large table")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.large:
        with one_core():
            print(json.dumps(plan_large(*options.large)))
        return
    from experiments.lib.provenance import provenance  # imports JAX, which a large table's process does without

    quick = (
        {"samples": 1500, "repeats": 2, "effort": 0.1, "large_samples": 20_000, "large_shapes": (4,)}
        if options.quick
        else {}
    )
    out = options.out or Path("results", "planning", datetime.now().strftime("%Y-%m-%dT%H-%M-%S"))
    with write_folder(out) as folder:
        origin, config = provenance("experiments.planning", arguments), Config(options.data_dir, **quick)
        lengths = load(config)
        with one_core():
            results = {**origin, **run(config, lengths)}
        draw(lengths["train"], folder / "plan.png")
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    print(f"Written: {out / 'results.json'} and {out / 'plan.png'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
