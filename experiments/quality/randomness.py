"""What do length grouping and packing do to the randomness of training, and what has the shuffle window to do with it?

First, for each window of length grouping, for random batches and for packed ones, how much of the cost is real, and how
far the order is from a random one: the figures that the default window is chosen by. Then loss curves of a text model,
with batches drawn at random, grouped by length at that window, and packed, from several seeds: the difference, and its
spread.

With --data-dir on MELD's training utterances, evaluated on dev; without it on synthetic ones.

With Python: python -m experiments.quality.randomness --data-dir DIR --out results/randomness/mine
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.lib.colours import NEUTRAL, policy_colour
from experiments.lib.command_line import command_line
from experiments.lib.corpora import modality_configs
from experiments.lib.output import write_results
from experiments.lib.provenance import measured_on
from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import (
    BucketBatcher,
    Ladder,
    LengthTable,
    Packed,
    PaddingError,
    PaddingStats,
    Planned,
    Policy,
    make_schedule,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.cli import exit_status
from multimodal_pad.models import MultimodalTransformer, TransformerConfig
from multimodal_pad.scheduling.schedule import WINDOW
from multimodal_pad.sources import Meld, Synthetic
from multimodal_pad.sources.meld import EMOTIONS
from multimodal_pad.training import fit, make_optimizer

TRAINED = {"random": "random batches", "length": "grouped by length", "packed": "packed"}
"""How batches of the loss curves are made; the first is what the others are compared with."""


@dataclass(frozen=True)
class Config:
    """One run; every default is here."""

    data_dir: str | None = None
    samples: int | None = None
    large_samples: int = 100_000
    windows: tuple[int, ...] = (1, 4, 8, 16, 64, 256, WINDOW)
    orders: int = 20
    seeds: int = 5
    epochs: int = 6
    batch_size: int = 32
    shapes: int = 8
    d_model: int = 40
    learning_rate: float = 1e-3


QUICK = {
    "samples": 64,
    "large_samples": 500,
    "windows": (1, WINDOW),
    "orders": 2,
    "seeds": 2,
    "epochs": 1,
    "batch_size": 8,
    "shapes": 1,
}
"""What --quick changes: a look at whether everything works."""


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """All figures."""
    splits = _load(config)
    train, large = splits["train"], Synthetic(config.large_samples)
    usual, once = config.windows, (WINDOW,)  # random and packed batches know no window, or one of their own
    orders = [
        (f"planned {config.shapes}", train, _plan(train.lengths, config), usual),
        ("powers of two", train, Ladder.powers_of_two(train.lengths, smallest=8), usual),
        (f"planned {config.shapes}, random batches", train, _plan(train.lengths, config, "random"), once),
        ("packed", train, _packed(train.lengths, config), once),
        (f"planned {config.shapes}", large, _plan(large.lengths, config), usual),
        ("packed", large, _packed(large.lengths, config), once),
    ]
    task = progress.add_task("orders", total=sum(len(order[-1]) for order in orders))
    windows = []
    for name, source, policy, tried in orders:
        for window in tried:
            figures = [_measure_order(source, policy, window, seed, config) for seed in range(config.orders)]
            row = {"policy": f"{len(source):,}, {name}", "window": window if tried is usual else None}
            windows.append({**row, "figures": figures})
            progress.advance(task)
    curves = []
    task = progress.add_task("training", total=config.seeds * len(TRAINED))
    with tempfile.TemporaryDirectory() as cache_dir:
        for seed in range(config.seeds):
            for kind in TRAINED:
                progress.update(task, description=f"training, {kind}, seed {seed}")
                curves.append({"batches": kind, "seed": seed, **_train(splits, kind, seed, cache_dir, config)})
                progress.advance(task)
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "samples": len(train),
        "windows": windows,
        "curves": curves,
    }


def _plan(lengths: LengthTable, config: Config, grouping: str = "length") -> Planned:
    options: dict[str, Any] = {"cost": reference_cost, "grouping": grouping, "batch_size": config.batch_size}
    return Planned(plan_shapes(lengths, max_shapes=config.shapes, **options))


def _packed(lengths: LengthTable, config: Config) -> Packed:
    return Packed(plan_packing(lengths, cost=reference_cost, batch_size=config.batch_size))


def _load(config: Config) -> dict[str, Any]:
    if config.data_dir is None:
        return {"train": Synthetic(config.samples or 2000), "dev": Synthetic(config.samples or 2000)}
    return {split: Meld(config.data_dir, split, payload="synthetic") for split in ("train", "dev")}


def _measure_order(source: Any, policy: Policy, window: int, seed: int, config: Config) -> dict[str, float]:
    """One epoch's order; lengths are averaged over the modalities."""
    lengths = source.lengths
    schedule = make_schedule(
        lengths, policy, batch_size=config.batch_size, window=window, seed=seed, cost=reference_cost
    )
    report = schedule.bias_report(source.targets, seed=seed)
    assert report.label_on_shape is not None
    stats = PaddingStats(lengths.modalities, reference_cost, policy.layout)
    stats.record(schedule.steps(), lengths)
    figures = {
        "real_cost": stats.cost_efficiency,
        "label_on_shape": report.label_on_shape.scheduled,
        "label_on_shape_random": report.label_on_shape.random,
    }
    for name, biases in (("adjacent", report.adjacent_correlation), ("spread", report.within_batch_spread)):
        figures[name] = float(np.mean([bias.scheduled for bias in biases.values()]))
        figures[f"{name}_random"] = float(np.mean([bias.random for bias in biases.values()]))
    return figures


