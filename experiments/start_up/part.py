"""One part of start_up, in a process of its own; prints its figures as a line of JSON.

python -m experiments.start_up.part NAME OPTIONS    as experiments.start_up calls it
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.lib.corpora import Config, load, on_corpus
from experiments.lib.measure import make_step
from experiments.lib.policies import make_batcher, make_policy, parse_policy
from multimodal_pad import BatchSpec, BucketBatcher, ShapePlan
from multimodal_pad.compiling import (
    CompileLog,
    StepTable,
    forbid_compiles,
    use_compilation_cache,
    warm_up,
)
from multimodal_pad.compiling.batch_sizes import BatchSizeFit, usable_bytes
from multimodal_pad.training import TrainStep

Options = dict[str, Any]


def prepare(options: Options, spec: str) -> tuple[Config, BucketBatcher, Callable[[], TrainStep]]:
    """Return the batches of a policy, and a function that makes a train step not compiled yet."""
    names = ("data_dir", "modalities", "samples", "epochs", "batch_size")
    config = on_corpus(**{name: options[name] for name in names})
    with Progress(disable=True) as progress:
        samples, lengths, model_config, _ = load(config, progress)
    name, grouping = parse_policy(spec)
    policy = make_policy(name, grouping, lengths, config, model_config)
    batcher = make_batcher(policy, grouping, samples, lengths, config, model_config)
    return config, batcher, lambda: make_step(model_config, config.learning_rate, config.seed)


def _plan(batcher: BucketBatcher) -> ShapePlan:
    plan = getattr(batcher.policy, "plan", None)
    if plan is None:
        raise ValueError(f"got {batcher.policy!r}; these parts need a plan")
    return plan


def start(options: Options) -> dict[str, Any]:
    """Run from nothing to a number of steps, after compiling all shapes that are known."""
    if options["cache_dir"]:
        use_compilation_cache(options["cache_dir"])
    with CompileLog() as log:
        config, batcher, new_step = prepare(options, options["policy"])
        step = new_step()
        table, state = StepTable(step.train_step, donate_state=True), step.state
        prepared = time.time()
        if batcher.policy.finite:
            warm_up(table, batcher, state, progress=False)
        ended, compiled = [], []
        for batch in batcher.epoch(0):
            state, metrics = table(state, batch)
            float(metrics.loss)  # waits for the step
            ended.append(time.time())
            compiled.append(log.total.compiled)
            if len(ended) == options["steps"]:
                break
    return {
        "shapes": len(batcher.batch_shapes(config.epochs)),
        "seconds_to_prepare": prepared - options["started"],
        "seconds_to_first_step": ended[0] - options["started"],
        "seconds_to_last_step": ended[-1] - options["started"],
        "steps": len(ended),
        "compiled": log.total.compiled,
        "steps_compiled": log["train_step"].compiled,
        "cache_hits": log.total.cache_hits,
        "compiled_after_first_step": compiled[-1] - compiled[0],
        "saved_seconds": log.total.saved_seconds,
        "report": log.report("train_step"),
    }


def warming(options: Options) -> dict[str, Any]:
    """Time compiling all planned shapes before the first step, against each when it first comes, in alternation."""
    _, batcher, new_step = prepare(options, options["planned"])
    plan = _plan(batcher)
    seconds: dict[str, list[float]] = {"lazy_seconds": [], "warm_up_seconds": []}
    example = batcher.example()
    for _ in range(options["rounds"]):
        for name in seconds:
            step = new_step()  # a new function, for which JAX has no programs
            table = StepTable(step.train_step, donate_state=True)
            begun = time.perf_counter()
            if name == "warm_up_seconds":
                warm_up(table, plan.spec(example), step.state, progress=False)
            else:
                for shape in plan.batch_shapes:
                    warm_up(table, BatchSpec([shape], example), step.state, threads=1, progress=False)
            seconds[name].append(time.perf_counter() - begun)
    return {"shapes": len(plan), **seconds}


def dispatch(options: Options) -> dict[str, Any]:
    """Time a call through the table against one through its executable, in alternation."""

    def tiny_step(state: list[jax.Array], batch: Any) -> Any:
        return [x + 1 for x in state], batch.sample_mask.sum()

    _, batcher, _ = prepare(options, options["planned"])
    batch = jax.device_put(next(batcher.epoch(0)))
    state = jax.device_put([np.zeros(8, np.float32)] * 5)  # as many arrays as our train state has
    table = warm_up(tiny_step, BatchSpec([batch.shape], batch), state, progress=False)
    compiled = table.steps[batch.shape].call
    calls, through_table, alone = 200, [], []
    with forbid_compiles():
        for _ in range(100 * options["rounds"]):
            for call, taken in ((table, through_table), (compiled, alone)):
                begun = time.perf_counter()
                for _ in range(calls - 1):
                    call(state, batch)
                result = call(state, batch)
                taken.append((time.perf_counter() - begun) / calls * 1e6)
                jax.block_until_ready(result)
    more = np.array(through_table) - np.array(alone)
    return {
        "compiled_us_median": float(np.median(alone)),
        "overhead_us_median": float(np.median(more)),
        "overhead_us_quartiles": np.quantile(more, [0.25, 0.75]).tolist(),
    }


def batch_sizes(options: Options) -> dict[str, Any]:
    """Find the rows that fit a limit, and compare predicted bytes with those of the real programs."""
    _, batcher, new_step = prepare(options, options["planned"])
    plan, step = _plan(batcher), new_step()
    table = StepTable(step.train_step, donate_state=True)
    limit = usable_bytes(options["bytes_limit"], step.state, headroom=0.1)
    fit = BatchSizeFit(table, plan, step.state, batcher.example(), limit)
    begun = time.perf_counter()
    with CompileLog() as log:
        sizes = fit.run().tolist()
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "limit": fit.limit,
        "compilations": log["train_step"].backend_compiles,
        "shapes": [
            {
                "lengths": dict(shape.lengths),
                "rows": rows,
                "most": search.most,
                "bytes": search.known[rows],
            }
            for shape, rows, search in zip(plan.batch_shapes, sizes, fit.searches, strict=True)
        ],
        "predictions": [
            {
                "lengths": dict(shape.lengths),
                "rows": rows,
                "predicted": said,
                "bytes": search.known[rows],
            }
            for shape, search in zip(plan.batch_shapes, fit.searches, strict=True)
            for rows, said in search.predicted.items()
        ],
    }


PARTS = {part.__name__: part for part in (start, warming, dispatch, batch_sizes)}


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))))
