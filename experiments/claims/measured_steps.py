"""Claims on memory and time: 3.1, 3.2.1, 3.2.2, and 5.1 on both, from compiled steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.claim import KINDS, Claim, Setting, judge
from experiments.claims.from_lengths import SAVING
from experiments.lib.measure import make_step
from multimodal_pad import Batch
from multimodal_pad.compiling import StepTable
from multimodal_pad.models import masked_attention

FASTER = (0.15, 0.25)
"""The time that the description expects to be saved."""

ATTENTION_LENGTHS = (128, 256, 512, 1024)
ATTENTION_ROWS = 8


class MeasuredSteps:
    """Batches under fixed padding and of each kind: bytes, and seconds of a train step and a forward pass.

    Those under fixed and exact padding hold the same samples, the others as many; all are timed in alternation. What is
    timed is compiled before.
    """

    def __init__(self, setting: Setting, tick: Callable[[], None]) -> None:
        self.setting = setting
        self.fixed = setting.batcher("fixed/random")
        self.batchers = {"fixed": self.fixed} | {kind: setting.batcher(policy) for kind, policy in KINDS.items()}
        steps = min(len(batcher.schedule(0)) for batcher in self.batchers.values())
        self.places = np.random.default_rng(0).permutation(steps)[: setting.batches].tolist()
        self._step = make_step(setting.model_config, 1e-3, 0)
        self._train, self._forward = StepTable(self._step.train_step), StepTable(self._step.eval_step)
        self._tick = tick

    @cached_property
    def peaks(self) -> dict[str, int]:
        """The bytes at the peak of each kind, and under fixed padding.

        Where the device has statistics, these are the most bytes in use after a train step of every batch measured,
        so that they must be asked for before anything else runs: only a new process sets the peak back. Elsewhere, as
        on CPU, they are the bytes that the train step of an epoch's largest batch holds, by XLA's memory analysis.
        """
        found: dict[str, int] = {}
        for name in ("packed", "exact", "planned", "fixed"):  # the smaller ones first: a peak only rises
            batcher = self.batchers[name]
            if peak_bytes_in_use() is None:
                kept = self.setting.model_config.cost.activation_bytes(batcher.schedule(0).lengths)
                largest = batcher.batch(0, int(kept.argmax()))
                found[name] = self._train.compile(self._step.state, largest).device_bytes or 0
                continue
            for place in self.places:
                jax.block_until_ready(self._train(self._step.state, batcher.batch(0, place)))
            found[name] = peak_bytes_in_use() or 0
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per batch, with the figures under fixed padding and of each kind."""
        step, train, forward = self._step, self._train, self._forward
        found = []
        for place in self.places:
            batches = {name: batcher.batch(0, place) for name, batcher in self.batchers.items()}
            row: dict[str, Any] = {"compile_seconds": {}}
            for name, batch in batches.items():
                compiled = train.compile(step.state, batch)
                forward.compile(step.state, batch)
                row["compile_seconds"][name] = compiled.seconds
                row[f"device_bytes_{name}"] = compiled.device_bytes
                row[f"batch_bytes_{name}"] = batch.nbytes
                row[f"lengths_{name}"] = [dict(batch.shape.lengths)[m] for m in self.setting.lengths.modalities]
                row[f"train_{name}"], row[f"forward_{name}"] = [], []
            for _ in range(self.setting.repeats):
                for name, batch in batches.items():
                    row[f"train_{name}"].append(_seconds(train, step.state, batch))
                    row[f"forward_{name}"].append(_seconds(forward, step.state, batch))
            found.append(row)
            self._tick()
        return found

    def saved(self, name: str, kind: str = "exact") -> np.ndarray:
        """Return the share of a figure of fixed padding that a kind of batch saves, per batch."""
        return np.array([1 - np.median(row[f"{name}_{kind}"]) / np.median(row[f"{name}_fixed"]) for row in self.rows])

    def _saved_at_the_peak(self, kind: str) -> float:
        return 1 - self.peaks[kind] / self.peaks["fixed"]

    def _mean_step_seconds(self, name: str) -> float:
        return float(np.mean([np.median(row[f"train_{name}"]) for row in self.rows]))

    def planned_step_seconds(self) -> float:
        """Mean seconds of a train step at planned shapes: a batch of each, weighted by its number of steps.

        The few batches of :attr:`rows` may miss a shape whose steps are ten times as long as the others'.
        """
        batcher, step = self.batchers["planned"], self._step
        _, first, counts = np.unique(batcher.schedule(0).lengths, axis=0, return_index=True, return_counts=True)
        batches = [batcher.batch(0, int(place)) for place in first]
        for batch in batches:
            self._train.compile(step.state, batch)
        seconds = [[_seconds(self._train, step.state, batch) for batch in batches] for _ in range(self.setting.repeats)]
        return float(np.average(np.median(seconds, axis=0), weights=counts))

    def memory(self) -> Claim:
        """3.1: memory, and the efficiency ratio."""
        claim = Claim(
            "3.1",
            "60 to 80 % less memory than fixed padding; efficiency ratio L_batch / L_global",
            f"{len(self.places)} batches of each kind: bytes of the arrays, bytes that the train step holds (XLA's "
            "memory analysis); the peak, which is the most bytes in use where the device has statistics, and otherwise "
            "what the train step of an epoch's largest batch holds; over an epoch of exact padding, L_batch / L_global "
            "per modality.",
            "Holds if the median saving is 60 % or more in both kinds of bytes and at the peak, in part if in some.",
        )
        verdicts = {}
        for kind in KINDS:
            saved = [
                float(np.median(claim.add(f"saved of {what}, {kind}", values, ".0%")))
                for what, values in {
                    "a batch's bytes": self.saved("batch_bytes", kind),
                    "the step's bytes": self.saved("device_bytes", kind),
                    "the peak": self._saved_at_the_peak(kind),
                }.items()
            ]
            verdicts[kind] = judge(min(saved) >= SAVING[0], max(saved) >= SAVING[0])
        schedule = self.batchers["exact"].schedule(0)
        longest = self.setting.lengths.values.max(axis=0)
        for column, name in enumerate(self.setting.lengths.modalities):
            claim.add(f"L_batch / L_global, {name}", schedule.lengths[:, column] / longest[column])
        claim.add(
            "share of batches that hold a modality's longest sample",
            (schedule.lengths == longest).any(axis=1).mean(),
            ".1%",
        )
        batch, step, peak = (
            {kind: claim.text(f"saved of {what}, {kind}") for kind in KINDS}
            for what in ("a batch's bytes", "the step's bytes", "the peak")
        )
        return claim.conclude(
            verdicts,
            f"Exactly padded batches are {batch['exact']} smaller, and a step holds {step['exact']} less, in the "
            "median and the middle half of the batches. The peak, which is what has to fit the device, comes with the "
            f"longest sample, whatever the others are padded to: {peak['exact']} of its bytes are saved. Planned "
            f"shapes save {batch['planned']} of a batch, {step['planned']} of a step, and {peak['planned']} of the "
            f"peak, since one shape must hold the longest sample. A packed batch of one shape saves "
            f"{batch['packed']}, {step['packed']} and {peak['packed']}.",
        )

    def step_time(self) -> Claim:
        """3.2.2: forward and backward time."""
        claim = Claim(
            "3.2.2",
            "Faster forward and backward propagation",
            f"{len(self.places)} batches of each kind, {self.setting.repeats} times each in alternation with fixed "
            "padding, compiled before: seconds of a forward pass and of a train step.",
            "Holds if both are faster in every batch, in part if in the median.",
        )
        verdicts, texts = {}, {}
        for kind in KINDS:
            forward = claim.add(f"time saved, forward, {kind}", self.saved("forward", kind), ".0%")
            train = claim.add(f"time saved, train step, {kind}", self.saved("train", kind), ".0%")
            verdicts[kind] = judge(
                bool((forward > 0).all() and (train > 0).all()),
                bool(np.median(forward) > 0 and np.median(train) > 0),
            )
            texts[kind] = [claim.text(f"time saved, {what}, {kind}") for what in ("forward", "train step")]
        for name in self.batchers:
            claim.add(f"train step, {name} (ms)", [1e3 * np.median(row[f"train_{name}"]) for row in self.rows], ",.0f")
        return claim.conclude(
            verdicts,
            "Once compiled, a forward pass and a train step take less time: "
            + "; ".join(f"{kind} {forward} and {train} less" for kind, (forward, train) in texts.items())
            + ".",
        )

    def performance(self, epochs: int) -> Claim:
        """5.1: memory and training speed together, with what the description leaves out."""
        claim = Claim(
            "5.1",
            "Memory 60 to 80 % lower, training 15 to 25 % faster",
            "The batches of 3.1 and 3.2.2; and seconds to train, which are compiling every shape that comes, one after "
            f"the other, and stepping through {epochs} epochs, predicted from the batches measured; with planned "
            "shapes, from a batch of each, weighted by its number of steps.",
            "Holds if memory, at the peak too, and time, with compiling, are saved as expected or more; in part if the "
            "memory of most steps and the time once compiled are.",
        )
        whole, shapes = {}, {}
        compiling = claim.add("compiling one shape (s)", [r["compile_seconds"]["exact"] for r in self.rows], ".1f")
        for name, batcher in self.batchers.items():
            shapes[name] = len(batcher.batch_shapes(epochs))
            step = self.planned_step_seconds() if name == "planned" else self._mean_step_seconds(name)
            once = [row["compile_seconds"]["packed"] for row in self.rows] if name == "packed" else compiling
            steps = sum(len(batcher.schedule(epoch)) for epoch in range(epochs))
            whole[name] = steps * step + shapes[name] * float(np.median(once))
            claim.add(f"shapes compiled, {name}", shapes[name], ",.0f")
            claim.add(f"predicted seconds to train, {name}", whole[name], ",.0f")
        verdicts = {}
        for kind in KINDS:
            memory = np.median(claim.add(f"saved of the step's bytes, {kind}", self.saved("device_bytes", kind), ".0%"))
            once = np.median(claim.add(f"time saved, compiled, {kind}", self.saved("train", kind), ".0%"))
            saved = claim.add(f"time saved, with compiling, {kind}", 1 - whole[kind] / whole["fixed"], ".0%")[0]
            enough = bool(memory >= SAVING[0] and once >= FASTER[0])
            peak = claim.add(f"saved of the peak, {kind}", self._saved_at_the_peak(kind), ".0%")[0]
            verdicts[kind] = judge(enough and bool(saved >= FASTER[0] and peak >= SAVING[0]), enough)
        times = {kind: f"{whole[kind] / whole['fixed']:.2f}" for kind in KINDS}
        return claim.conclude(
            verdicts,
            f"Once compiled, an exactly padded step takes {claim.text('time saved, compiled, exact')} less time. But "
            f"nearly every batch has a shape of its own: {shapes['exact']:,} programs in {epochs} epochs, "
            f"{claim.text('compiling one shape (s)')} s each, make the run {times['exact']} times as long as with "
            f"fixed padding. With {shapes['planned']} planned shapes it is {times['planned']} times as long, and "
            f"packed, with {shapes['packed']}, {times['packed']} times. Memory at the peak is what 3.1 says. In an "
            "eager framework there is nothing to compile.",
        )

    def attention_cost(self) -> Claim:
        """3.2.1: attention costs the square of the length."""
        claim = Claim(
            "3.2.1",
            "Attention costs O(B H L^2 D), so shorter batches save quadratically",
            f"Masked self-attention alone, forward and backward, at {', '.join(map(str, ATTENTION_LENGTHS))} "
            f"positions, {self.setting.repeats} times in alternation; the exponent is the slope in the logarithms. "
            "Over an epoch: the attention FLOPs of exact padding and of planned shapes over those of fixed padding, "
            "and the share of attention in the FLOPs of the whole model.",
            "Holds if the exponent lies between 1.7 and 2.3 and attention is most of the model's cost; in part if "
            "the first.",
        )
        exponents = claim.add("exponent of the time", _attention_exponents(self.setting, self._tick))
        cost = self.setting.model_config.cost
        fixed, exact, planned = (
            cost.step_flops(self.batchers[name].schedule(0).lengths).sum(axis=0)
            for name in ("fixed", "exact", "planned")
        )
        for name, flops in (("exact", exact), ("planned", planned)):
            claim.add(f"attention FLOPs of an epoch, {name} / fixed", flops[1] / fixed[1], ".3f")
            claim.add(f"other FLOPs of an epoch, {name} / fixed", flops[0] / fixed[0], ".3f")
        share = claim.add("attention's share of the FLOPs, fixed", fixed[1] / fixed.sum(), ".0%")[0]
        claim.add("attention's share of the FLOPs, exact", exact[1] / exact.sum(), ".0%")
        quadratic = 1.7 <= float(np.median(exponents)) <= 2.3
        at_fixed, at_exact = (claim.text(f"attention's share of the FLOPs, {name}") for name in ("fixed", "exact"))
        return claim.conclude(
            judge(quadratic and bool(share > 0.5), quadratic),
            f"The time of attention grows with L^{claim.text('exponent of the time')}. Over an epoch exact padding "
            f"leaves {claim.text('attention FLOPs of an epoch, exact / fixed')} of the attention FLOPs, and "
            f"{claim.text('other FLOPs of an epoch, exact / fixed')} of all others, which grow with L; planned shapes "
            f"leave {claim.text('attention FLOPs of an epoch, planned / fixed')} and "
            f"{claim.text('other FLOPs of an epoch, planned / fixed')}. Attention is "
            f"{at_fixed} of the model's FLOPs under fixed padding and {at_exact} under exact padding, so that the "
            "square rules only part of the cost.",
        )