def _train(splits: dict[str, Any], kind: str, seed: int, cache_dir: str, config: Config) -> dict[str, Any]:
    """Return the history of one run; the model, the order of the samples and nothing else follow from the seed."""
    train, dev = splits["train"], splits["dev"]
    tables = {split: source.lengths.select(("text",)) for split, source in splits.items()}
    together = LengthTable(("text",), np.concatenate([table.values for table in tables.values()]))
    padded: dict[str, Any] = {"batch_size": config.batch_size, "max_shapes": config.shapes}
    by_length = Planned(plan_shapes(together, **padded))
    policy: Policy = by_length
    if kind == "random":
        policy = Planned(plan_shapes(together, grouping="random", **padded))
    elif kind == "packed":
        policy = Packed(plan_packing(together, batch_size=config.batch_size))
    batcher = BucketBatcher(train, policy, lengths=tables["train"], seed=seed)
    other = BucketBatcher(dev, by_length, lengths=tables["dev"])
    sizes = {"text": len(train.vocabulary) + 2} if isinstance(train, Meld) else {}
    model = MultimodalTransformer(
        TransformerConfig(
            modality_configs(train[0], ("text",), sizes),
            len(EMOTIONS) if isinstance(train, Meld) else 3,
            d_model=config.d_model,
            crossmodal_layers=1,
            memory_layers=1,
            dropout_rate=0.0,
        ),
        rngs=nnx.Rngs(seed),
    )
    result = fit(
        model,
        batcher,
        epochs=config.epochs,
        optimizer=make_optimizer(config.learning_rate),
        evaluate_on=other,
        cache_dir=cache_dir,
        progress=False,
    )
    return {
        "train_loss": [record.train_loss for record in result.history],
        **{
            name: [record.evaluation[key] for record in result.history]
            for name, key in (("dev_loss", "loss"), ("dev_weighted_f1", "weighted_f1"))
        },
    }


def differences(results: dict[str, Any], name: str, kind: str) -> np.ndarray:
    """Return a figure of one kind of batches less that of random ones, ``(seeds, epochs)``."""
    curves = results["curves"]
    one, other = ([curve[name] for curve in curves if curve["batches"] == each] for each in (kind, "random"))
    return np.array(one) - np.array(other)


