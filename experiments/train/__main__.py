"""Train the multimodal transformer on emotions or sentiment, in one process or several, and go on where it stopped.

--config names the corpus, whose settings are in experiments/lib/configs; --data-dir is the folder of its files, or of a
flat cache that multimodal-pad convert made of them. --processes starts as many on this machine's CPU, each with a share
of every batch, as the machines of a cluster would have it; without dropout the result is the same but for rounding.

With Python: python -m experiments.train --config meld --data-dir DIR --processes 2 --checkpoints DIR
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from experiments.lib import configs
from experiments.lib.births import without_ctrl_c
from experiments.lib.command_line import command_line
from experiments.lib.emotion import GROUPINGS, PADDINGS, QUICK, Config, load_splits
from experiments.lib.output import write_results
from experiments.lib.tables import Table
from experiments.lib.training import train
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.errors import TrainingError

SECONDS_TO_NOTICE = 30
"""Seconds without a heartbeat after which a process counts as dead, and all others end."""


def markdown(results: dict[str, Any]) -> str:
    """Make a row per epoch, and the test split."""
    names = list(results["test"])
    rows = [
        [
            f"{record['epoch']}",
            *(f"{value:.4f}" for value in (record["train_loss"], *(record["evaluation"][name] for name in names))),
            f"{record['seconds']:.1f}",
        ]
        for record in results["history"]
    ]
    test = ", ".join(f"{name} {value:.4f}" for name, value in results["test"].items())
    config, count = results["config"], results["processes"]
    text = (
        f"Epoch {results['best_epoch']} on {config['splits'][2]}: {test}. {config['corpus']} "
        f"{config['file']}, {results['parameters']:,} parameters, {results['shapes']} batch shapes, {count} "
        f"process{'es' if count > 1 else ''}, {results['seconds']:.0f} s with compiling."
    )
    return Table("Epochs", ["epoch", "train loss", *names, "seconds"], rows, findings=text, text_columns=0).markdown()


def start_processes(count: int, arguments: list[str]) -> None:
    """Run this script in ``count`` processes on this machine, until all have ended or one has failed.

    Raises:
        TrainingError: one failed, or was killed; the others are ended too.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    processes = []
    try:
        for index in range(count):
            command = [sys.executable, "-m", "experiments.train", *arguments]
            joined = ["--join", port, str(index), str(count)]
            out = None if index == 0 else subprocess.DEVNULL  # all would print the same
            with without_ctrl_c():
                processes.append(subprocess.Popen([*command, *joined], stdout=out, env=environment))
        while any(process.poll() is None for process in processes):
            failed = [index for index, process in enumerate(processes) if process.poll()]
            if failed:
                raise TrainingError(f"process {failed[0]} of {count} has failed; its message is above")
            time.sleep(0.1)
        if any(process.returncode for process in processes):
            raise TrainingError(f"one of the {count} processes has failed; its message is above")
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("train", __doc__, data_dir="of the corpus' files, or a flat cache")
    parser.add_argument("--config", choices=configs.NAMES, default="synthetic", help="the corpus (default: synthetic)")
    changes = parser.add_argument_group("in place of the configuration's")
    changes.add_argument("--modalities", nargs="+", metavar="NAME", help="which to train on")
    changes.add_argument("--epochs", type=int)
    changes.add_argument("--batch-size", type=int, help="rows of all processes together")
    changes.add_argument("--padding", choices=PADDINGS, help="the policy; packed lays samples end to end")
    changes.add_argument("--max-shapes", type=int, help="the compile budget; packed batches have 2 shapes at most")
    changes.add_argument("--grouping", choices=GROUPINGS, help="of planned padding")
    changes.add_argument("--learning-rate", type=float)
    changes.add_argument("--dropout", type=float)
    changes.add_argument("--patience", type=int, help="stop after so many epochs that are no better")
    changes.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=1, help="on this machine's CPU; default: 1")
    parser.add_argument("--checkpoints", metavar="DIR", help="save here, and go on with what is here")
    parser.add_argument("--save-every", type=int, metavar="STEPS", help="save after so many steps, too")
    parser.add_argument("--join", nargs=3, metavar=("PORT", "INDEX", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.processes < 1:
        raise PaddingError(f"got --processes {options.processes}; it must be at least 1")
    if options.processes > 1 and not options.join:
        start_processes(options.processes, arguments)
        return
    given = {name: value for name, value in vars(options).items() if value is not None}
    chosen = {name: value for name, value in given.items() if name in Config.__dataclass_fields__}
    if "modalities" in chosen:
        chosen["modalities"] = tuple(chosen["modalities"])
    config = replace(replace(configs.load(options.config), **(QUICK if options.quick else {})), **chosen)
    if options.grouping and config.padding != "planned":
        raise PaddingError(
            f"got --grouping {options.grouping} for {config.padding} padding, whose batches are not grouped; leave it "
            "out, or give --padding planned"
        )
    if options.join:
        import jax

        port, index, count = options.join
        jax.distributed.initialize(
            f"localhost:{port}",
            int(count),
            int(index),
            heartbeat_timeout_seconds=SECONDS_TO_NOTICE,
            shutdown_timeout_seconds=SECONDS_TO_NOTICE,
        )
        if int(index):
            train(config, load_splits(config), progress=False)
            return
    write_results(
        "train", arguments, options.out, lambda _: train(config, load_splits(config), progress=True), markdown
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
