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
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib import configs
from experiments.lib.births import without_ctrl_c
from experiments.lib.emotion import GROUPINGS, PADDINGS, QUICK, Config, load_splits, num_outputs, vocabulary_sizes
from experiments.lib.output import write_results
from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    Policy,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.cli import exit_status
from multimodal_pad.errors import TrainingError

SECONDS_TO_NOTICE = 30
"""After so many without a sign of life a process counts as dead, and all the others end."""


def train(config: Config, sources: dict[str, Any], *, progress: bool) -> dict[str, Any]:
    """One training, in this process's share: its history, and what the best epoch gives on the test split."""
    import jax
    from flax import nnx

    from multimodal_pad.compiling import StepTable
    from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    from multimodal_pad.training import TrainStep, evaluate, fit, make_optimizer
    from multimodal_pad.training.checkpoint import Checkpoints

    loss, metrics = _objective(config)
    batchers = make_batchers(config, sources, shares=jax.process_count())
    first, tokens = sources[config.splits[0]], vocabulary_sizes(sources[config.splits[0]])
    sample = first[0]
    names = config.modalities or first.lengths.modalities
    bare = [name for name in names if name not in tokens and sample[name].ndim < 2]
    if bare:
        raise PaddingError(
            f"{bare} are token ids, and {config.data_dir} has no vocabulary of them; convert the corpus again"
        )
    shape = TransformerConfig(
        {
            name: ModalityConfig(vocabulary_size=tokens[name])
            if name in tokens
            else ModalityConfig(feature_width=sample[name].shape[1], kernel_size=config.kernel_sizes.get(name, 1))
            for name in names
        },
        num_outputs(config),
        d_model=config.d_model,
        num_heads=config.num_heads,
        crossmodal_layers=config.layers,
        memory_layers=config.memory_layers,
        dropout_rate=config.dropout,
    )
    model = MultimodalTransformer(shape, rngs=nnx.Rngs(config.seed))
    training, choosing, testing = (batchers[split] for split in config.splits)
    steps = config.epochs * len(training.schedule(0))
    optimizer = make_optimizer(
        config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps if config.schedule == "cosine" else None,
        weight_decay=config.weight_decay,
    )
    begun = time.perf_counter()
    with Checkpoints(config.checkpoints) if config.checkpoints else nullcontext() as checkpoints:
        result = fit(
            model,
            training,
            epochs=config.epochs,
            loss=loss,
            optimizer=optimizer,
            evaluate_on=choosing,
            metrics=metrics,
            monitor=config.monitor,
            patience=config.patience,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress=progress,
        )
    seconds = time.perf_counter() - begun
    step = TrainStep(result.model, optimizer, loss)
    return {
        "config": asdict(config),
        "processes": jax.process_count(),
        "parameters": sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "samples": {split: len(source) for split, source in sources.items()},
        "shapes": len(training.batch_shapes(config.epochs)),
        "padding_efficiency": training.forecast().position_efficiency,
        "seconds": seconds,
        "history": [asdict(record) for record in result.history],
        "best_epoch": result.best_epoch,
        "test": evaluate(StepTable(step.eval_step), step.state, testing, metrics=metrics),
    }


def make_batchers(config: Config, sources: dict[str, Any], *, shares: int = 1) -> dict[str, BucketBatcher]:
    """The batches of each split: shapes are planned for the training samples, and hold the longest of any split.

    ``shares`` is how many processes take a part of each batch.
    """
    names = config.modalities or sources[config.splits[0]].lengths.modalities
    lengths = {split: source.lengths.select(names) for split, source in sources.items()}
    longest = np.max([table.longest() for table in lengths.values()], axis=0)
    table = LengthTable(names, np.vstack([lengths[config.splits[0]].values, longest]))
    rows = config.batch_size
    grouping = config.grouping if config.padding == "planned" else "random"
    if config.padding == "fixed":
        policy: Policy = Fixed.longest(table)
    elif config.padding == "packed":
        policy = Packed(plan_packing(table, batch_size=rows, max_shapes=min(2, config.max_shapes), shares=shares))
    else:
        policy = Planned(plan_shapes(table, max_shapes=config.max_shapes, batch_size=rows, grouping=grouping))
    policies: dict[str, Policy] = dict.fromkeys(sources, policy)
    if config.padding == "exact":  # what an evaluation gives does not depend on its shapes, so those stay few
        policies[config.splits[0]] = Exact(names)
    return {
        split: BucketBatcher(
            source,
            policies[split],
            lengths=lengths[split],
            seed=config.seed,
            grouping=policies[split].grouping or grouping,
            batch_size=rows,
        )
        for split, source in sources.items()
    }


def _objective(config: Config) -> tuple[Any, Any]:
    """The loss and the metrics of a task."""
    from multimodal_pad import training

    return {
        "classes": (training.cross_entropy, training.classification_metrics),
        "sentiment": (training.l1, training.sentiment_metrics),
        "sims": (training.l1, training.sims_metrics),
        "emotions": (training.binary_cross_entropy, training.emotion_metrics),
    }[config.task]


def markdown(results: dict[str, Any]) -> str:
    """A row per epoch, and the test split."""
    names = list(results["test"])
    lines = [
        f"| epoch | train loss | {' | '.join(names)} | seconds |",
        f"|---:|---:|{'---:|' * len(names)}---:|",
    ]
    for record in results["history"]:
        figures = " | ".join(f"{record['evaluation'][name]:.4f}" for name in names)
        lines.append(f"| {record['epoch']} | {record['train_loss']:.4f} | {figures} | {record['seconds']:.1f} |")
    test = ", ".join(f"{name} {value:.4f}" for name, value in results["test"].items())
    config, count = results["config"], results["processes"]
    text = (
        f"Epoch {results['best_epoch']} on {config['splits'][2]}: {test}. {config['corpus']} "
        f"{config['file']}, {results['parameters']:,} parameters, {results['shapes']} batch shapes, {count} "
        f"process{'es' if count > 1 else ''}, {results['seconds']:.0f} s with compiling."
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
            command = [sys.executable, "-m", "experiments.train", *arguments]
            joined = ["--join", port, str(index), str(count)]
            out = None if index == 0 else subprocess.DEVNULL  # all would say the same
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
    """Run and write; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", choices=configs.NAMES, default="synthetic", help="the corpus (default: synthetic)")
    parser.add_argument("--data-dir", metavar="DIR", help="of the corpus' files, or a flat cache")
    changes = parser.add_argument_group("instead of what the configuration says")
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
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/train_emotion/<time>")
    parser.add_argument("--quick", action="store_true", help="a tiny model for one epoch, to see that everything works")
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
        "train_emotion", arguments, options.out, lambda _: train(config, load_splits(config), progress=True), markdown
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
