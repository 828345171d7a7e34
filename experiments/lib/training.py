"""One training on a corpus of emotions or sentiment, by its configuration."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from experiments.lib.emotion import Config, num_outputs, vocabulary_sizes
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


def train(config: Config, sources: dict[str, Any], *, progress: bool) -> dict[str, Any]:
    """Train, in this process's share; return the history, and the best epoch's figures on the test split."""
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
    """Make the batcher of each split; shapes are planned for the training samples, and hold the longest of any split.

    ``shares`` is the number of processes that take a part of each batch.
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
    if config.padding == "exact":  # evaluations have few shapes, since their results don't depend on them
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
    """Return the loss and the metrics of a task."""
    from multimodal_pad import training

    return {
        "classes": (training.cross_entropy, training.classification_metrics),
        "sentiment": (training.l1, training.sentiment_metrics),
        "sims": (training.l1, training.sims_metrics),
        "emotions": (training.binary_cross_entropy, training.emotion_metrics),
    }[config.task]
