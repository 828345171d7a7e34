"""How well does a calibrated cost model predict the seconds of steps at other shapes?

The step is calibrated at quantiles of the lengths, and then timed at the shapes of a plan. The cost model is fitted
with one rate for linear and one for quadratic FLOPs, and with one rate for all.

With Python: python -m experiments.planning.calibration --data-dir DIR --out results/calibration/mine
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib import corpora, policies
from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.measure import make_step
from experiments.lib.provenance import measured_on
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import BatchShape, BatchSpec, Planned, plan_shapes
from multimodal_pad.compiling import Calibration, StepTable, calibrate, typical_shapes
from multimodal_pad.layouts.layout import batch_shapes
from multimodal_pad.lengths.cost import Cost

QUANTILES = (0.25, 0.5, 0.9, 0.99, 1.0)
"""Quantile levels of the lengths; the step is calibrated at the shape of each."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    modalities: tuple[str, ...] | None = None
    samples: int | None = None
    batch_size: int = 32
    shapes: int = 8
    repeats: int = 5


QUICK = {"modalities": ("text",), "samples": 64, "batch_size": 8, "shapes": 2, "repeats": 1}
"""Options under --quick, to check that everything works."""


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    comparison = corpora.on_corpus(
        config.data_dir, modalities=config.modalities, samples=config.samples, batch_size=config.batch_size
    )
    samples, lengths, model_config, _ = corpora.load(comparison, progress)
    step = make_step(model_config, comparison.learning_rate, comparison.seed)
    table, cost = StepTable(step.train_step), model_config.cost
    plan = plan_shapes(lengths, max_shapes=config.shapes, cost=cost, batch_size=config.batch_size)
    batcher = policies.make_batcher(Planned(plan), "length", samples, lengths, comparison, model_config)
    example, seen = batcher.example(), typical_shapes(lengths, config.batch_size, QUANTILES)
    task = progress.add_task("calibrating", total=3)

    def measured(shapes: Sequence[BatchShape], cost: Cost) -> Calibration:
        found = calibrate(table, BatchSpec(shapes, example), step.state, cost=cost, repeats=config.repeats)
        progress.advance(task)
        return found

    begun = time.perf_counter()
    two_rates = measured(seen, cost)
    seconds = time.perf_counter() - begun
    one_rate = measured(seen, cost.__call__)
    planned = batch_shapes(plan.batch_sizes, plan.lengths, plan.modalities, batcher.policy.layout)
    timed = measured(planned, cost)
    rows = [
        {
            "lengths": dict(zip(plan.modalities, shape.tolist(), strict=True)),
            "seconds": taken,
            "two_rates": _predict(two_rates, shape, config.batch_size),
            "one_rate": _predict(one_rate, shape, config.batch_size),
        }
        for shape, taken in zip(plan.lengths, timed.step_seconds, strict=True)
    ]
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "seen": [dict(shape.lengths) for shape in seen],
        "seconds_to_calibrate": seconds,
        "compile_seconds": two_rates.compile_seconds,
        "error": {"two_rates": two_rates.error, "one_rate": one_rate.error},
        "unseen": rows,
    }


def _predict(found: Calibration, shape: np.ndarray, rows: int) -> float:
    """Predict the seconds of a step of so many rows at padded lengths ``(M,)``."""
    return found.seconds_per_cost * (found.batch_overhead + rows * float(found.cost(shape[None])[0]))


def markdown(results: dict[str, Any]) -> str:
    """Return the table, the errors, and where they were measured."""
    rows = results["unseen"]
    cells = []
    for row in rows:
        shape = ", ".join(f"{name} {length}" for name, length in row["lengths"].items())
        cells.append([shape, *(f"{1e3 * row[key]:,.0f} ms" for key in ("seconds", "two_rates", "one_rate"))])
    two, one = (_off(rows, key) for key in ("two_rates", "one_rate"))
    table = Table(
        "Seconds of a step, predicted",
        ["shape", "measured", "predicted", "with one rate for all FLOPs"],
        cells,
        f"Steps of {results['config']['batch_size']} rows at {len(rows)} planned shapes, predicted from "
        f"{len(results['seen'])} others ({results['corpus']}).",
        findings=f"The predictions are off by {two}; with one rate by {one}. `calibrate` took "
        f"{results['seconds_to_calibrate']:.0f} s and reported an error of "
        f"{100 * results['error']['two_rates']:.0f} %.",
    )
    return paragraphs(table.markdown(), measured_on(results))


def _off(rows: list[dict[str, Any]], key: str) -> str:
    errors = [100 * abs(row[key] / row["seconds"] - 1) for row in rows]
    return f"{np.median(errors):.0f} % (median) and {max(errors):.0f} % (most)"


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line(
        "planning.calibration", __doc__, data_dir="MELD's three CSV files (default: synthetic samples)"
    )
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    return run_experiment(
        "planning.calibration", arguments, options.out, lambda progress: run(config, progress), markdown
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
