"""Our side of the training benchmark: the policies' batches, and the compiled steps of one model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.lib import corpora
from experiments.lib.corpora import some_batch
from experiments.lib.measure import initial_model, make_step, parameters_of, step_work
from experiments.peers.contenders import (
    CORES,
    EPOCHS,
    Config,
    Contender,
    Prepared,
    answers,
    first_facts,
    make_batches,
    warmed,
)
from multimodal_pad import BatchShape, BatchSpec, BucketBatcher, pack_samples
from multimodal_pad.compiling import StepTable, warm_up
from multimodal_pad.models import TransformerConfig
from multimodal_pad.training import DataMesh


def prepare(library: str, config: Config, _parameters: dict[str, Any]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Prepare our side: the policies' batches and the compiled steps of one model."""
    corpus = config.corpus
    samples, lengths, model_config, _ = corpora.load(corpus, Progress(disable=True))
    mesh = DataMesh() if library.endswith(CORES) else None
    step = make_step(model_config, corpus.learning_rate, corpus.seed, mesh and mesh.mesh)
    shares = 1 if mesh is None else mesh.mesh.size
    prepared = [
        _compiled_steps(
            contender,
            make_batches(contender, samples, lengths, model_config, corpus, shares=shares),
            step,
            model_config,
            corpus,
            mesh,
        )
        for contender in config.contenders
        if contender.library == library
    ]
    model = initial_model(model_config, corpus.seed)
    parameters = parameters_of(model)

    def forward() -> np.ndarray:
        padded, some, _ = some_batch(samples, lengths)
        packed = pack_samples(some, modalities=lengths.modalities)
        with jax.default_matmul_precision("float32"):
            return np.stack([model(batch) for batch in (padded, packed)])

    first = first_facts(prepared, samples, parameters, jax.__version__)
    return {**first, "platform": jax.default_backend(), "parameters": parameters}, answers(prepared, forward)


def _compiled_steps(
    contender: Contender,
    batches: tuple[BucketBatcher, float],
    step: Any,
    config: TransformerConfig,
    corpus: Any,
    mesh: DataMesh | None,
) -> Prepared:
    """Compile our train step for the shapes of the contender, or for as many of them as it sets."""
    jax.clear_caches()  # so that no shape that another contender compiled is found
    batcher, preparing = batches
    spread: dict[str, Any] = {}
    if mesh is not None:
        batcher = mesh.share(batcher)
        spread = {"in_shardings": (mesh.state_sharding, mesh.batch_sharding), "out_shardings": mesh.state_sharding}
    schedule, table = batcher.schedule(0), StepTable(step.train_step, donate_state=True, **spread)
    of_step = [
        BatchShape.of(rows, dict(zip(batcher.policy.modalities, shape, strict=True)), batcher.policy.layout)
        for rows, shape in zip(schedule.batch_sizes.tolist(), schedule.lengths.tolist(), strict=True)
    ]
    order = np.random.default_rng(corpus.seed).permutation(len(schedule)).tolist()
    shapes = list(
        dict.fromkeys(of_step[place] for place in order)
    )  # in random order, so that shapes of many steps come early
    if batcher.policy.finite and contender.compiled is None:
        shapes = batcher.batch_shapes(max(EPOCHS))
    shapes = shapes[: contender.compiled]
    begun = time.perf_counter()
    if batcher.policy.finite:
        warm_up(table, BatchSpec(shapes, batcher.example()), step.state, progress=False)
    else:  # one by one, as they come
        for place in order:
            if of_step[place] in shapes:
                table.compile(step.state, batcher.batch(0, place))
    per_shape = (time.perf_counter() - begun) / len(shapes)
    # A copy, since it is donated and every contender begins from it.
    copied = jax.tree.map(np.array, step.state)
    state = jax.device_put(copied) if mesh is None else mesh.place_state(copied)

    def run(place: int) -> None:
        nonlocal state
        batch = batcher.batch(0, place)
        state, metrics = table(state, batch if mesh is None else mesh.place_batch(batch))
        float(metrics.loss)

    places = [place for place in order if of_step[place] in table.steps]
    counts = {str(epochs): len(batcher.batch_shapes(epochs)) for epochs in EPOCHS}
    held = [compiled.device_bytes for compiled in table.steps.values()]
    prepared = Prepared(
        step_work(config.cost, schedule.lengths, schedule.batch_sizes),
        batcher.forecast().cost_efficiency,
        places,
        run,
        {
            "preparing_seconds": preparing,
            "shapes": counts,
            "shapes_compiled": len(table),
            "compile_seconds": {epochs: per_shape * count for epochs, count in counts.items()},
            "device_bytes": max((size for size in held if size is not None), default=None),
        },
    )
    return warmed(prepared)
