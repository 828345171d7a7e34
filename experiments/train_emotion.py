"""Train the multimodal transformer on emotions, in one process or several, and go on where it was interrupted.

With --data-dir on MELD (text with real labels; audio and visual features are noise, see --modalities), without it on
synthetic utterances. --processes starts as many on this machine's CPU, each with a share of every batch, as the
machines of a cluster would have it; without dropout the result is the same but for rounding.

With Python: python -m experiments.train_emotion --data-dir DIR --modalities text --processes 2 --checkpoints DIR
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import write_results
from multimodal_pad import BucketBatcher, LengthTable, PaddingError, Planned, plan_shapes
from multimodal_pad.cli import exit_status
from multimodal_pad.errors import TrainingError
from multimodal_pad.schedule import Grouping
from multimodal_pad.sources import Meld, Synthetic
from multimodal_pad.sources.meld import EMOTIONS

SECONDS_TO_NOTICE = 30
"""After so many without a sign of life a process counts as dead, and all the others end."""


@dataclass(frozen=True)
class Config:
    """One run; every default is here."""

    data_dir: str | None = None
    modalities: tuple[str, ...] | None = None
    samples: int = 2000
    epochs: int = 5
    batch_size: int = 32
    max_shapes: int = 4
    grouping: Grouping = "length"
    learning_rate: float = 1e-3
    d_model: int = 40
    layers: int = 1
    dropout: float = 0.1
    patience: int | None = None
    seed: int = 0
    save_every: int | None = None
    checkpoints: str | None = None


QUICK = {"modalities": ("text",), "samples": 64, "epochs": 1, "batch_size": 8, "max_shapes": 1}
"""What --quick changes: a look at whether everything works."""


def train(config: Config, *, progress: bool) -> dict[str, Any]:
    """One training, in this process's share: its history, and what the best epoch gives on the test split."""
    import jax
    from flax import nnx

    from experiments.compare_padding import modality_configs
    from multimodal_pad.compiling import StepTable
    from multimodal_pad.models import MultimodalTransformer, TransformerConfig
    from multimodal_pad.training import TrainStep, cross_entropy, evaluate, fit, make_optimizer
    from multimodal_pad.training.checkpoint import Checkpoints

    sources, classes, vocabulary_sizes = _load(config)
    names = config.modalities or sources["train"].lengths.modalities
    lengths = {split: source.lengths.select(names) for split, source in sources.items()}
    # Made for the training samples, and held to the longest of any split.
    longest = np.max([table.longest() for table in lengths.values()], axis=0)
    planned = LengthTable(names, np.vstack([lengths["train"].values, longest]))
    plan = plan_shapes(planned, max_shapes=config.max_shapes, batch_size=config.batch_size, grouping=config.grouping)
    batchers = {
        split: BucketBatcher(source, Planned(plan), lengths=lengths[split], grouping=config.grouping, seed=config.seed)
        for split, source in sources.items()
    }
    inputs = modality_configs(sources["train"][0], names, vocabulary_sizes)
    shape = TransformerConfig(
        inputs,
        classes,
        d_model=config.d_model,
        crossmodal_layers=config.layers,
        memory_layers=config.layers,
        dropout_rate=config.dropout,
    )
    model = MultimodalTransformer(shape, rngs=nnx.Rngs(config.seed))
    begun = time.perf_counter()
    with Checkpoints(config.checkpoints) if config.checkpoints else nullcontext() as checkpoints:
        result = fit(
            model,
            batchers["train"],
            epochs=config.epochs,
            optimizer=make_optimizer(config.learning_rate),
            evaluate_on=batchers["dev"],
            patience=config.patience,
            seed=config.seed,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress=progress,
        )
    seconds = time.perf_counter() - begun
    step = TrainStep(result.model, make_optimizer(config.learning_rate), cross_entropy)
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "processes": jax.process_count(),
        "samples": {split: len(source) for split, source in sources.items()},
        "seconds": seconds,
        "history": [asdict(record) for record in result.history],
        "best_epoch": result.best_epoch,
        "test": evaluate(StepTable(step.eval_step), step.leaves, batchers["test"]),
    }


