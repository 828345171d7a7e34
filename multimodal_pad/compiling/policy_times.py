"""Which policy trains fastest on this device: seconds to compile and to step under each, from a few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.compiling.calibration import compile_shapes, fit_steps
from multimodal_pad.compiling.options import CompilerOptions
from multimodal_pad.compiling.step_times import StepTime, time_batches
from multimodal_pad.compiling.table import StepTable, as_table
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchShape, batch_shapes
from multimodal_pad.lengths.samples import EMPTY, check_whole
from multimodal_pad.planning.run_time import RunTime, tell_seconds
from multimodal_pad.text_table import text_table, wrapped


@dataclass(frozen=True)
class PolicyTime:
    """The times of a run under one policy.

    Attributes:
        samples: in an epoch.
        shapes: batch shapes that the run compiles.
        compile_seconds: for one of them, on the clock.
        epoch_seconds: for the steps of an epoch, the batches ready on the host.
        measured: the shapes that were compiled and timed; the steps of others are predicted from these.

    >>> time = PolicyTime(samples=100, shapes=2, compile_seconds=3.0, epoch_seconds=0.5)
    >>> time.seconds(epochs=10), time.seconds_per_sample
    (11.0, 0.005)
    """

    samples: int
    shapes: int
    compile_seconds: float
    epoch_seconds: float
    measured: tuple[StepTime, ...] = ()

    @property
    def seconds_per_sample(self) -> float:
        """Seconds of stepping per sample."""
        return self.epoch_seconds / self.samples

    def seconds(self, epochs: float) -> float:
        """Return the seconds of a run of so many epochs: compiling and stepping."""
        return self.shapes * self.compile_seconds + epochs * self.epoch_seconds


@dataclass(frozen=True)
class PolicyTimes:
    """The result of :func:`time_policies`; ``print`` it for a table.

    Attributes:
        epochs: of the run.
        times: by the name of the policy.

    >>> times = {"fixed": PolicyTime(100, 1, 5.0, 2.0), "packed": PolicyTime(100, 1, 4.0, 2.5)}
    >>> print(PolicyTimes(3, times))
            shapes  compiling, s  ms per sample  3 epochs, s
    fixed        1             5             20           11
    packed       1             4             25           12
    fixed: 11 s for 3 epochs; packed 12 s (1.25 times as long per sample)
    >>> PolicyTimes(1, times).best
    'packed'
    """

    epochs: float
    times: Mapping[str, PolicyTime]

    @property
    def best(self) -> str:
        """The policy under which the run takes least time; of several, the first."""
        return min(self.times, key=lambda name: self.times[name].seconds(self.epochs))

    @property
    def reason(self) -> str:
        """A line on the run's time under the best policy, and under the others, from the fastest."""
        best = self.times[self.best]
        parts = [f"{self.best}: {tell_seconds(best.seconds(self.epochs))} s for {self.epochs:g} epochs"]
        for name, time in sorted(self.times.items(), key=lambda item: item[1].seconds(self.epochs)):
            if name != self.best:
                ratio = time.seconds_per_sample / best.seconds_per_sample
                ahead = f", ahead from {_epochs_until(time, best):,} epochs on" if ratio < 1 else ""
                parts.append(
                    f"{name} {tell_seconds(time.seconds(self.epochs))} s ({ratio:.2f} times as long per sample{ahead})"
                )
        return "; ".join(parts)

    def __str__(self) -> str:
        heading = ["", "shapes", "compiling, s", "ms per sample", f"{self.epochs:g} epochs, s"]
        rows = [
            [
                name,
                f"{time.shapes:,}",
                tell_seconds(time.seconds(0)),
                tell_seconds(1e3 * time.seconds_per_sample),
                tell_seconds(time.seconds(self.epochs)),
            ]
            for name, time in self.times.items()
        ]
        return "\n".join([*text_table(heading, rows, left=1), *wrapped([self.reason])])


