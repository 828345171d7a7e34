"""Why not just PyTorch, tf.data or one power-of-two pad? Other libraries beside this one, on the same samples.

There are three comparisons: how fast samples are padded (kernel), the real cost and the number of shapes of each rule
(shapes), and how long training takes, compiling included (training). Parity is checked before anything is timed: the
same batches, the same parameters, the same outputs. A library that is not installed is left out, with a line:
pip install "multimodal-pad[peers]".

With Python: python -m experiments.peers --data-dir DIR --out results/evidence/peers
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from typing import Any

from rich.progress import Progress

from experiments.lib import corpora
from experiments.lib.command_line import command_line
from experiments.lib.distributions import DISTRIBUTIONS, draw_lengths
from experiments.lib.output import write_results
from experiments.lib.tables import Table, paragraphs
from experiments.peers import batcher as benchmark_batcher
from experiments.peers import batcher_process as benchmark_process
from experiments.peers import contenders, pictures, shapes, training
from multimodal_pad import LengthTable, PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.sources import Meld

SECTIONS = ("kernel", "shapes", "training")
PEERS = {"kernel": ("torch", "tensorflow", "grain"), "shapes": (), "training": ("torch",)}
"""Libraries without which a section lacks rows; the rules for shapes are computed where theirs are absent."""
SAMPLES = 10_000
BATCH_SIZE = 32


def run(
    sections: tuple[str, ...], names: list[str], data_dir: str | None, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Measure each section asked for; ``names`` are those of the contenders in training."""
    peers = dict.fromkeys(name for section in sections for name in PEERS[section])
    found: dict[str, Any] = {"not_installed": [name for name in peers if find_spec(name) is None]}
    if "kernel" in sections:
        kernel = benchmark_process.Config(
            data_dir, **{"batch_size": BATCH_SIZE, **(benchmark_batcher.QUICK if quick else {})}
        )
        found["kernel"] = benchmark_batcher.run(kernel, progress)
    if "shapes" in sections:
        tables = _length_tables(data_dir, 300 if quick else SAMPLES)
        task = progress.add_task("shapes", total=len(tables) * len(shapes.RULES))
        found["shapes"] = shapes.compare(tables, BATCH_SIZE, lambda: progress.advance(task))
    if "training" in sections:
        chosen = tuple(contenders.CONTENDERS[name] for name in names)
        config = contenders.Config(corpora.on_corpus(data_dir), contenders=chosen)
        found["training"] = training.compare(contenders.quick(config) if quick else config, progress)
    return found


def _length_tables(data_dir: str | None, samples: int) -> dict[str, LengthTable]:
    found = {name: draw_lengths(name, samples) for name in DISTRIBUTIONS}
    if data_dir is not None:
        found["meld"] = Meld(data_dir, "train").lengths
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables of each section."""
    found = []
    if "kernel" in results:
        found.append(benchmark_batcher.table(results["kernel"]))
    if "shapes" in results:
        found += shapes.tables(results["shapes"])
    if "training" in results:
        found.append(training.table(results["training"]))
    return found


def markdown(results: dict[str, Any]) -> str:
    """Return all tables, and where they were measured."""
    from experiments.lib.provenance import measured_on

    missing = results["not_installed"]
    lines = (
        [f"Not installed, and left out: {', '.join(missing)} (pip install 'multimodal-pad[peers]')."] if missing else []
    )
    texts = [f"### {table.title}\n\n{table.markdown()}" for table in tables(results)]
    return paragraphs(*texts, *lines, measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("peers", __doc__, data_dir="MELD's three CSV files (default: lengths that follow MELD's)")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=[*contenders.CONTENDERS, "main"],
        default=list(contenders.CONTENDERS),
        metavar="NAME",
        help=f"what trains: {', '.join(contenders.CONTENDERS)} (default: all), or main, which stands for "
        f"{' '.join(contenders.MAIN)}; one of this project must be among them",
    )
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.data_dir is not None:
        Meld(options.data_dir, "train")  # so that a wrong folder is an error before the first process
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # without TensorFlow's messages at its start
    sections = tuple(options.only)
    names = [each for name in options.contenders for each in (contenders.MAIN if name == "main" else (name,))]
    names = list(dict.fromkeys(names))
    if all(contenders.CONTENDERS[name].library != "jax" for name in names):
        raise PaddingError(f"got --contenders {' '.join(names)}; name one that trains with JAX, such as packed, too")
    write_results(
        "peers",
        arguments,
        options.out,
        lambda progress: run(sections, names, options.data_dir, options.quick, progress),
        markdown,
        pictures.draw,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
