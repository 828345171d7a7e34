"""Does each claim of dynamic batch-level padding hold? A measurement, three verdicts and a reason per claim.

The claims are those of the description of Algorithm 1, which pads each batch to its own maxima: exact padding here.
Each has three verdicts: of exact padding, of planned shapes with batches grouped by length, and of packed batches, the
latter two being what keeps padding low where each shape is compiled. The model is the three-modality transformer of
experiments.compare, on MELD's training utterances (--data-dir) or synthetic ones that follow their lengths.
Claim 5.2 on quality needs MELD's labels; it is measured by experiments.quality, whose results --quality names, or
left out.

With Python: python -m experiments.claims --data-dir DIR --quality results/evidence/quality/results.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from experiments.claims import exactness, from_lengths, gradients
from experiments.claims.claim import KINDS, Claim, Setting
from experiments.claims.measured_steps import MeasuredSteps
from experiments.claims.quality import model_quality
from experiments.lib import corpora, policies
from experiments.lib.command_line import command_line
from experiments.lib.output import write_results
from experiments.lib.tables import Table, paragraphs, spread
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status


@dataclass(frozen=True)
class Config:
    """One run; every default is here.

    Attributes:
        data_dir: MELD's three CSV files, or None for synthetic utterances.
        quality: a results file of experiments.quality, or None.
        samples: of each length distribution.
        epochs: of the run whose seconds are predicted.
    """

    data_dir: str | None = None
    quality: str | None = None
    samples: int = 10_000
    epochs: int = 10
    batches: int = 10
    repeats: int = 5
    seeds: int = 5
    quick: bool = False


QUICK: dict[str, Any] = {"samples": 200, "epochs": 2, "batches": 2, "repeats": 2, "seeds": 2, "quick": True}
"""What --quick changes: a look at whether everything works, with one modality and few samples."""


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """All claims, in the order of the description."""
    quality = None if config.quality is None else _read_quality(Path(config.quality))
    corpus = corpora.on_corpus(config.data_dir)
    if config.quick:
        corpus = corpora.on_corpus(None, modalities=("audio",), samples=64, batch_size=8, d_model=8, num_heads=2)
    samples, lengths, model_config, _ = corpora.load(corpus, progress)
    setting = Setting(samples, lengths, model_config, corpus, config.repeats, config.batches, config.seeds)
    per_seed = min(gradients.BATCHES, -(-len(samples) // corpus.batch_size))
    total = config.batches + 1 + min(3, config.batches) + config.seeds * per_seed + 4
    task = progress.add_task("measuring", total=total)

    def tick() -> None:
        progress.advance(task)

    steps = MeasuredSteps(setting, tick)
    measure: dict[str, Callable[[], Claim]] = {
        "3.1": steps.memory,
        "3.2.1": steps.attention_cost,
        "3.2.2": steps.step_time,
        "3.3": lambda: from_lengths.no_truncation(setting),
        "4.1": lambda: exactness.masking(setting, tick),
        "4.2": lambda: exactness.positions(setting),
        "5.1": lambda: steps.performance(config.epochs),
        "5.1, gradients": lambda: gradients.gradient_stability(setting, tick),
        "6.4": lambda: from_lengths.distributions(setting, config.samples),
    }
    claims = [make().as_json() for make in measure.values()]
    if quality is not None:
        claims.insert(-1, model_quality(quality).as_json())
    progress.update(task, completed=total)
    return {
        "config": asdict(config),
        "corpus": "MELD" if corpus.source == "meld" else "synthetic",
        "samples": len(samples),
        "batch_size": corpus.batch_size,
        "claims": claims,
        "batches": steps.rows,
        "quality": None if quality is None else {name: quality[name] for name in ("command", "commit", "started")},
    }


def _read_quality(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PaddingError(f"--quality {path}: {error}; give the results.json of experiments.quality") from None
    if not {"fixed", "exact"} <= {row.get("padding") for row in results.get("rows", [])}:
        raise PaddingError(
            f"--quality {path}: has no runs under fixed and exact padding; run experiments.quality with "
            "--paddings planned fixed exact"
        )
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """Return the verdicts, and every figure behind them."""
    verdicts = [
        [
            claim["section"],
            claim["says"],
            *[f"**{claim['verdicts'].get(kind, 'not measured')}**" for kind in KINDS],
            claim["reason"],
        ]
        for claim in results["claims"]
    ]
    figures = [
        [claim["section"], name, spread(values, claim["forms"][name]), str(len(values))]
        for claim in results["claims"]
        for name, values in claim["figures"].items()
    ]
    note = (
        f"{results['samples']:,} samples ({results['corpus']}), batches of {results['batch_size']}. Exact: each random "
        "batch to its own maxima, as the description has it. Planned: 8 shapes, batches grouped by length. Packed: one "
        "shape, balanced batches."
    )
    return [
        Table("The claims and their verdicts", ["", "claim", *KINDS, "why"], verdicts, note, text_columns=6),
        Table(
            "The figures behind the verdicts",
            ["", "figure", "median (middle half)", "values"],
            figures,
            "One value per batch, seed or repetition, as the method of the claim says.",
            text_columns=2,
            folded=True,
        ),
    ]


def verdicts(results: dict[str, Any]) -> str:
    """Return the claims and their verdicts, and where they were measured, for a page."""
    from experiments.lib.provenance import measured_on

    return paragraphs(tables(results)[0].markdown(), measured_on(results))


def methods(results: dict[str, Any]) -> Table:
    """How each claim was measured, and when it holds."""
    rows = [[claim["section"], claim["method"], claim["rule"]] for claim in results["claims"]]
    return Table("How each claim was measured", ["", "method", "rule"], rows, text_columns=3)


def markdown(results: dict[str, Any]) -> str:
    """Return the tables, and where they were measured."""
    from experiments.lib.provenance import measured_on

    texts = [f"### {table.title}\n\n{table.markdown()}" for table in (*tables(results), methods(results))]
    return paragraphs(*texts, measured_on(results))


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw what each kind of batch saves of bytes and seconds, batch by batch, and of bytes by length distribution."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from experiments.lib.colours import COLOURS, policy_colours

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=[1.1, 1])
    of_claim = {claim["section"]: claim["figures"] for claim in results["claims"]}
    shown = {
        "a batch's bytes": ("3.1", "saved of a batch's bytes"),
        "the step's bytes": ("3.1", "saved of the step's bytes"),
        "the peak": ("3.1", "saved of the peak"),
        "train step time": ("3.2.2", "time saved, train step"),
        "time with\ncompiling": ("5.1", "time saved, with compiling"),
    }
    of_policy = policy_colours([policies.parse_policy(policy) for policy in KINDS.values()])
    colours = dict(zip(KINDS, of_policy.values(), strict=True))
    for offset, (kind, colour) in enumerate(colours.items()):
        for place, (section, name) in enumerate(shown.values()):
            values = [max(-100.0, 100 * value) for value in of_claim[section][f"{name}, {kind}"]]
            label = kind if not place else None
            left.plot([place + 0.2 * (offset - 1)] * len(values), values, "o", color=colour, alpha=0.6, label=label)
    left.axhspan(60, 80, color=COLOURS[2], alpha=0.15, label="memory, as claimed")
    left.axhspan(15, 25, color="0.5", alpha=0.25, label="time, as claimed")
    left.axhline(0, color="0.6", linewidth=1)
    left.set_xticks(range(len(shown)), list(shown), fontsize=8)
    left.set(ylabel="saved, %", ylim=(-105, 100), title="against fixed padding (cut at -100 %)")
    left.legend(loc="lower left", fontsize=8)
    lengths = of_claim["6.4"]
    names = list(dict.fromkeys(name.split(":")[0] for name in lengths))
    for offset, (kind, colour) in enumerate(colours.items()):
        heights = [
            100 * sorted(lengths[f"{n}: saved, {kind}"])[len(lengths[f"{n}: saved, {kind}"]) // 2] for n in names
        ]
        right.bar([i + 0.27 * (offset - 1) for i in range(len(names))], heights, 0.25, color=colour, label=kind)
    right.axhspan(60, 80, color=COLOURS[2], alpha=0.15)
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.set(ylabel="bytes of batches saved, %", title="by length distribution")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: list[str]) -> int:
    """Run and write; the exit status."""
    parser = command_line("claims", __doc__, data_dir="MELD's three CSV files (default: synthetic utterances)")
    parser.add_argument("--quality", metavar="FILE", help="results.json of experiments.quality, for claim 5.2")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    config = Config(options.data_dir, options.quality, **(QUICK if options.quick else {}))
    write_results("claims", arguments, options.out, lambda progress: run(config, progress), markdown, draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
