"""Models, losses and data of all kinds that people train, and the loop of Flax's documentation for any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from multimodal_pad import BucketBatcher, Fixed, LengthTable, Packed, plan_packing
from multimodal_pad.training import cross_entropy, l1
from tests.helpers.training import DeepModel, make_samples, mean_of

SEED = 3


def samples_of(kind, count=20, seed=0):
    """Samples with the targets of a kind."""
    rng = np.random.default_rng(seed + 1)
    made = []
    for sample in make_samples(count, seed):
        audio, label = sample["audio"], sample["targets"]
        if kind == "positions":
            tags = {"tag": (audio[:, 0] > 0).astype(np.int32), "energy": audio[:, 1:]}
            made.append({"audio": audio, "position_targets": {"audio": tags}})
        elif kind == "tags":
            made.append({"audio": audio, "position_targets": {"audio": (audio[:, 0] > 0).astype(np.int32)}})
        elif kind == "dict":
            targets = {"label": label, "weight": np.float32(rng.integers(0, 4)), "level": audio[:, :1].mean(0)}
            made.append({"audio": audio, "targets": targets})
        else:
            made.append({"audio": audio} if kind is None else sample)
    return made


def batcher_of(kind, layout="padded", batch_size=6, shares=1, count=20, seed=0):
    samples = samples_of(kind, count, seed)
    if layout == "packed":
        plan = plan_packing(LengthTable.measure(samples), batch_size=batch_size, shares=shares)
        return BucketBatcher(samples, Packed(plan))
    return BucketBatcher(samples, Fixed({"audio": 12}), batch_size=batch_size)


class FrameModel(nnx.Module):
    """Outputs for each frame, in either layout."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, batch):
        return self.head(jax.nn.relu(self.encoder(batch.features["audio"])))


class TwoHeads(nnx.Module):
    def __init__(self, rngs):
        self.encoder = nnx.Linear(3, 4, rngs=rngs)
        self.label = nnx.Linear(4, 2, rngs=rngs)
        self.level = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, batch):
        hidden = jax.nn.relu(self.encoder(mean_of(batch)))
        return {"label": self.label(hidden), "level": self.level(hidden)}


class Halved(nnx.Module):
    """Computes in bfloat16 with parameters in float32."""

    def __init__(self, rngs):
        options = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32, "rngs": rngs}
        self.encoder, self.head = nnx.Linear(3, 4, **options), nnx.Linear(4, 2, **options)

    def __call__(self, batch):
        return self.head(jax.nn.relu(self.encoder(mean_of(batch))))


def classify(model, batch):
    logits = model(batch)
    right = jnp.where(batch.sample_mask, logits.argmax(-1) == batch.targets, False)
    accuracy = right.sum() / batch.sample_mask.sum()
    return cross_entropy(logits, batch.targets, batch.sample_mask), {"accuracy": accuracy}


def tag(model, batch):
    """Of the positions of one modality: what ``loss=cross_entropy`` does by itself."""
    return cross_entropy(model(batch), batch.position_targets["audio"], batch.masks["audio"])


def tag_and_measure(model, batch):
    outputs, targets, mask = model(batch), batch.position_targets["audio"], batch.masks["audio"]
    tags = cross_entropy(outputs, targets["tag"], mask)
    energy = l1(outputs, targets["energy"], mask)
    return tags + energy, {"tags": tags, "energy": energy}


def positions(batch):
    return batch.masks["audio"].sum()


def two_heads(model, batch):
    outputs, mask = model(batch), batch.sample_mask
    label = cross_entropy(outputs["label"], batch.targets["label"], mask)
    level = l1(outputs["level"], batch.targets["level"], mask)
    return label + 0.5 * level, {"label": label, "level": level}


def weighted(model, batch):
    weights = jnp.where(batch.sample_mask, batch.targets["weight"], 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch)["label"], batch.targets["label"])
    return (weights * losses).sum() / jnp.maximum(weights.sum(), 1)


def sample_weights(batch):
    return jnp.where(batch.sample_mask, batch.targets["weight"], 0).sum()


def denoise(model, batch, rngs):
    """Self-supervised: find the mean of the frames from one with noise."""
    clean = mean_of(batch)
    noisy = clean + jax.random.normal(rngs.noise(), clean.shape)
    hidden = jax.nn.relu(model.encoder(noisy))
    return l1(hidden[:, :3], clean, batch.sample_mask)