def _load(config: Config) -> tuple[dict[str, Any], int, dict[str, int]]:
    """The source of each split, how many classes there are, and the size of each vocabulary."""
    if config.data_dir is not None:
        splits = {split: Meld(config.data_dir, split) for split in ("train", "dev", "test")}
        return splits, len(EMOTIONS), {"text": len(splits["train"].vocabulary) + 2}
    sizes = {"train": config.samples, "dev": max(2, config.samples // 5), "test": max(2, config.samples // 5)}
    # One seed, since it fixes what the classes look like; a split is told apart by its samples' numbers.
    whole = Synthetic(sum(sizes.values()))
    bounds = np.cumsum([0, *sizes.values()])
    return (
        {split: _Part(whole, start, stop) for split, start, stop in zip(sizes, bounds, bounds[1:], strict=False)},
        3,
        {},
    )


class _Part:
    """A run of the samples of a source."""

    def __init__(self, source: Synthetic, start: int, stop: int) -> None:
        self._source, self._start = source, int(start)
        self.lengths = LengthTable(source.lengths.modalities, source.lengths.values[start:stop])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._start + index]


def markdown(results: dict[str, Any]) -> str:
    """A row per epoch, and the test split."""
    lines = ["| epoch | train loss | dev loss | dev accuracy | dev weighted F1 | seconds |", "|---:|" + "---:|" * 5]
    for record in results["history"]:
        dev = record["evaluation"]
        cells = [dev["loss"], dev["accuracy"], dev["weighted_f1"]]
        figures = " | ".join(f"{value:.4f}" for value in [record["train_loss"], *cells])
        lines.append(f"| {record['epoch']} | {figures} | {record['seconds']:.1f} |")
    test = results["test"]
    text = (
        f"Epoch {results['best_epoch']} on the test split: loss {test['loss']:.4f}, accuracy {test['accuracy']:.4f}, "
        f"weighted F1 {test['weighted_f1']:.4f}. {results['corpus']}, {results['processes']} "
        f"process{'es' if results['processes'] > 1 else ''}, {results['seconds']:.0f} s with compiling."
    )
    return "\n".join([*lines, "", text])


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
            command = [sys.executable, "-m", "experiments.train_emotion", *arguments]
            joined = ["--join", port, str(index), str(count)]
            out = None if index == 0 else subprocess.DEVNULL  # all would say the same
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
    """Run and write; the exit status."""
    default = Config()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.train_emotion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", metavar="DIR", help="MELD's three CSV files (default: synthetic utterances)")
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="which to train on (default: all)")
    parser.add_argument("--epochs", type=int, help=f"default: {default.epochs}")
    parser.add_argument("--batch-size", type=int, help=f"rows of all processes together; default: {default.batch_size}")
    parser.add_argument("--max-shapes", type=int, help=f"the compile budget; default: {default.max_shapes}")
    parser.add_argument("--grouping", choices=("length", "random"), help=f"default: {default.grouping}")
    parser.add_argument("--learning-rate", type=float, help=f"default: {default.learning_rate}")
    parser.add_argument("--dropout", type=float, help=f"default: {default.dropout}")
    parser.add_argument("--patience", type=int, help="stop after so many epochs that are no better (default: never)")
    parser.add_argument("--seed", type=int, help=f"default: {default.seed}")
    parser.add_argument("--processes", type=int, default=1, help="on this machine's CPU; default: 1")
    parser.add_argument("--checkpoints", metavar="DIR", help="save here, and go on with what is here")
    parser.add_argument("--save-every", type=int, metavar="STEPS", help="save after so many steps, too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/train_emotion/<time>")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
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
    config = replace(Config(**(QUICK if options.quick else {})), **chosen)
    if config.modalities is not None:
        config = replace(config, modalities=tuple(config.modalities))
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
            train(config, progress=False)
            return
    write_results("train_emotion", arguments, options.out, lambda _: train(config, progress=True), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
