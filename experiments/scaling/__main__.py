"""How do time, memory and compilations grow with length, batch size, modalities, shapes and the size of the corpus?

Three things are measured: train steps of the multimodal transformer, every position real, over length, rows and number
of modalities, padded and packed; plans, warm-ups and compile counts over the number of shapes; plans and schedules,
padded and packed, over the number of samples. Each series is fitted with a power law, over all points and between the
two largest alone, since small sizes are mostly constant overhead.

Points of an axis are timed in turn, in another order each round; a point ends early once its rounds have taken long
enough. With --data-dir, the shapes are planned for MELD's training utterances; without it, for synthetic lengths that
follow MELD's.

With Python: python -m experiments.scaling --data-dir DIR --out results/scaling/mine
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.distributions import draw_lengths
from experiments.scaling.plans import measure_samples, measure_shapes
from experiments.scaling.report import draw, exponents, fit_all, markdown, tables
from experiments.scaling.rounds import QUICK, Config
from experiments.scaling.steps import measure_steps, step_axes
from multimodal_pad.sources import Meld

__all__ = ["Config", "draw", "exponents", "main", "markdown", "run", "tables"]


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    if config.data_dir is None:
        lengths = draw_lengths("meld", config.planned_samples, config.seed)
    else:
        lengths = Meld(config.data_dir, "train").lengths
    steps = {point for points in step_axes(config).values() for point in points}
    models = {point.modalities for point in steps}
    # Often: stepping and making schedules. Seldom: compiling and planning. Steps and corpora have both layouts.
    often = config.step_rounds * (2 * len(steps) + 2 * len(config.samples))
    seldom = config.rounds * (2 * len(steps) + 2 * len(config.shapes) + 2 * len(config.samples))
    task = progress.add_task("measuring", total=len(models) + often + seldom)

    def done(what: str, count: int = 1) -> None:
        progress.update(task, description=what, advance=count)

    points = measure_steps(config, done)
    points["shapes"] = measure_shapes(config, lengths, done)
    points["samples"] = measure_samples(config, done)
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "samples": len(lengths),
        "points": points,
        "exponents": fit_all(points, config.seed),
    }


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("scaling", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    return run_experiment("scaling", arguments, options.out, lambda progress: run(config, progress), markdown, draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