def contrast(model, batch):
    """Two views of each sample find each other among those of the batch."""
    mean, mask = mean_of(batch), batch.sample_mask
    one, other = model.encoder(mean), model.encoder(1.1 * mean + 0.1)
    similar = jnp.where(mask[None, :], one @ other.T / 8, -1e9)
    losses = optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(mask)))
    return jnp.where(mask, losses, 0).sum() / jnp.maximum(mask.sum(), 1)


class Average(NamedTuple):
    params: Any


def keep_average(decay):
    """An optax transformation that keeps an average of the parameters; the last one of a chain."""

    def update(updates, state, params=None):
        new = optax.apply_updates(params, updates)
        return updates, Average(optax.tree.add(optax.tree.scale(decay, state.params), optax.tree.scale(1 - decay, new)))

    return optax.GradientTransformation(Average, update)


@dataclass(frozen=True)
class Kind:
    """What is trained: ``fit`` gets the options, and the plain loop ``loss_fn``."""

    model: Callable[[nnx.Rngs], nnx.Module]
    data: Any
    loss_fn: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = field(default_factory=lambda: optax.sgd(0.1))
    layout: str = "padded"


def _deep(**options):
    return lambda rngs: DeepModel(rngs=rngs, **options)


AVERAGED = {"loss_fn": classify, "eval_params": lambda opt_state, _: opt_state[-1].params}
SCHEDULE_FREE = {"loss_fn": classify, "eval_params": optax.contrib.schedule_free_eval_params}
KINDS = {
    "self-supervised": Kind(_deep(), None, denoise, {"loss_fn": denoise, "seed": SEED}),
    "contrastive": Kind(_deep(), None, contrast, {"loss_fn": contrast}, layout="packed"),
    "tags of positions": Kind(FrameModel, "tags", tag),
    "tags of positions, packed": Kind(FrameModel, "tags", tag, layout="packed"),
    "dicts of positions": Kind(
        FrameModel, "positions", tag_and_measure, {"loss_fn": tag_and_measure, "weight_fn": positions}
    ),
    "two heads": Kind(TwoHeads, "dict", two_heads, {"loss_fn": two_heads}),
    "weighted samples": Kind(TwoHeads, "dict", weighted, {"loss_fn": weighted, "weight_fn": sample_weights}),
    "bfloat16": Kind(Halved, "label", classify, {"loss_fn": classify}),
    "average": Kind(_deep(), "label", classify, AVERAGED, optax.chain(optax.sgd(0.1), keep_average(0.8))),
    "schedule-free": Kind(_deep(), "label", classify, SCHEDULE_FREE, optax.contrib.schedule_free_sgd(0.1)),
    "accumulation, and a rate that falls on a plateau": Kind(
        _deep(),
        "label",
        classify,
        {"loss_fn": classify},
        optax.MultiSteps(
            optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.9)), 2
        ),
    ),
    "dropout and statistics": Kind(_deep(norm=True, dropout=0.5), "label", classify, {"loss_fn": classify}),
}


def plain_loop(kind, epochs):
    """Flax's own: ``nnx.value_and_grad`` of the loss of model and batch, and ``nnx.Optimizer``.

    Returns:
        the model, the optimizer, and the loss and the metrics of each step.
    """
    model = kind.model(nnx.Rngs(0))
    model.train()
    optimizer = nnx.Optimizer(model, kind.optimizer, wrt=nnx.Param)
    with_rngs = "rngs" in kind.loss_fn.__code__.co_varnames[: kind.loss_fn.__code__.co_argcount]

    def loss_fn(model, batch, *rngs):
        found = kind.loss_fn(model, batch, *rngs)
        return found if isinstance(found, tuple) else (found, {})

    @nnx.jit
    def train_step(model, optimizer, batch, key):
        rngs = [nnx.Rngs(key)] if with_rngs else []
        (loss, metrics), gradient = nnx.value_and_grad(loss_fn, has_aux=True)(model, batch, *rngs)
        optimizer.update(model, gradient, value=loss)
        return loss, metrics

    steps = []
    for epoch in range(epochs):
        for batch in batcher_of(kind.data, kind.layout).epoch(epoch):
            key = jax.random.fold_in(jax.random.key(SEED), len(steps))
            steps.append(jax.tree.map(float, train_step(model, optimizer, batch, key)))
    model.eval()
    return model, optimizer, steps
