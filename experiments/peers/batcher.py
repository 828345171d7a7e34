"""How fast is the batcher? Its output in GB/s beside a plain copy, torch's DataLoader, tf.data and Grain.

All pad the same batches of the same samples: float32 text (300 wide), audio (74) and visual (35) with the lengths of
MELD's training utterances (--data-dir), or of synthetic ones that follow them. The samples are ready arrays in
memory, so nothing is read or decoded. Each contender has a process of its own, so that none shares another's threads
or heap; in each repeat every one of them runs one epoch, in turn, while the others wait.

torch, tensorflow and grain are measured where they are installed: pip install "multimodal-pad[peers]".

With Python: python -m experiments.peers.batcher --data-dir DIR --out results/benchmark_batcher/mine
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line
from experiments.lib.output import write_results
from experiments.lib.tables import Table, paragraphs, spread
from experiments.lib.worker import start
from experiments.peers.batcher_contenders import CONTENDERS
from experiments.peers.batcher_process import Config, prepare
from multimodal_pad.cli import exit_status
from multimodal_pad.sources import Meld

QUICK = {"samples": 150, "batch_size": 16, "shapes": 2, "repeats": 2}
"""Options under --quick, to check that everything works; --data-dir gives all of its samples."""


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    installed = [contender for contender in CONTENDERS if find_spec(contender.package)]
    packages = dict.fromkeys(contender.package for contender in CONTENDERS)
    task = progress.add_task("epochs", total=len(installed) * (1 + config.repeats))
    with ExitStack() as stack:
        processes = []
        for contender in installed:
            processes.append(stack.enter_context(start(contender.name, prepare, contender.name, config)))
            progress.advance(task)
        facts = [process.first for process in processes]
        seconds: list[list[float]] = [[] for _ in processes]
        for _ in range(config.repeats):
            for process, times in zip(processes, seconds, strict=True):
                times.append(process.ask())
                progress.advance(task)
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        **facts[0]["work"],
        "not_installed": [package for package in packages if not find_spec(package)],
        "contender_versions": {
            contender.package: fact["version"] for contender, fact in zip(installed, facts, strict=True)
        },
        "rows": [
            {
                "name": contender.name,
                "own_maxima": contender.own_maxima,
                "fills": contender.fills,
                "bytes": fact["bytes"],
                "seconds": times,
            }
            for contender, fact, times in zip(installed, facts, seconds, strict=True)
        ],
    }


def table(results: dict[str, Any]) -> Table:
    """Make a row per contender."""
    measured = results["rows"]
    copying = measured[0]["bytes"] / np.array(measured[0]["seconds"])
    rows = []
    for row in measured:
        seconds = np.array(row["seconds"])
        speed = row["bytes"] / seconds
        rows.append(
            [
                row["name"],
                "own maxima" if row["own_maxima"] else "plan" if row["fills"] else "plan, unfilled",
                spread(speed / 1e9),
                spread(speed / copying),
                spread(results["samples"] / seconds, ",.0f"),
            ]
        )
    config, absent = results["config"], results["not_installed"]
    texts = [
        f"{results['samples']:,} samples ({results['corpus']}) in {results['batches']} batches of "
        f"{config['batch_size']}, at most {config['shapes']} planned shapes, "
        f"{measured[0]['bytes'] / 1e6:,.0f} MB padded, {100 * results['padding_efficiency']:.0f} % real positions. "
        f"Medians and middle halves of {config['repeats']} epochs each, in turn; a share of np.copyto is that of the "
        "same repeat.",
        *([f"Not installed: {', '.join(absent)}."] if absent else []),
        f"Versions: {', '.join(f'{name} {version}' for name, version in results['contender_versions'].items())}.",
    ]
    heading = ["", "padded to", "GB/s of output", "of np.copyto", "samples/s"]
    return Table("Padding on the host", heading, rows, " ".join(texts), text_columns=2)


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on  # imports JAX, which the contenders do without

    return paragraphs(table(results).markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("peers.batcher", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    if options.data_dir is not None:
        Meld(options.data_dir, "train")  # so that a wrong folder is an error before the first process
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # without TensorFlow's messages at its start
    write_results("peers.batcher", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
