"""What does padding cost? Fixed, exact, bucketed and planned padding, and packing, side by side on the same samples.

Every policy trains the same model from the same parameters on the same samples, with the same seed and
batch size. A policy is measured for its share of --max-minutes; where that ends before its epochs do,
what the whole run would take is estimated from the steps measured and marked with "~". Numbers of shapes
and padding efficiency never need an estimate: they follow from the lengths.

With make: make compare ARGS="--source meld --data-dir DIR"
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.compare_measure import initial_model, make_step, measure, summarise
from experiments.compare_report import comparison_table, write_report
from experiments.provenance import provenance
from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    Policy,
    pad_samples,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.cli import exit_status
from multimodal_pad.compiling import CompileLog, StepTable, plan_run
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.models import ModalityConfig, TransformerConfig
from multimodal_pad.output import write_folder
from multimodal_pad.scheduling.groupings import GROUPINGS
from multimodal_pad.sources import Meld, Synthetic
from multimodal_pad.training import TrainStep

POLICIES: dict[str, Callable[[LengthTable], Policy]] = {
    "fixed": Fixed.longest,
    "exact": lambda lengths: Exact(lengths.modalities),
    "powers_of_two": lambda lengths: Ladder.powers_of_two(lengths, smallest=8),
    "multiples_of_64": lambda lengths: Ladder.multiples_of(lengths, 64),
    "quantiles_4": lambda lengths: Ladder.quantiles(lengths, 4),
}
KERNEL_SIZES = {"audio": 3, "visual": 3}  # MulT's, where a modality is features; 1 elsewhere


@dataclass(frozen=True)
class Config:
    """One comparison; every default is here."""

    source: str = "synthetic"
    data_dir: str | None = None
    modalities: tuple[str, ...] | None = None
    policies: tuple[str, ...] = (
        "fixed",
        "exact",
        "powers_of_two/length",
        "planned_8/random",
        "planned_8/length",
        "packed",
    )
    samples: int | None = None
    epochs: int = 10
    batch_size: int = 32
    max_minutes: float = 4.0
    seed: int = 0
    d_model: int = 40
    num_heads: int = 8
    layers: int = 1
    learning_rate: float = 1e-3


QUICK = {"modalities": ("text", "audio"), "samples": 64, "epochs": 1, "batch_size": 16, "max_minutes": 0.4}
"""What --quick changes: a look at whether everything works, not at what padding costs."""


def on_corpus(data_dir: str | None, **given: Any) -> Config:
    """The configuration of other experiments on the same samples and model; what is None is the default."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return Config(source="synthetic" if data_dir is None else "meld", data_dir=data_dir, **chosen)


