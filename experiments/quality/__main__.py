"""Does padding, or packing, change what a model learns? MELD's text, the same model under each, several seeds.

The configuration is that of ``experiments/lib/configs/meld.py``; the best epoch is chosen on dev, and the figure is the
weighted F1 of seven emotions on test, and the loss there. Beside it stand floors that are computed here, on the same
utterances: the commonest label, a logistic regression on lengths alone, and one on TF-IDF of words and word pairs.

With Python: python -m experiments.quality --data-dir DIR --out results/quality/mine
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib import configs, emotion
from experiments.lib.command_line import command_line
from experiments.lib.emotion import load_splits
from experiments.lib.output import write_results
from experiments.lib.tables import Table, paragraphs
from experiments.lib.training import train
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status

PADDINGS = (*emotion.PADDINGS, "planned/random")
"""Planned shapes are for batches grouped by length, or for random ones; fixed and exact padding have random ones."""

COMPARED = ("planned", "fixed", "packed")


@dataclass(frozen=True)
class Config:
    """One run; every default is here."""

    data_dir: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    paddings: tuple[str, ...] = COMPARED
    quick: bool = False


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """All figures."""
    chosen = replace(configs.load("meld"), data_dir=config.data_dir, **(emotion.QUICK if config.quick else {}))
    splits = load_splits(chosen)
    task = progress.add_task("training", total=len(config.paddings) * len(config.seeds))
    rows = []
    for seed in config.seeds:
        for padding in config.paddings:
            policy, _, grouping = padding.partition("/")
            settings = replace(chosen, seed=seed, padding=policy, grouping=grouping or chosen.grouping)
            found = train(settings, splits, progress=False)
            rows.append({"padding": padding, "seed": seed, **found})
            progress.advance(task)
    return {
        "config": asdict(config),
        "samples": {split: len(source) for split, source in splits.items()},
        "floors": floors(splits["train"], splits["test"]),
        "rows": rows,
    }


def floors(train_split: Any, test_split: Any) -> dict[str, float]:
    """Weighted F1 on test of models that need no network."""
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    texts = [[" ".join(map(str, s[i]["text"])) for i in range(len(s))] for s in (train_split, test_split)]
    lengths = [np.log1p(s.lengths.values[:, :1]) for s in (train_split, test_split)]
    ready = {
        "the commonest label": (DummyClassifier(), lengths),
        "length alone": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), lengths),
        "TF-IDF and logistic regression": (
            make_pipeline(
                TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True),
                LogisticRegression(C=10, max_iter=1000),
            ),
            texts,
        ),
    }
    return {
        name: float(f1_score(test_split.targets, model.fit(x, train_split.targets).predict(y), average="weighted"))
        for name, (model, (x, y)) in ready.items()
    }


def table(results: dict[str, Any]) -> Table:
    """Make a row per padding and per floor, with the differences by seed."""
    seeds = results["config"]["seeds"]
    of_seeds = [f"seed {seed}" for seed in seeds]
    of_padding = {
        padding: [row for row in results["rows"] if row["padding"] == padding]
        for padding in dict.fromkeys(row["padding"] for row in results["rows"])
    }
    scores = {name: np.array([row["test"]["weighted_f1"] for row in rows]) for name, rows in of_padding.items()}
    losses = {name: np.array([row["test"]["loss"] for row in rows]) for name, rows in of_padding.items()}
    base = "fixed" if "fixed" in scores else next(iter(scores))
    less = f"less {base}"
    heading = ["", "weighted F1 on test", *of_seeds, less, "loss on test", less, "real positions", "shapes"]
    rows = [
        [
            f"our model, {_told(name)}",
            _spread(scores[name]),
            *[f"{value:.3f}" for value in scores[name]],
            "" if name == base else _spread(scores[name] - scores[base], "+.3f"),
            _spread(losses[name]),
            "" if name == base else _spread(losses[name] - losses[base], "+.3f"),
            f"{measured[0]['padding_efficiency']['text']:.2f}",
            str(measured[0]["shapes"]),
        ]
        for name, measured in of_padding.items()
    ]
    published = {"bc-LSTM, text": 0.564, "DialogueRNN": 0.570, "RoBERTa": 0.620}
    floors = results["floors"] | {f"{name} (as published)": value for name, value in published.items()}
    rows += [[name, f"{value:.3f}", *[""] * (len(heading) - 2)] for name, value in floors.items()]
    counts = " / ".join(f"{count:,}" for count in results["samples"].values())
    note = (
        f"MELD, text alone with its real labels, {counts} utterances; {results['rows'][0]['parameters']:,} parameters; "
        f"means and standard deviations over the seeds, {less} padding by seed. The epoch is the best one on dev."
    )
    return Table("Weighted F1 of seven emotions", heading, rows, note)


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(table(results).markdown(), measured_on(results))


def _told(padding: str) -> str:
    """Describe a padding in words.

    >>> [_told(padding) for padding in ("fixed", "planned/random", "packed")]
    ['fixed padding', 'planned padding, random batches', 'packed']
    """
    policy, _, grouping = padding.partition("/")
    return policy + " padding" * (policy != "packed") + f", {grouping} batches" * bool(grouping)


def _spread(values: np.ndarray, form: str = ".3f") -> str:
    if len(values) < 2:
        return format(values[0], form)
    return f"{values.mean():{form}} ± {values.std(ddof=1):.3f}"


def main(arguments: list[str]) -> int:
    """Run and write; the exit status."""
    parser = command_line("quality", __doc__, data_dir="MELD's three CSV files (needed)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: 0 1 2")
    parser.add_argument("--paddings", nargs="+", choices=PADDINGS, help=f"default: {' '.join(COMPARED)}")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.data_dir is None:
        raise PaddingError("give --data-dir, the folder of MELD's three CSV files")
    given = {name: tuple(values) for name in ("seeds", "paddings") if (values := getattr(options, name)) is not None}
    config = Config(options.data_dir, quick=options.quick, **given)
    write_results("quality", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
