"""A model, samples and batches that train in no time."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad import BucketBatcher, Ladder, LengthTable, Packed, plan_packing
from multimodal_pad.layouts.packed import PACKED
from multimodal_pad.models import segment_mean

LAYOUTS = ["padded", "packed"]


def mean_of(batch):
    """``(B, 3)``, in either layout."""
    audio, lengths = batch.features["audio"], batch.lengths["audio"]
    if batch.layout == PACKED:
        return segment_mean(jnp.asarray(audio), lengths)
    real = batch.masks["audio"][..., None]
    return jnp.where(real, audio, 0).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)


class MeanModel(nnx.Module):
    """The smallest model that takes batches: it compiles in no time."""

    def __init__(self, outputs=2, rngs=None):
        self.head = nnx.Linear(3, outputs, rngs=rngs or nnx.Rngs(0))

    def __call__(self, batch):
        return self.head(mean_of(batch))


class DeepModel(nnx.Module):
    """Two layers, with batch statistics and dropout in between where they are wanted."""

    def __init__(self, *, norm=False, dropout=0.0, axis_name=None, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.encoder = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, axis_name=axis_name, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, batch):
        x = jax.nn.relu(self.encoder(mean_of(batch)))
        x = x if self.norm is None else self.norm(x, mask=jnp.asarray(batch.sample_mask)[:, None])
        x = x if self.dropout is None else self.dropout(x)
        return self.head(x)


def make_samples(count=40, seed=0):
    """The sign of the mean tells the class."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        features = rng.standard_normal((int(rng.integers(1, 12)), 3)).astype(np.float32) + (3 if i % 2 else -3)
        samples.append({"audio": features, "targets": np.int32(i % 2)})
    return samples


def make_batcher(samples=None, layout="padded", batch_size=6, shares=1, **options):
    samples = make_samples() if samples is None else samples
    if layout == "packed":
        options["lengths"] = options.get("lengths") or LengthTable.measure(samples)
        policy = Packed(plan_packing(options["lengths"], batch_size=batch_size, shares=shares))
        return BucketBatcher(samples, policy, **options)
    return BucketBatcher(samples, Ladder({"audio": [4, 8, 12]}), batch_size=batch_size, **options)