def peak_bytes_in_use() -> int | None:
    """Of the first device, since the process began; None where it does not tell."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def _seconds(table: StepTable, state: Any, batch: Batch) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(table(state, batch))
    return time.perf_counter() - begun


def _attention_exponents(setting: Setting, tick: Callable[[], None]) -> list[float]:
    """Return the slope of log seconds over log length, once per repetition."""
    heads = setting.model_config.num_heads
    width = setting.model_config.d_model // heads

    @jax.jit
    def run(x: jax.Array, lengths: jax.Array) -> jax.Array:
        def total(x: jax.Array) -> jax.Array:
            return masked_attention(x, x, x, query_lengths=lengths, key_lengths=lengths).sum()

        return jax.grad(total)(x)

    rng = np.random.default_rng(0)
    inputs = [
        (
            jnp.asarray(rng.standard_normal((ATTENTION_ROWS, length, heads, width), np.float32)),
            jnp.full(ATTENTION_ROWS, length),
        )
        for length in ATTENTION_LENGTHS
    ]
    for given in inputs:
        jax.block_until_ready(run(*given))
    found = []
    for _ in range(setting.repeats):
        seconds = []
        for given in inputs:
            begun = time.perf_counter()
            jax.block_until_ready(run(*given))
            seconds.append(time.perf_counter() - begun)
        found.append(float(np.polyfit(np.log(ATTENTION_LENGTHS), np.log(seconds), 1)[0]))
    tick()
    return found
