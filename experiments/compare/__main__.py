"""What does padding cost? Fixed, exact, bucketed and planned padding, and packing, side by side on the same samples.

Every policy trains the same model from the same parameters on the same samples, with the same seed and
batch size. A policy is measured for its share of --max-minutes; where that ends before its epochs do,
what the whole run would take is estimated from the steps measured and marked with "~". Numbers of shapes
and padding efficiency never need an estimate: they follow from the lengths.

With make: make compare ARGS="--source meld --data-dir DIR"
"""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.compare.batches import middle_batch
from experiments.compare.report import comparison_table, write_report
from experiments.lib.command_line import command_line
from experiments.lib.corpora import QUICK, Config, load
from experiments.lib.measure import initial_model, make_step, measure, summarise
from experiments.lib.policies import POLICIES, make_batcher, make_policy, parse_policy, plan_for_device
from experiments.lib.provenance import provenance
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.compiling import CompileLog, StepTable
from multimodal_pad.output import write_folder


def compare(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure every policy: what ``results.json`` holds beside where it comes from."""
    samples, lengths, model_config, left_out = load(config, progress)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(np.zeros(8)))  # the backend's start is no policy's cost
    deadline = time.perf_counter() + 60 * config.max_minutes
    rows = []
    for place, spec in enumerate(config.policies):
        name, grouping = parse_policy(spec)
        step = make_step(model_config, config.learning_rate, config.seed)
        table = StepTable(step.train_step, donate_state=True)
        reason, begun = "", time.perf_counter()
        if name == "planned_auto":
            policy = plan_for_device(table, step, grouping, samples, lengths, config, model_config)
            reason = policy.plan.reason
        else:
            policy = make_policy(name, grouping, lengths, config, model_config)
        preparing = time.perf_counter() - begun
        batcher = make_batcher(policy, grouping, samples, lengths, config, model_config)
        schedules = [batcher.schedule(epoch) for epoch in range(config.epochs)]
        task = progress.add_task(f"{name}/{grouping}", total=sum(map(len, schedules)))
        measured = measure(
            batcher,
            schedules,
            step.state,
            table,
            seconds=(deadline - time.perf_counter()) / (len(config.policies) - place),
            tick=lambda done, task=task: progress.update(task, completed=done),
        )
        progress.stop_task(task)
        row = summarise(name, batcher, schedules, model_config.cost, measured, preparing, reason)
        rows.append({**row, "batch": middle_batch(schedules[0], batcher.lengths, packed=grouping == "balanced")})
        jax.clear_caches()
        gc.collect()
    model = initial_model(model_config, config.seed)
    return {
        "config": asdict(config),
        "parameters": sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "modalities": list(lengths.modalities),
        "samples": len(lengths),
        "left_out": left_out,
        "lengths": lengths.values[:: 1 + len(lengths) // 2000].tolist(),
        "rows": rows,
    }


def parse_arguments(arguments: list[str]) -> tuple[Config, Path]:
    """Return the configuration, and the folder to write."""
    default = Config()
    parser = command_line("compare", __doc__, data_dir="folder of the corpus, for --source meld")
    parser.add_argument("--source", choices=["synthetic", "meld"], help="synthetic follows MELD's lengths (default)")
    parser.add_argument(
        "--modalities", nargs="+", metavar="NAME", help="of text, audio, visual (default: all of the source)"
    )
    parser.add_argument(
        "--policies",
        nargs="+",
        metavar="POLICY",
        help=f"of {', '.join(POLICIES)}, planned_N (at most N shapes) and planned_auto (as many as pay), each with "
        f"/random or /length behind it; packed (default: {' '.join(default.policies)})",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="2000 synthetic ones, or all of a corpus")
    parser.add_argument("--epochs", type=int, metavar="N", help=f"of the run to judge (default: {default.epochs})")
    parser.add_argument("--batch-size", type=int, metavar="N", help=f"default: {default.batch_size}")
    parser.add_argument(
        "--max-minutes", type=float, metavar="M", help=f"for all policies together (default: {default.max_minutes})"
    )
    parser.add_argument("--seed", type=int, metavar="N", help=f"default: {default.seed}")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out") or Path("results", "compare", datetime.now().strftime("%Y-%m-%dT%H-%M-%S"))
    quick = QUICK if given.pop("quick") else {}
    given = {name: value for name, value in given.items() if value is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    config = replace(default, **{**quick, **given})
    for spec in config.policies:
        parse_policy(spec)
    for name in ("samples", "epochs", "max_minutes"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise PaddingError(f"got --{name.replace('_', '-')} {value}; it must be above 0")
    if config.seed < 0:
        raise PaddingError(f"got --seed {config.seed}; it must be 0 or more")
    return config, out


def main(arguments: list[str]) -> int:
    """Run the comparison; the exit status."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    console = Console()
    columns = [TextColumn("{task.description:>23}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    config, out = parse_arguments(arguments)
    origin = provenance("experiments.compare", arguments)
    with write_folder(out) as folder:  # at once: not to find out at the end that it can't be written
        with Progress(*columns, console=console) as progress, CompileLog() as log:
            results = {**origin, **compare(config, progress)}
        results["compile_report"] = log.report("train_step")
        write_report(results, folder)
    console.print(comparison_table(results))
    console.print(results["compile_report"], highlight=False)
    console.print(f"Written: {out / 'results.json'} and {out / 'report.html'}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