def compare(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure every policy: what ``results.json`` holds beside where it comes from."""
    samples, lengths, model_config, left_out = load(config, progress)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(np.zeros(8)))  # the backend's start is nobody's cost
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
        rows.append(summarise(name, batcher, schedules, model_config.cost, measured, preparing, reason))
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


def make_batcher(
    policy: Policy,
    grouping: str,
    samples: list[dict[str, Any]],
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
) -> BucketBatcher:
    """The batches of a policy."""
    return BucketBatcher(
        samples,
        policy,
        batch_size=config.batch_size,
        lengths=lengths,
        grouping=policy.grouping or grouping,
        seed=config.seed,
        cost=policy.cost or model_config.cost,  # a plan for a device has it in seconds
    )


def make_policy(
    name: str,
    grouping: str,
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
    *,
    shares: int = 1,
) -> Policy:
    """The policy that a name stands for; :func:`plan_for_device` makes ``planned_auto``.

    ``shares`` is how many devices take a part of each packed batch.
    """
    if name in POLICIES:
        return POLICIES[name](lengths)
    if name == "packed":
        options = {"cost": model_config.cost, "seed": config.seed, "tile_pairs": jax.default_backend() != "cpu"}
        return Packed(plan_packing(lengths, batch_size=config.batch_size, shares=shares, **options))
    plan = plan_shapes(
        lengths,
        max_shapes=int(name.removeprefix("planned_")),
        cost=model_config.cost,
        grouping=grouping,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return Planned(plan)


def plan_for_device(
    table: StepTable,
    step: TrainStep,
    grouping: str,
    samples: list[dict[str, Any]],
    lengths: LengthTable,
    config: Config,
    model_config: TransformerConfig,
) -> Planned:
    """The policy ``planned_auto``: as many shapes as pay on this device. What is compiled for it stays in the table."""
    plan = plan_run(
        table,
        lengths,
        step.state,
        pad_samples(samples[:1], modalities=lengths.modalities),
        epochs=config.epochs,
        cost=model_config.cost,
        grouping=grouping,
        batch_size=config.batch_size,
        seed=config.seed,
        progress=False,
    )
    return Planned(plan)


def load(
    config: Config, progress: Progress
) -> tuple[list[dict[str, Any]], LengthTable, TransformerConfig, list[dict[str, Any]]]:
    """The samples in memory, their lengths, the model for them, and the rows left out."""
    vocabulary_sizes: dict[str, int] = {}
    left_out = []
    if config.source == "meld":
        if config.data_dir is None:
            raise PaddingError("--source meld needs --data-dir, the folder of MELD's three CSV files")
        source = Meld(config.data_dir, "train", seed=config.seed)
        classes, vocabulary_sizes["text"] = 7, len(source.vocabulary) + 2
        left_out = [row._asdict() for row in source.left_out]
    else:
        source, classes = Synthetic(config.samples or 2000, seed=config.seed), 3
    chosen = np.random.default_rng(config.seed).permutation(len(source))[: config.samples]
    samples = [source[int(index)] for index in progress.track(chosen, description="reading")]
    lengths = LengthTable(source.lengths.modalities, source.lengths.values[chosen])
    lengths = lengths.select(config.modalities or lengths.modalities)
    model_config = TransformerConfig(
        modality_configs(samples[0], lengths.modalities, vocabulary_sizes),
        classes,
        d_model=config.d_model,
        num_heads=config.num_heads,
        crossmodal_layers=config.layers,
        memory_layers=config.layers,
        dropout_rate=0.0,  # so that the first loss is the same under every policy of one grouping
    )
    return samples, lengths, model_config, left_out


def modality_configs(
    sample: Sample, names: Sequence[str], vocabulary_sizes: Mapping[str, int]
) -> dict[str, ModalityConfig]:
    """What each modality of a corpus feeds the model: token ids of a vocabulary, or features as wide as a sample's."""
    return {
        name: ModalityConfig(vocabulary_size=vocabulary_sizes[name])
        if name in vocabulary_sizes
        else ModalityConfig(feature_width=sample[name].shape[1], kernel_size=KERNEL_SIZES.get(name, 1))
        for name in names
    }


def parse_policy(spec: str) -> tuple[str, str]:
    """``"fixed"`` or ``"powers_of_two/length"`` to a policy's name and the grouping.

    >>> parse_policy("exact"), parse_policy("powers_of_two/length")
    (('exact', 'random'), ('powers_of_two', 'length'))
    >>> parse_policy("packed")
    ('packed', 'balanced')
    """
    if spec == "packed":
        return spec, "balanced"
    name, _, grouping = spec.partition("/")
    known = name in POLICIES or re.fullmatch(r"planned_(auto|[1-9]\d*)", name)
    if known and (grouping or "random") in GROUPINGS:
        return name, grouping or "random"
    raise PaddingError(
        f"got the policy {spec!r}; choose one of {[*POLICIES, 'planned_8', 'planned_auto']} (8 or any other number), "
        "with /random (the default) or /length behind it, or packed"
    )


def parse_arguments(arguments: list[str]) -> tuple[Config, Path]:
    """The configuration, and the folder to write."""
    default = Config()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare_padding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", choices=["synthetic", "meld"], help="synthetic follows MELD's lengths (default)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the corpus, for --source meld")
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
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/compare_padding/<time>")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out") or Path("results", "compare_padding", datetime.now().strftime("%Y-%m-%dT%H-%M-%S"))
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
    origin = provenance("experiments.compare_padding", arguments)
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