def windows_table(results: dict[str, Any]) -> Table:
    """Make a row per policy and window."""
    rows = []
    for row in results["windows"]:
        middle = {key: float(np.median([f[key] for f in row["figures"]])) for key in row["figures"][0]}
        adjacent = np.array([figures["adjacent"] for figures in row["figures"]])
        cells = [
            row["policy"],
            "" if row["window"] is None else f"{row['window']:,}",
            f"{middle['real_cost']:.3f}",
            f"{adjacent.mean():+.3f} ± {adjacent.std(ddof=1) / np.sqrt(len(adjacent)):.3f}",
            f"{middle['spread']:.2f} ({middle['spread_random']:.2f})",
            f"{middle['label_on_shape']:.3f} ({middle['label_on_shape_random']:.3f})",
        ]
        rows.append(cells)
    config = results["config"]
    return Table(
        "Randomness of batches",
        ["samples, shapes", "window", "real cost", "adjacent batches", "spread within a batch", "label on shape"],
        rows,
        f"Medians over {config['orders']} orders of {results['samples']:,} samples ({results['corpus']}) and of "
        f"{config['large_samples']:,} synthetic ones with MELD's lengths, in batches of {config['batch_size']}. The "
        "window of length grouping is counted in batches; the cost is the reference cost. Adjacent batches: the "
        "correlation of their mean lengths, with its standard error. Spread: the standard deviation of lengths within "
        "a batch, as a share of that over all samples. Label on shape: Cramér's V. Brackets hold the figures of the "
        "same steps with samples in random order.",
    )


def curves_table(results: dict[str, Any]) -> Table:
    """Make a row per epoch of training."""
    others = [kind for kind in TRAINED if kind != "random"]
    figures = {"train_loss": "train loss", "dev_loss": "dev loss", "dev_weighted_f1": "dev F1"}
    columns = [text for said in figures.values() for text in (f"{said}, random", *others)]
    config, rows = results["config"], []
    for epoch in range(config["epochs"]):
        cells = [str(epoch)]
        for name in figures:
            random = [c[name][epoch] for c in results["curves"] if c["batches"] == "random"]
            cells += [f"{np.mean(random):.3f}"]
            cells += [_spread(differences(results, name, kind)[:, epoch]) for kind in others]
        rows.append(cells)
    return Table(
        "Loss curves",
        ["epoch", *columns],
        rows,
        f"Text alone, {config['seeds']} seeds, at most {config['shapes']} planned shapes, window {WINDOW:,}. The first "
        "column of each figure is the mean over random batches (F1 weighted by class); the others are the differences "
        "of batches grouped by length and of packed ones from it, with their standard deviation over the seeds.",
        text_columns=0,
    )


def markdown(results: dict[str, Any]) -> str:
    """Return both tables, and where they were measured."""
    return paragraphs(windows_table(results).markdown(), curves_table(results).markdown(), measured_on(results))


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():+.3f} ± {values.std(ddof=1):.3f}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the loss curves of every seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    colours = {"random": NEUTRAL, "length": policy_colour("planned"), "packed": policy_colour("packed")}
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (name, title) in zip(axes, (("train_loss", "train loss"), ("dev_loss", "dev loss")), strict=True):
        for curve in results["curves"]:
            first = curve["seed"] == 0
            color = colours[curve["batches"]]
            label = TRAINED[curve["batches"]] if first else None
            axis.plot(range(len(curve[name])), curve[name], color=color, label=label, alpha=0.8, marker=".")
        axis.set(title=title, xlabel="epoch", ylabel="cross-entropy")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: list[str]) -> int:
    """Run and write; the exit status."""
    parser = command_line(
        "quality.randomness", __doc__, data_dir="MELD's three CSV files (default: synthetic utterances)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help=f"of the loss curves (default: {Config().epochs})")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.epochs is not None and options.epochs < 1:
        raise PaddingError(f"got --epochs {options.epochs}; it must be at least 1")
    given = {} if options.epochs is None else {"epochs": options.epochs}
    config = Config(options.data_dir, **{**(QUICK if options.quick else {}), **given})
    write_results("quality.randomness", arguments, options.out, lambda progress: run(config, progress), markdown, draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
