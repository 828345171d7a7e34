"""Seconds of a step at a batch shape, and of compiling its program."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.compiling.log import CompileLog
from multimodal_pad.compiling.table import StepTable, batch_struct
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch, BatchShape


@dataclass(frozen=True)
class StepTime:
    """The measurements at one batch shape.

    Attributes:
        shape: of the batch.
        step_seconds: median of the steps timed.
        compile_seconds: to trace, lower and compile its program.
    """

    shape: BatchShape
    step_seconds: float
    compile_seconds: float


def time_steps(table: StepTable, shapes: Sequence[BatchShape], state: Any, example: Batch, repeats: int) -> np.ndarray:
    """Time a step at each shape: median seconds, float64 ``(n,)``, by :func:`time_batches` with every position real.

    Raises:
        PaddingError: the step gives no next state.
    """
    batches = [_blank(batch_struct(example, shape)) for shape in shapes]
    return time_batches(table, [[batch] * (repeats + 1) for batch in batches], state)


def time_batches(table: StepTable, batches: Sequence[Sequence[Batch]], state: Any) -> np.ndarray:
    """Time a step on batches: median seconds, float64 ``(n,)``, each on equally many batches, in turn.

    A first step is left out. The steps run on a copy of the state, so that a table which donates it leaves the
    caller's.

    Raises:
        PaddingError: the step gives no next state.
    """
    seconds = np.zeros((len(batches[0]), len(batches)))
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)
    rng = np.random.default_rng(0)
    for turn in range(len(seconds)):
        # In another order each time, as in training: a step after one of a large shape takes longer.
        for place in rng.permutation(len(batches)).tolist():
            started = time.perf_counter()
            result = jax.block_until_ready(table(state, batches[place][turn]))
            seconds[turn, place] = time.perf_counter() - started
            state = _next_state(result, state)
    return np.median(seconds[1:], axis=0)


def seconds_from_cache(log: CompileLog) -> float:
    """Return the seconds that the programs from the persistent cache would have taken to compile beside reading.

    They count as compiled, since the programs of other shapes will not be there. The cache stores whole seconds,
    rounded down, which leaves out half a second on average.
    """
    return max(0.0, log.total.saved_seconds + 0.5 * log.total.cache_hits)


def _next_state(result: Any, state: Any) -> Any:
    """Return the state that a step gave: all of its result, or the first part of it."""
    wanted = jax.tree.structure(state)
    for candidate in (result, result[0] if isinstance(result, tuple) and result else None):
        if jax.tree.structure(candidate) == wanted:
            return candidate
    raise PaddingError(
        f"got a step whose result is {jax.tree.structure(result)}, and its state is {wanted}; give one that returns "
        "the next state, or a tuple that begins with it"
    )


def _blank(struct: Batch) -> Batch:
    """Return a batch of zeros with every position real."""

    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), struct)
    full = struct.layout.full_lengths(struct.shape)
    return blank._replace(lengths=full, sample_mask=np.ones(struct.sample_mask.shape, bool))
