"""A label for each audio frame."""

# pyright: reportPossiblyUnboundVariable=false

import numpy as np
import optax
from flax import nnx

from experiments.jobs.given import make_frame_labels, make_samples
from experiments.jobs.nnx_models import FrameClassifier, masked_mean
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes


def pad_labels(batch, labels):
    padded = np.zeros(batch.features["audio"].shape[:2], np.int32)
    for row, number in enumerate(batch.ids):
        if number >= 0:
            padded[row, : len(labels[number])] = labels[number]
    return padded


def classify_frames(model, batch, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch), labels)
    return masked_mean(losses, batch.masks["audio"])


@nnx.jit
def train_step(model, optimizer, batch, labels):
    loss, gradient = nnx.value_and_grad(classify_frames)(model, batch, labels)
    optimizer.update(model, gradient)
    return loss


model = FrameClassifier(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
samples = make_samples()
labels = make_frame_labels(samples)
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths, with_ids=True)
for epoch in range(3):
    for batch in batcher.epoch(epoch):
        loss = train_step(model, optimizer, batch, pad_labels(batch, labels))
    print(f"epoch {epoch}: {float(loss):.4f}")