def time_policies(
    step: StepTable | Callable[[Any, Any], Any],
    batchers: Mapping[str, BucketBatcher],
    state: Any,
    *,
    epochs: float,
    most_shapes: int = 2,
    repeats: int = 5,
    threads: int | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = False,
) -> PolicyTimes:
    """Compile and time a few steps under each of several policies, to find the fastest for a run here.

    Fixed padding pays for unused positions, a plan of several shapes for compiling them, and packing for
    keeping the samples of an axis apart, which makes it the slowest where all lengths are about equal. Which of these
    weighs most depends on the lengths, the model and the device. The largest batch shape of each policy and those of
    most steps are compiled, and timed on batches of its first epoch, all policies in turn. Other shapes are assumed to
    compile as long as these, and their steps are predicted from these by the batcher's cost, as :func:`calibrate` does.

    Args:
        step: a table or function ``(state, batch)`` that gives the next state, or a tuple that begins with it. It takes
            batches of all layouts that the batchers have; a table keeps what is compiled.
        batchers: by name, all of the same samples.
        state: its first argument; the steps run on a copy.
        epochs: of the run to judge; count those of all runs that will read the same programs from the cache.
        most_shapes: batch shapes of a policy that are compiled, at most.
        repeats: runs at each shape after a first one; their median counts.
        threads: how many compile side by side, as for :func:`warm_up`.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar.

    Raises:
        PaddingError: no batchers, batchers of other numbers of samples or of a share of each batch, several processes,
            an option out of range, or a step that gives no next state.

    >>> from multimodal_pad import Fixed, LengthTable, Packed, plan_packing
    >>> samples = [{"text": np.arange(1.0 + i % 50)} for i in range(64)]
    >>> lengths = LengthTable.measure(samples)
    >>> policies = {"fixed": Fixed.longest(lengths), "packed": Packed(plan_packing(lengths, batch_size=8))}
    >>> batchers = {name: BucketBatcher(samples, policy, batch_size=8) for name, policy in policies.items()}
    >>> found = time_policies(lambda total, batch: total + batch.features["text"].sum(), batchers, 0.0 * np.ones(()),
    ...     epochs=10)
    >>> found.best in policies, found.times["packed"].shapes
    (True, 1)
    """
    for name, value in (("most_shapes", most_shapes), ("repeats", repeats)):
        check_whole(name, value, 1)
    RunTime(epochs, 0, 0)  # raises for what is no number of epochs
    _check_batchers(batchers)
    table = as_table(step, compiler_options)
    used = {name: _places_of_shapes(batcher) for name, batcher in batchers.items()}
    chosen, compiling = {}, {}
    for name, batcher in batchers.items():
        chosen[name] = _chosen_shapes(batcher, used[name], most_shapes)
        spec = batcher.spec()._replace(shapes=chosen[name])
        compiling[name] = compile_shapes(table, spec, state, threads=threads, progress=progress)
    tried = [(name, shape) for name in batchers for shape in chosen[name]]
    batches = []
    for name, shape in tried:
        places = np.resize(used[name][shape], repeats + 1).tolist()
        batches.append([batchers[name].batch(0, place) for place in places])
    seconds = dict(zip(tried, time_batches(table, batches, state).tolist(), strict=True))
    times = {}
    for name, batcher in batchers.items():
        measured = tuple(StepTime(shape, seconds[name, shape], compiling[name]) for shape in chosen[name])
        times[name] = PolicyTime(
            samples=_count(batcher),
            shapes=len(batcher.batch_shapes(max(1, math.ceil(epochs)))),
            compile_seconds=compiling[name],
            epoch_seconds=_epoch_seconds(batcher, used[name], measured),
            measured=measured,
        )
    return PolicyTimes(epochs, times)


def _check_batchers(batchers: Mapping[str, BucketBatcher]) -> None:
    if jax.process_count() > 1:
        raise PaddingError(
            f"got {jax.process_count()} processes, whose times would differ; time policies in a run of one, and take "
            "the one that it names in all"
        )
    if not batchers:
        raise PaddingError("got no batchers; give one for each policy, by its name")
    parts = [name for name, batcher in batchers.items() if batcher.shard_count > 1]
    if parts:
        raise PaddingError(f"got batchers of a share of each batch, {parts}; give those of whole batches")
    counts = {name: _count(batcher) for name, batcher in batchers.items()}
    if len(set(counts.values())) > 1:
        raise PaddingError(f"got batchers of other numbers of samples, {counts}; give all of them the same samples")


def _count(batcher: BucketBatcher) -> int:
    """Return the samples of an epoch."""
    return int((batcher.schedule(0).ids != EMPTY).sum())


def _places_of_shapes(batcher: BucketBatcher) -> dict[BatchShape, np.ndarray]:
    """Return the steps of the first epoch at each batch shape that it has."""
    schedule, policy = batcher.schedule(0), batcher.policy
    rows = np.column_stack([schedule.batch_sizes, schedule.lengths])
    distinct, kinds, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    places = np.split(np.argsort(kinds.ravel(), kind="stable"), np.cumsum(counts)[:-1])
    shapes = batch_shapes(distinct[:, 0], distinct[:, 1:], policy.modalities, policy.layout)
    return dict(zip(shapes, places, strict=True))


def _chosen_shapes(batcher: BucketBatcher, used: Mapping[BatchShape, np.ndarray], most: int) -> list[BatchShape]:
    """Return the largest shape, so that the fit reaches that far, and those of most steps."""
    names = batcher.policy.modalities
    largest = max(used, key=lambda shape: shape.price(batcher.cost, names))
    others = sorted((shape for shape in used if shape != largest), key=lambda shape: -len(used[shape]))
    return [largest, *others][:most]


def _epoch_seconds(
    batcher: BucketBatcher, used: Mapping[BatchShape, np.ndarray], measured: tuple[StepTime, ...]
) -> float:
    """Return the seconds of the first epoch's steps, as measured at their shapes, or predicted."""
    known = {time.shape: time.step_seconds for time in measured}
    names = batcher.policy.modalities
    fitted = fit_steps(measured, batcher.cost, names) if len(known) < len(used) else None

    def seconds(shape: BatchShape) -> float:
        if fitted is None or shape in known:
            return known[shape]
        return fitted.seconds_per_cost * (fitted.batch_overhead + shape.price(fitted.cost, names))

    return sum(len(places) * seconds(shape) for shape, places in used.items())


def _epochs_until(faster: PolicyTime, slower: PolicyTime) -> int:
    """Return the number of epochs from which the policy with the faster steps is ahead."""
    behind = faster.seconds(0) - slower.seconds(0)
    return math.ceil(behind / (slower.epoch_seconds - faster.epoch_seconds))
