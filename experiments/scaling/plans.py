"""Plans, warm-ups and schedules over the number of shapes and of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.lib.distributions import draw_lengths
from experiments.lib.reference_cost import reference_cost
from experiments.scaling.rounds import Config, in_turn
from experiments.scaling.steps import CLASSES, MODALITIES, full_batch
from multimodal_pad import (
    BatchShape,
    LengthTable,
    Packed,
    PackingPlan,
    PaddedBatch,
    Planned,
    Schedule,
    ShapePlan,
    make_schedule,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.compiling import CompileLog, StepTable, warm_up
from multimodal_pad.models import ModalityConfig
from multimodal_pad.models.embedding import InputEmbedding
from multimodal_pad.models.padded import PaddedPositions
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer


class Pooled(nnx.Module):
    """A model that compiles quickly: it embeds each modality, and pools it over its real positions for the head.

    Takes what :class:`~multimodal_pad.models.MultimodalTransformer` takes.
    """

    def __init__(self, names: Sequence[str], width: int, *, rngs: nnx.Rngs) -> None:
        def embedding(given: ModalityConfig) -> InputEmbedding:
            return InputEmbedding(
                width,
                feature_width=given.feature_width,
                vocabulary_size=None,
                kernel_size=given.kernel_size,
                dtype=jnp.dtype("float32"),
                rngs=rngs,
            )

        self.embed = nnx.Dict({name: embedding(MODALITIES[name]) for name in names})
        self.read_out = nnx.Linear(len(names) * width, CLASSES, rngs=rngs)

    def __call__(self, batch: PaddedBatch, **_options: Any) -> jax.Array:
        """Return outputs ``(B, CLASSES)``."""
        pooled = []
        for name, embed in self.embed.items():
            features = jnp.asarray(batch.features[name])
            positions = PaddedPositions(jnp.asarray(batch.lengths[name]), features.shape[1])
            pooled.append(positions.mean(jax.nn.relu(embed(features, positions))))
        return self.read_out(jnp.concatenate(pooled, axis=-1))


def measure_shapes(config: Config, lengths: LengthTable, done: Callable[..., None]) -> list[dict[str, Any]]:
    """Measure plans for more and more shapes, and compiling a small step of all modalities for them."""
    plans, rows = {}, {}
    widths = {name: MODALITIES[name].feature_width or 0 for name in lengths.modalities}
    model = Pooled(lengths.modalities, config.pooled_width, rngs=nnx.Rngs(config.seed))
    step = TrainStep(model, make_optimizer(1e-3), cross_entropy)

    def plan(most: int) -> float:
        begun = time.perf_counter()
        plans[most] = _plan(config, lengths, most)
        return time.perf_counter() - begun

    def compile_all(most: int) -> float:
        jax.clear_caches()
        schedule, used = _schedule(plans[most], lengths)
        table, example = StepTable(step.train_step), full_batch(used[0], widths)
        with CompileLog() as log:
            begun = time.perf_counter()
            warm_up(table, plans[most].spec(example), step.state, progress=False)
            seconds = time.perf_counter() - begun
            for shape in used:
                jax.block_until_ready(table(step.state, full_batch(shape, widths)))
        held = {shape: compiled.device_bytes for shape, compiled in table.steps.items()}
        per_step = [held[shape] for shape in _batch_shapes(lengths, schedule.batch_sizes, schedule.lengths)]
        known = [size for size in per_step if size is not None]
        rows[most] = {
            "size": most,
            "shapes": len(plans[most]),
            "used": len(used),
            "efficiency": plans[most].efficiency,
            "bound": plans[most].bound,
            "compiles": log["train_step"].backend_compiles,
            "device_bytes_largest": max(filter(None, held.values()), default=None),
            "device_bytes_mean": float(np.mean(known)) if known else None,
        }
        return seconds

    planning = in_turn(
        [partial(plan, most) for most in config.shapes], config.rounds, config, partial(done, "planning")
    )
    warming = in_turn(
        [partial(compile_all, most) for most in config.shapes], config.rounds, config, partial(done, "warming up")
    )
    return [
        {**rows[most], "plan_seconds": planning[place], "warm_up_seconds": warming[place]}
        for place, most in enumerate(config.shapes)
    ]


def count_positions(total: jax.Array, batch: PaddedBatch) -> jax.Array:
    """Count positions, the cheapest step there is."""
    return total + sum(lengths.sum() for lengths in batch.lengths.values())


def measure_samples(config: Config, done: Callable[..., None]) -> list[dict[str, Any]]:
    """Measure plans and schedules of larger and larger corpora, and the compilations of an epoch."""
    drawn = {count: draw_lengths("meld", count, config.seed) for count in config.samples}
    plans: dict[int, ShapePlan] = {}
    packing: dict[int, PackingPlan] = {}

    def plan(count: int) -> float:
        begun = time.perf_counter()
        plans[count] = _plan(config, drawn[count], config.planned_shapes)
        return time.perf_counter() - begun

    def pack(count: int) -> float:
        begun = time.perf_counter()
        packing[count] = plan_packing(drawn[count], batch_size=config.planned_rows, cost=reference_cost)
        return time.perf_counter() - begun

    def lay_out(count: int, packed: bool) -> float:
        policy = Packed(packing[count]) if packed else Planned(plans[count])
        begun = time.perf_counter()
        make_schedule(drawn[count], policy, cost=reference_cost)
        return time.perf_counter() - begun

    measures = [partial(make, n) for make in (plan, pack) for n in drawn]
    planning = in_turn(measures, config.rounds, config, partial(done, "planning corpora"))
    measures = [partial(lay_out, n, packed) for packed in (False, True) for n in drawn]
    laying = in_turn(measures, config.step_rounds, config, partial(done, "making schedules"))
    rows = []
    for place, (count, lengths) in enumerate(drawn.items()):
        _, used = _schedule(plans[count], lengths)
        jax.clear_caches()  # so that a shape that corpora share is compiled for each
        table = StepTable(count_positions)
        with CompileLog() as log:
            for shape in used:
                jax.block_until_ready(
                    table(np.int32(0), full_batch(shape, dict.fromkeys(lengths.modalities, 1), False))
                )
        rows.append(
            {
                "size": count,
                "plan_seconds": planning[place],
                "schedule_seconds": laying[place],
                "packing_seconds": planning[len(drawn) + place],
                "packed_schedule_seconds": laying[len(drawn) + place],
                "packed_real_cost": packing[count].efficiency,
                "table_bytes": lengths.values.nbytes,
                "shapes": len(plans[count]),
                "used": len(used),
                "compiles": log["count_positions"].backend_compiles,
            }
        )
    return rows


def _plan(config: Config, lengths: LengthTable, most: int) -> ShapePlan:
    options = {"batch_size": config.planned_rows, "effort": config.effort}
    return plan_shapes(lengths, max_shapes=most, cost=reference_cost, **options)


def _schedule(plan: ShapePlan, lengths: LengthTable) -> tuple[Schedule, list[BatchShape]]:
    """Return the first epoch, and its batch shapes."""
    schedule = make_schedule(lengths, Planned(plan), cost=reference_cost)
    return schedule, _batch_shapes(lengths, *schedule.used)


def _batch_shapes(lengths: LengthTable, rows: np.ndarray, shapes: np.ndarray) -> list[BatchShape]:
    names = lengths.modalities
    listed = zip(rows.tolist(), shapes.tolist(), strict=True)
    return [BatchShape.of(count, dict(zip(names, shape, strict=True))) for count, shape in listed]
