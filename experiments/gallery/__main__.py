"""What do batches, a plan and a packing of a corpus look like? Three pictures from its lengths, and nothing is trained.

``batches.png`` has a batch of each policy, row by row; ``plan.png`` is what ``multimodal-pad plan --plot`` draws of 12
shapes, and ``packing.png`` what it draws of ``--packed``.

With Python: python -m experiments.gallery --data-dir DIR --out results/gallery/mine
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from experiments.compare.batches import batches, middle_batch
from experiments.compare.naming import label
from experiments.lib.charts import to_png
from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.distributions import draw_lengths
from experiments.lib.policies import POLICIES
from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table
from multimodal_pad import LengthTable, Packed, Planned, Policy, make_schedule, plan_packing, plan_shapes
from multimodal_pad.planning.comparison import ladders_within, policy_efficiency
from multimodal_pad.planning.packing_plot import plot_packing
from multimodal_pad.planning.plan_plot import plot_plan
from multimodal_pad.sources import Meld

SEED = 0
PIXELS = 300
"""How wide the batch of a policy is drawn."""


@dataclass(frozen=True)
class Config:
    """One run; every default is here.

    Attributes:
        data_dir: MELD's CSV files, or None for synthetic lengths that follow MELD's.
        samples: of synthetic lengths.
        batch_size: samples of a batch.
        batch_shapes: of the plan whose batch is drawn beside the other policies'.
        shapes: of the plan that has a picture of its own.
    """

    data_dir: str | None = None
    samples: int = 9988
    batch_size: int = 32
    batch_shapes: int = 8
    shapes: int = 12


QUICK = {"samples": 300, "batch_size": 8, "batch_shapes": 2, "shapes": 3}
"""A look at whether everything works."""


def load(config: Config) -> LengthTable:
    """Read the lengths to draw."""
    if config.data_dir is None:
        return draw_lengths("meld", config.samples)
    return Meld(config.data_dir, "train").lengths


def run(config: Config, lengths: LengthTable, progress: Progress) -> dict[str, Any]:
    """Return a batch of each policy."""
    plan = {"max_shapes": config.batch_shapes, "cost": reference_cost, "batch_size": config.batch_size}
    policies: list[tuple[str, str, Policy]] = [
        *((name, "random", POLICIES[name](lengths)) for name in ("fixed", "exact")),
        ("powers_of_two", "length", POLICIES["powers_of_two"](lengths)),
        (f"planned_{config.batch_shapes}", "length", Planned(plan_shapes(lengths, **plan))),
        ("packed", "balanced", Packed(plan_packing(lengths, batch_size=config.batch_size, cost=reference_cost))),
    ]
    rows = []
    for name, grouping, policy in progress.track(policies, description="dealing"):
        chosen = policy.grouping or grouping
        schedule = make_schedule(lengths, policy, batch_size=config.batch_size, grouping=chosen, seed=SEED)
        batch = middle_batch(schedule, lengths, packed=grouping == "balanced")
        rows.append({"policy": name, "grouping": grouping, "batch": batch})
    return {"samples": len(lengths), "modalities": list(lengths.modalities), "rows": rows}


def draw(config: Config, lengths: LengthTable, results: dict[str, Any], folder: Path) -> None:
    """Draw the three pictures."""
    (folder / "batches.png").write_bytes(to_png(batches(results)._replace(columns=3), PIXELS))
    options = {"cost": reference_cost, "batch_size": config.batch_size}
    plan = plan_shapes(lengths, max_shapes=config.shapes, **options)
    ladders = ladders_within(lengths, len(plan)).items()
    others = {name: policy_efficiency(policy, lengths, reference_cost) for name, policy in ladders}
    plot_plan(plan, lengths, folder / "plan.png", others)
    plot_packing(plan_packing(lengths, **options), lengths, folder / "packing.png")


def markdown(results: dict[str, Any]) -> str:
    """Return what the batches that are drawn hold."""
    rows = []
    for row in results["rows"]:
        batch = row["batch"]
        lines = 1 if batch["packed"] else len(batch["lengths"])
        real = [sum(column) for column in zip(*batch["lengths"], strict=True)]
        shares = [f"{n / (lines * padded):.2f}" for n, padded in zip(real, batch["padded"], strict=True)]
        rows.append([label(row), *shares])
    return Table("Real share of the batch that is drawn", ["", *results["modalities"]], rows).markdown()


def main(arguments: list[str]) -> int:
    """Draw and write; the exit status."""
    parser = command_line("gallery", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    loaded: list[LengthTable] = []

    def measure(progress: Progress) -> dict[str, Any]:
        loaded.append(load(config))
        return run(config, loaded[0], progress)

    def pictures(results: dict[str, Any], path: Path) -> None:
        draw(config, loaded[0], results, path.parent)

    return run_experiment("gallery", arguments, options.out, measure, markdown, pictures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
