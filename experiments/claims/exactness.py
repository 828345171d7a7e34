"""Claims on what padding changes in a model: 4.1 masking, 4.2 positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.claims.claim import Claim, Setting, judge
from experiments.lib.exactness import apart, with_nan
from experiments.lib.measure import initial_model
from multimodal_pad import PackedBatch, PaddedBatch, pack_samples, pad_samples
from multimodal_pad.models.embedding import sinusoidal_positions

ROWS = 8
WIDTH = 16
OUTPUTS_APART, GRADIENTS_APART = 1e-5, 1e-5
"""What float32 rounding may change between two padded lengths: outputs, and gradients relative to their norm."""


def masking(setting: Setting, tick: Callable[[], None]) -> Claim:
    """4.1: padded positions are not attended to."""
    claim = Claim(
        "4.1",
        "softmax((QK^T + M) / sqrt(d)) V keeps padded positions out of attention",
        f"This project's model, {ROWS} samples a time: outputs and gradients with NaN in the padding instead of 0, "
        "padded to the longest sample of all instead of to their own maxima, and packed. And the formula as written, "
        "on random queries and keys: M of ones and zeros as in the listing, and M of minus infinity, with a modality "
        "that is missing.",
        f"Holds if nothing changes (exactly for NaN, {OUTPUTS_APART:g} for lengths) and the formula as written gives "
        "padding no weight; in part if the first.",
    )
    names, limits = setting.lengths.modalities, setting.lengths.maxima
    graphdef, parameters = nnx.split(initial_model(setting.model_config, 0))

    @jax.jit
    def evaluate(parameters: Any, batch: PaddedBatch | PackedBatch) -> tuple[jax.Array, Any]:
        def total(parameters: Any) -> tuple[jax.Array, jax.Array]:
            outputs = nnx.merge(graphdef, parameters)(batch)
            return jnp.square(outputs).sum(), outputs

        (_, outputs), gradient = jax.value_and_grad(total, has_aux=True)(parameters)
        return outputs, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    changed: dict[str, list[float]] = {"NaN": [], "lengths": [], "gradient, lengths": [], "packed": []}
    for group in range(min(3, setting.batches)):
        samples = setting.samples[ROWS * group : ROWS * (group + 1)]
        fixed = pad_samples(samples, modalities=names, pad_to=limits)
        outputs, gradient = map(np.asarray, evaluate(parameters, fixed))
        poisoned = map(np.asarray, evaluate(parameters, with_nan(fixed)))
        changed["NaN"].append(max(apart(a, b) for a, b in zip((outputs, gradient), poisoned, strict=True)))
        own, own_gradient = map(np.asarray, evaluate(parameters, pad_samples(samples, modalities=names)))
        changed["lengths"].append(apart(own, outputs))
        changed["gradient, lengths"].append(float(np.linalg.norm(own_gradient - gradient) / np.linalg.norm(gradient)))
        packed, _ = map(np.asarray, evaluate(parameters, pack_samples(samples, modalities=names)))
        changed["packed"].append(apart(packed, outputs))
        tick()
    nan = claim.add("changed by NaN in the padding", changed["NaN"], ".0e")
    lengths = claim.add("outputs changed by padded lengths", changed["lengths"], ".0e")
    gradients = claim.add("gradient changed by padded lengths (relative)", changed["gradient, lengths"], ".0e")
    packed = claim.add("outputs changed by packing", changed["packed"], ".0e")
    listed, infinite, missing = _as_written(setting)
    claim.add("weight on padding, M of ones and zeros", listed, ".0%")
    claim.add("weight on padding, M of minus infinity", infinite, ".0%")
    claim.add("outputs that are NaN where a modality is missing, M of minus infinity", missing, ".0%")
    padded = bool(not nan.any() and lengths.max() <= OUTPUTS_APART and gradients.max() <= GRADIENTS_APART)
    same = {"exact": padded, "planned": padded, "packed": bool(packed.max() <= OUTPUTS_APART)}
    return claim.conclude(
        {kind: judge(holds and max(listed) == 0, holds) for kind, holds in same.items()},
        "Masked with `where` on keys, values and queries, padding changes nothing: exactly for what stands in it, "
        f"within {lengths.max():.0e} for how long it is; packed samples, next to others, give the same within "
        f"{packed.max():.0e}. The formula as written does not do that. A mask of ones and "
        f"zeros that is added to the scores leaves {claim.text('weight on padding, M of ones and zeros')} of the "
        "weight on padding; M has to be minus infinity there, and then a missing modality makes "
        f"{claim.text('outputs that are NaN where a modality is missing, M of minus infinity')} of its outputs NaN, "
        "so that it needs a case of its own.",
    )


def positions(setting: Setting) -> Claim:
    """4.2: positions adapt to the padded length."""
    claim = Claim(
        "4.2",
        "position_ids = arange(seq_length) adapts positions to each batch",
        "Sinusoidal positions and one head of self-attention with masks, in float64, on the audio lengths of random "
        "batches: how much the mean of the real positions changes when a sample is padded to the longest of all "
        "instead of to its batch's maximum, with the padding on its right and on its left.",
        "Holds if nothing changes on either side, in part if on the right.",
    )
    rng = np.random.default_rng(0)
    column = setting.lengths.modalities.index("audio")
    values = setting.lengths.values[: 4 * setting.batches, column]
    longest = int(setting.lengths.values[:, column].max())
    table = sinusoidal_positions(longest, WIDTH).astype(np.float64)
    changed: dict[str, list[float]] = {"right": [], "left": []}
    for start in range(0, len(values), 4):
        batch = values[start : start + 4]
        for length in batch.tolist():
            x = rng.standard_normal((length, WIDTH))
            for side, found in changed.items():
                short, long = (
                    _attended(x + table[offset : offset + length])
                    for offset in ((0, 0) if side == "right" else (int(batch.max()) - length, longest - length))
                )
                found.append(float(np.linalg.norm(long - short) / np.linalg.norm(short)))
    right = claim.add("changed, padding on the right", changed["right"], ".0%")
    left = claim.add("changed, padding on the left", changed["left"], ".0%")
    return claim.conclude(
        judge(not right.any() and not left.any(), not right.any()),
        "With the padding on the right a position is a sample's own, whatever the batch: nothing changes. With the "
        "padding on the left, as the files of CMU-MOSI and CMU-MOSEI have it, arange counts the padding, and the "
        f"same sample comes out {claim.text('changed, padding on the left')} different in another batch. Planned "
        "shapes pad on the right too, and each packed sample counts its positions from 0.",
    )


def _as_written(setting: Setting) -> tuple[list[float], list[float], list[float]]:
    """Try the formula on random queries and keys: weight on padding with either mask, NaN for a missing modality."""
    rng = np.random.default_rng(0)
    column = setting.lengths.modalities.index("audio")
    rows = setting.corpus.batch_size
    listed, infinite, missing = [], [], []
    for start in range(setting.batches):
        lengths = setting.lengths.values[rows * start : rows * (start + 1), column]
        if not len(lengths):
            break
        longest = int(lengths.max())
        real = np.arange(longest) < lengths[:, None]
        query, key = rng.standard_normal((2, len(lengths), longest, WIDTH))
        scores = np.einsum("btd,bsd->bts", query, key)
        for found, mask in ((listed, real.astype(float)), (infinite, np.where(real, 0, -np.inf))):
            weights = _softmax((scores + mask[:, None]) / np.sqrt(WIDTH))
            on_padding = np.where(real[:, None], 0, weights).sum(axis=-1)
            found.append(float(on_padding[real].mean()))
        with np.errstate(invalid="ignore"):
            missing.append(float(np.isnan(_softmax(scores[:1] - np.inf)).mean()))
    return listed, infinite, missing


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _attended(x: np.ndarray) -> np.ndarray:
    """Return the mean over positions of one head of self-attention."""
    return (_softmax(x @ x.T / np.sqrt(x.shape[1])) @ x).mean(axis=0)
