"""Which policy trains fastest here: fixed padding, planned shapes, or packing? And where all lengths are equal?

A few steps of the model of `make compare` are compiled and timed under each policy. The same is done for the same
samples cut or repeated to the median length of each modality, where padding wastes nothing and packing cannot pay.

With Python: python -m experiments.planning.policy_times --data-dir DIR --out results/policy_times/mine
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib import corpora, policies
from experiments.lib.command_line import command_line
from experiments.lib.measure import make_step
from experiments.lib.output import write_results
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import LengthTable, PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.compiling import PolicyTime, PolicyTimes, StepTable, time_policies
from multimodal_pad.lengths.samples import TARGETS


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    Attributes:
        policies: of :mod:`experiments.lib.policies`.
        epochs: numbers of epochs for which the fastest policy is found.
    """

    data_dir: str | None = None
    modalities: tuple[str, ...] | None = None
    samples: int | None = None
    batch_size: int = 32
    policies: tuple[str, ...] = ("fixed", "planned_8/length", "packed")
    epochs: tuple[int, ...] = (1, 10, 100)
    repeats: int = 5


QUICK = {"modalities": ("text",), "samples": 64, "batch_size": 8, "repeats": 1}
"""Options under --quick, to check that everything works."""

VARIED, EQUAL = "as they are", "all equal"


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    corpus = corpora.on_corpus(
        config.data_dir, modalities=config.modalities, samples=config.samples, batch_size=config.batch_size
    )
    samples, lengths, model_config, _ = corpora.load(corpus, progress)
    medians = {
        name: max(1, int(np.median(column))) for name, column in zip(lengths.modalities, lengths.values.T, strict=True)
    }
    data = {VARIED: (samples, lengths), EQUAL: _equal(samples, medians)}
    step = make_step(model_config, corpus.learning_rate, corpus.seed)
    task = progress.add_task("timing", total=len(data))
    rows = []
    for kind, (chosen, table) in data.items():
        batchers = {}
        for spec in config.policies:
            name, grouping = policies.parse_policy(spec)
            policy = policies.make_policy(name, grouping, table, corpus, model_config)
            batchers[spec] = policies.make_batcher(policy, grouping, chosen, table, corpus, model_config)
        steps = StepTable(step.train_step)  # a new one, so that no policy finds programs of another
        found = time_policies(steps, batchers, step.state, epochs=max(config.epochs), repeats=config.repeats)
        rows += [{"lengths": kind, "policy": name, **_as_json(time)} for name, time in found.times.items()]
        progress.advance(task)
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "samples": len(samples),
        "medians": medians,
        "rows": rows,
    }


def _equal(samples: list[dict[str, Any]], medians: dict[str, int]) -> tuple[list[dict[str, Any]], LengthTable]:
    """Return the samples with each modality cut or repeated to its length, and their lengths."""
    made = []
    for sample in samples:
        arrays = {name: np.asarray(sample[name]) for name in medians}
        filled = {name: x if len(x) else np.zeros((1, *x.shape[1:]), x.dtype) for name, x in arrays.items()}
        resized = {name: np.resize(x, (medians[name], *x.shape[1:])) for name, x in filled.items()}
        made.append({**resized, TARGETS: sample[TARGETS]})
    table = np.tile(list(medians.values()), (len(samples), 1))
    return made, LengthTable(tuple(medians), table)


def _as_json(time: PolicyTime) -> dict[str, Any]:
    measured = [
        {
            "rows": one.shape.batch_size,
            "lengths": dict(one.shape.lengths),
            "layout": one.shape.layout.name,
            "step_seconds": one.step_seconds,
        }
        for one in time.measured
    ]
    return {
        "samples": time.samples,
        "shapes": time.shapes,
        "compile_seconds": time.compile_seconds,
        "epoch_seconds": time.epoch_seconds,
        "measured": measured,
    }


def times(results: dict[str, Any], kind: str) -> dict[str, PolicyTime]:
    """Return the policies' times on one kind of lengths."""
    fields = ("samples", "shapes", "compile_seconds", "epoch_seconds")
    rows = [row for row in results["rows"] if row["lengths"] == kind]
    return {row["policy"]: PolicyTime(**{name: row[name] for name in fields}) for row in rows}


def table(results: dict[str, Any]) -> Table:
    """Make a row per policy and kind of lengths; the fastest of each is bold."""
    epochs = results["config"]["epochs"]
    plural = [f"{n} epoch{'s' if n > 1 else ''}, s" for n in epochs]
    heading = ["lengths", "policy", "shapes", "compiling, s", "ms per sample", *plural]
    rows, told = [], []
    for kind in dict.fromkeys(row["lengths"] for row in results["rows"]):
        found = times(results, kind)
        best = [PolicyTimes(n, found).best for n in epochs]
        for name, time in found.items():
            totals = [f"{time.seconds(n):,.0f}" for n in epochs]
            bold = [f"**{total}**" if name == first else total for total, first in zip(totals, best, strict=True)]
            each = [f"{time.shapes}", f"{time.seconds(0):,.0f}", f"{1e3 * time.seconds_per_sample:,.3g}"]
            rows.append([kind, name, *each, *bold])
        told.append(f"Lengths {kind}: {PolicyTimes(epochs[len(epochs) // 2], found).reason}.")
    equal = ", ".join(f"{name} {length}" for name, length in results["medians"].items())
    note = (
        f"{results['samples']:,} samples ({results['corpus']}), batches of {results['config']['batch_size']}, the "
        f"model of `make compare`. All equal: each modality is cut or repeated to its median ({equal}). A step is the "
        f"median of {results['config']['repeats']}, at the largest shape and at that of most steps; the other shapes "
        "are predicted. Batches lie ready on the host."
    )
    return Table("Which policy is fastest", heading, rows, note, text_columns=2, findings=" ".join(told))


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(table(results).markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line(
        "planning.policy_times", __doc__, data_dir="MELD's three CSV files (default: synthetic samples)"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="of the corpus (default: all, or 2000 synthetic ones)")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.samples is not None and options.samples < 1:
        raise PaddingError(f"got --samples {options.samples}; it must be at least 1")
    given = {} if options.samples is None else {"samples": options.samples}
    config = Config(options.data_dir, **{**(QUICK if options.quick else {}), **given})
    write_results("planning.policy_times", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
