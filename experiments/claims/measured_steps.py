"""Claims on memory and time: 3.1, 3.2.1, 3.2.2, and 5.1 on both, from compiled steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.claim import Claim, Setting
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
    """Random batches, under fixed and exact padding and packed: bytes, and seconds of a train step and a forward pass.

    The padded ones hold the same samples, the packed ones as many others; they are timed in alternation. What is timed
    is compiled before.
    """

    def __init__(self, setting: Setting, tick: Callable[[], None]) -> None:
        self.setting = setting
        self.fixed, self.exact = setting.batcher("fixed/random"), setting.batcher("exact/random")
        self.packed = setting.batcher("packed")
        self.places = np.random.default_rng(0).permutation(len(self.exact.schedule(0)))[: setting.batches].tolist()
        self._step = make_step(setting.model_config, 1e-3, 0)
        self._train, self._forward = StepTable(self._step.train_step), StepTable(self._step.eval_step)
        self._tick = tick

    def peaks(self) -> dict[str, int]:
        """Most bytes in use on the device after a train step of every batch under exact, and then under fixed padding.

        Empty where the device does not tell, as on CPU. Only the first call of a process says anything, since nothing
        but a new process sets the peak back.
        """
        found: dict[str, int] = {}
        if peak_bytes_in_use() is None:
            return found
        for name, batcher in (
            ("exact", self.exact),
            ("fixed", self.fixed),
        ):  # the smaller ones first: a peak only rises
            for place in self.places:
                jax.block_until_ready(self._train(self._step.state, batcher.batch(0, place)))
            found[name] = peak_bytes_in_use() or 0
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per batch, with the figures of both paddings."""
        step, train, forward = self._step, self._train, self._forward
        found = []
        for place in self.places:
            batches = {
                "fixed": self.fixed.batch(0, place),
                "exact": self.exact.batch(0, place),
                "packed": self.packed.batch(0, place),
            }
            row: dict[str, Any] = {"compile_seconds": {}}
            for name, batch in batches.items():
                compiled = train.compile(step.state, batch)
                forward.compile(step.state, batch)
                row["compile_seconds"][name] = compiled.seconds
                row[f"device_bytes_{name}"] = compiled.device_bytes
                row[f"batch_bytes_{name}"] = batch.nbytes
                row[f"lengths_{name}"] = [dict(batch.shape.lengths)[m] for m in self.exact.policy.modalities]
                row[f"train_{name}"], row[f"forward_{name}"] = [], []
            for _ in range(self.setting.repeats):
                for name, batch in batches.items():
                    row[f"train_{name}"].append(_seconds(train, step.state, batch))
                    row[f"forward_{name}"].append(_seconds(forward, step.state, batch))
            found.append(row)
            self._tick()
        return found

    def saved(self, name: str, kind: str = "exact") -> np.ndarray:
        """The share of a figure that exact padding, or packing, saves of that of fixed padding, per batch."""
        return np.array([1 - np.median(row[f"{name}_{kind}"]) / np.median(row[f"{name}_fixed"]) for row in self.rows])

    def memory(self) -> Claim:
        """3.1: memory, and the efficiency ratio."""
        claim = Claim(
            "3.1",
            "60 to 80 % less memory than fixed padding; efficiency ratio L_batch / L_global",
            f"{len(self.places)} random batches under both paddings: bytes of the arrays, bytes that the train step "
            "holds (XLA's memory analysis); the peak, which is measured where the device tells the bytes in use, and "
            "otherwise the bytes that the model keeps of an epoch's largest batch, predicted from its lengths; over an "
            "epoch, L_batch / L_global per modality.",
            "Holds if the median saving is 60 % or more in both kinds of bytes and at the peak, in part if in some.",
        )
        peaks = self.peaks()
        batch = claim.add("saved of a batch's bytes", self.saved("batch_bytes"), ".0%")
        device = claim.add("saved of the step's bytes", self.saved("device_bytes"), ".0%")
        claim.add("saved of a batch's bytes, packed", self.saved("batch_bytes", "packed"), ".0%")
        claim.add("saved of the step's bytes, packed", self.saved("device_bytes", "packed"), ".0%")
        schedule = self.exact.schedule(0)
        longest = self.setting.lengths.values.max(axis=0)
        for column, name in enumerate(self.exact.policy.modalities):
            claim.add(f"L_batch / L_global, {name}", schedule.lengths[:, column] / longest[column])
        if not peaks:
            kept = self.setting.model_config.cost.activation_bytes
            peaks = {"exact": kept(schedule.lengths).max(), "fixed": kept(longest[None])[0]}
        peak = claim.add("saved at the peak", 1 - peaks["exact"] / peaks["fixed"], ".0%")
        claim.add(
            "share of batches that hold a modality's longest sample",
            (schedule.lengths == longest).any(axis=1).mean(),
            ".1%",
        )
        medians = [float(np.median(values)) for values in (batch, device, peak)]
        smaller, less = claim.text("saved of a batch's bytes"), claim.text("saved of the step's bytes")
        return claim.conclude(
            min(medians) >= SAVING[0],
            max(medians) >= SAVING[0],
            f"Batches are {smaller} smaller, and a step holds {less} less, in the median and the middle half of the "
            "batches. The peak, which is what has to fit the device, comes with the longest sample, whatever the "
            f"others are padded to: {claim.text('saved at the peak')} of its bytes are saved.",
        )

    def step_time(self) -> Claim:
        """3.2.2: forward and backward time."""
        claim = Claim(
            "3.2.2",
            "Faster forward and backward propagation",
            f"{len(self.places)} random batches under both paddings, {self.setting.repeats} times each in "
            "alternation, compiled before: seconds of a forward pass and of a train step.",
            "Holds if both are faster in every batch, in part if in the median.",
        )
        forward = claim.add("time saved, forward", self.saved("forward"), ".0%")
        train = claim.add("time saved, train step", self.saved("train"), ".0%")
        claim.add("time saved, train step, packed", self.saved("train", "packed"), ".0%")
        claim.add("train step, packed (ms)", [1e3 * np.median(row["train_packed"]) for row in self.rows], ",.0f")
        claim.add("train step, fixed (ms)", [1e3 * np.median(row["train_fixed"]) for row in self.rows], ",.0f")
        claim.add("train step, exact (ms)", [1e3 * np.median(row["train_exact"]) for row in self.rows], ",.0f")
        return claim.conclude(
            bool((forward > 0).all() and (train > 0).all()),
            bool(np.median(forward) > 0 and np.median(train) > 0),
            f"A forward pass takes {claim.text('time saved, forward')} less time, a train step "
            f"{claim.text('time saved, train step')} less, once both are compiled.",
        )

    def performance(self, epochs: int) -> Claim:
        """5.1: memory and training speed together, with what the description leaves out."""
        claim = Claim(
            "5.1",
            "Memory 60 to 80 % lower, training 15 to 25 % faster",
            "The batches of 3.1 and 3.2.2; and seconds to train, which are compiling every shape that comes, and "
            f"stepping through {epochs} epochs, predicted from the batches measured.",
            "Holds if memory and time are saved as predicted or more, with compiling; in part if without it.",
        )
        memory = claim.add("saved of the step's bytes", self.saved("device_bytes"), ".0%")
        once = claim.add("time saved, compiled", self.saved("train"), ".0%")
        kinds = ("fixed", "exact", "packed")
        seconds = {name: float(np.mean([np.median(row[f"train_{name}"]) for row in self.rows])) for name in kinds}
        compiling = [row["compile_seconds"]["exact"] for row in self.rows]
        claim.add("compiling one shape (s)", compiling, ".1f")
        steps = sum(len(self.exact.schedule(epoch)) for epoch in range(epochs))
        batchers = {"fixed": self.fixed, "exact": self.exact, "packed": self.packed}
        shapes = {name: len(batcher.batch_shapes(epochs)) for name, batcher in batchers.items()}
        claim.add("shapes that exact padding compiles", shapes["exact"], ",.0f")
        each = {name: float(np.median([row["compile_seconds"][name] for row in self.rows])) for name in kinds}
        each["fixed"] = each["exact"]  # one program, which one measurement says less of than those of many
        whole = {name: steps * seconds[name] + shapes[name] * each[name] for name in kinds}
        for name, value in whole.items():
            claim.add(f"predicted seconds to train, {name}", value, ",.0f")
        saved = claim.add("time saved, with compiling", 1 - whole["exact"] / whole["fixed"], ".0%")[0]
        enough = bool(np.median(memory) >= SAVING[0]), bool(np.median(once) >= FASTER[0])
        return claim.conclude(
            all(enough) and saved >= FASTER[0],
            all(enough),
            f"Once compiled a step takes {claim.text('time saved, compiled')} less time. But nearly every batch has a "
            f"shape of its own: {shapes['exact']:,} programs in {epochs} epochs, "
            f"{claim.text('compiling one shape (s)')} s each, make the run {whole['exact'] / whole['fixed']:.1f} "
            "times as long as with fixed padding. In an eager framework there is nothing to compile.",
        )

    def attention_cost(self) -> Claim:
        """3.2.1: attention costs the square of the length."""
        claim = Claim(
            "3.2.1",
            "Attention costs O(B H L^2 D), so shorter batches save quadratically",
            f"Masked self-attention alone, forward and backward, at {', '.join(map(str, ATTENTION_LENGTHS))} "
            f"positions, {self.setting.repeats} times in alternation; the exponent is the slope in the logarithms. "
            "Over an epoch: the attention FLOPs of exact over fixed padding, and the share of attention in the FLOPs "
            "of the whole model.",
            "Holds if the exponent lies between 1.7 and 2.3 and attention is most of the model's cost; in part if "
            "the first.",
        )
        exponents = claim.add("exponent of the time", _attention_exponents(self.setting, self._tick))
        cost = self.setting.model_config.cost
        exact, fixed = (cost.step_flops(b.schedule(0).lengths).sum(axis=0) for b in (self.exact, self.fixed))
        claim.add("attention FLOPs of an epoch, exact / fixed", exact[1] / fixed[1], ".3f")
        claim.add("other FLOPs of an epoch, exact / fixed", exact[0] / fixed[0], ".3f")
        share = claim.add("attention's share of the FLOPs, fixed", fixed[1] / fixed.sum(), ".0%")[0]
        claim.add("attention's share of the FLOPs, exact", exact[1] / exact.sum(), ".0%")
        quadratic = 1.7 <= float(np.median(exponents)) <= 2.3
        at_fixed, at_exact = (claim.text(f"attention's share of the FLOPs, {name}") for name in ("fixed", "exact"))
        return claim.conclude(
            quadratic and share > 0.5,
            quadratic,
            f"The time of attention grows with L^{claim.text('exponent of the time')}. Over an epoch exact padding "
            f"leaves {claim.text('attention FLOPs of an epoch, exact / fixed')} of the attention FLOPs, and "
            f"{claim.text('other FLOPs of an epoch, exact / fixed')} of all others, which grow with L. Attention is "
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
    """The slope of log seconds over log length, once per repetition."""
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
