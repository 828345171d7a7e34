"""How do compiler options change compiling and the step, side by side in one run?

The train step of `make compare` is compiled with each set of options in turn, several times, and each set's programs
are timed in turn at a small, a medium and the largest shape of a plan. Ratios are to XLA as it is, round by round.

With Python: python -m experiments.start_up.compiler_options --data-dir DIR
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.lib import corpora, policies
from experiments.lib.command_line import command_line
from experiments.lib.measure import make_step
from experiments.lib.output import write_results
from experiments.lib.provenance import measured_on
from experiments.lib.tables import Table, paragraphs, spread
from experiments.lib.timing import time_calls
from multimodal_pad import Batch, BatchShape, BucketBatcher, PaddingError, Planned, plan_shapes
from multimodal_pad.cli import exit_status
from multimodal_pad.compiling import StepTable

CANDIDATES: dict[str, tuple[str, ...]] = {
    "cpu": (
        "xla_backend_optimization_level=1",
        "xla_llvm_disable_expensive_passes=true",
        "xla_backend_optimization_level=1 xla_llvm_disable_expensive_passes=true",
    ),
    "gpu": (
        "xla_gpu_enable_triton_gemm=false",
        "xla_gpu_autotune_level=0",
        "xla_gpu_enable_triton_gemm=false xla_gpu_experimental_enable_fusion_autotuner=false",
    ),
}
"""Sets of options that may compile faster, by platform."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    options: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    samples: int | None = None
    batch_size: int = 32
    shapes: int = 8
    compilations: int = 3
    rounds: int = 9
    seconds: float = 1.0


QUICK = {"modalities": ("text",), "samples": 64, "batch_size": 8, "shapes": 3, "compilations": 1, "rounds": 2}
"""Options under --quick, to check that everything works."""


def parse_options(text: str) -> dict[str, bool | int | str]:
    """Parse the options of one set.

    >>> parse_options("xla_a=1 xla_b=false xla_c=text")
    {'xla_a': 1, 'xla_b': False, 'xla_c': 'text'}
    """
    options: dict[str, bool | int | str] = {}
    for part in text.split():
        name, equals, value = part.removeprefix("--").partition("=")
        if not (name and equals and value):
            raise PaddingError(f"got the option {part!r}; write name=value, several of a set in one pair of quotes")
        known = {"true": True, "false": False}
        options[name] = known[value] if value in known else int(value) if value.lstrip("-").isdigit() else value
    return options


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    sets = ["", *(config.options or CANDIDATES.get(jax.default_backend(), ()))]
    given = {text: parse_options(text) for text in sets}
    comparison = corpora.on_corpus(
        config.data_dir, modalities=config.modalities, samples=config.samples, batch_size=config.batch_size
    )
    samples, lengths, model_config, _ = corpora.load(comparison, progress)
    plan = plan_shapes(lengths, max_shapes=config.shapes, cost=model_config.cost, batch_size=config.batch_size)
    batcher = policies.make_batcher(Planned(plan), "length", samples, lengths, comparison, model_config)
    batches = _batches(batcher, [plan.batch_shapes[place] for place in (0, (len(plan) - 1) // 2, -1)])
    step = make_step(model_config, comparison.learning_rate, comparison.seed)
    initial = jax.tree.map(np.asarray, step.state)
    rng = np.random.default_rng(0)
    compiling: dict[str, list[float]] = {text: [] for text in sets}
    task = progress.add_task("compiling", total=config.compilations * len(sets) + 1)

    def compiled(text: str, batch: Batch) -> StepTable:
        jax.clear_caches()  # so that no program compiled before is found
        table = StepTable(step.train_step, donate_state=True, compiler_options=given[text])
        table.compile(initial, batch)
        return table

    compiled("", batches[1])  # the first compilation of a process is slower
    progress.advance(task)
    for _ in range(config.compilations):
        for text in rng.permutation(sets).tolist():
            compiling[text].append(compiled(text, batches[1]).steps[batches[1].shape].seconds)
            progress.advance(task)
    timing = progress.add_task("stepping", total=len(batches) * config.rounds)
    steps = []
    for batch in batches:
        tables = {text: compiled(text, batch) for text in sets}
        taken: dict[str, list[float]] = {text: [] for text in sets}
        for _ in range(config.rounds):
            for text in rng.permutation(sets).tolist():
                taken[text].append(_seconds(tables[text], initial, batch, config.seconds))
            progress.advance(timing)
        steps.append({"shape": str(batch.shape), "step_seconds": taken})
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "sets": sets,
        "compile_seconds": compiling,
        "steps": steps,
    }


def _batches(batcher: BucketBatcher, shapes: list[BatchShape]) -> list[Batch]:
    """Return the first batch of an epoch of each shape."""
    found: dict[BatchShape, Batch] = {}
    for batch in batcher.epoch(0):
        if batch.shape in shapes:
            found.setdefault(batch.shape, batch)
        if len(found) == len(set(shapes)):
            break
    return [found[shape] for shape in dict.fromkeys(shapes) if shape in found]


def _seconds(table: StepTable, initial: Any, batch: Batch, seconds: float) -> float:
    """Time a step: the median of rounds after a first step."""
    state = jax.device_put(initial)

    def step() -> Any:
        nonlocal state
        state, metrics = table(state, batch)
        return metrics.loss

    jax.block_until_ready(step())
    return float(np.median(time_calls(step, jax.block_until_ready, seconds=seconds)))


def table(results: dict[str, Any]) -> Table:
    """Make a row per set of options."""
    compiling, usual = results["compile_seconds"], results["compile_seconds"][""]
    rows = []
    for text in results["sets"]:
        ratios = [np.divide(step["step_seconds"][text], step["step_seconds"][""]) for step in results["steps"]]
        share = np.divide(compiling[text], usual)
        cells = [spread(values) if text else "1" for values in (share, *ratios)]
        rows.append([f"`{text}`" if text else "XLA as it is", f"{spread(compiling[text], '.1f')} s", *cells])
    shapes = [step["shape"] for step in results["steps"]]
    usual_ms = [1e3 * float(np.median(step["step_seconds"][""])) for step in results["steps"]]
    heading = ["options", "compiling", "of XLA's", *(f"step, {shape}" for shape in shapes)]
    note = (
        f"{results['corpus']}. Compiling: seconds to trace, lower and compile one shape alone, "
        f"{shapes[min(1, len(shapes) - 1)]}; median and middle half of {results['config']['compilations']} "
        f"compilations, in turn. The other columns are ratios to XLA as it is, round by round, of "
        f"{results['config']['rounds']} rounds in turn; steps with XLA as it is take "
        f"{', '.join(f'{ms:,.1f}' for ms in usual_ms)} ms."
    )
    return Table("Compiler options", heading, rows, note)


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    return paragraphs(table(results).markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line(
        "start_up.compiler_options", __doc__, data_dir="MELD's three CSV files (default: synthetic samples)"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="SET",
        help="sets of options to try, each in quotes: 'xla_a=1 xla_b=false' (default: those known for this platform)",
    )
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, tuple(options.options), **(QUICK if options.quick else {}))

    def measure() -> None:
        for text in config.options:
            parse_options(text)  # so that a wrong option is an error before anything is compiled
        cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
        jax.config.update("jax_enable_compilation_cache", False)  # since compiling is measured
        try:
            write_results(
                "start_up.compiler_options", arguments, options.out, lambda progress: run(config, progress), markdown
            )
        finally:
            jax.config.update("jax_enable_compilation_cache", cached)

    return exit_status(measure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
