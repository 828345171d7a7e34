"""A label for each audio frame."""

import optax
from flax import nnx

from experiments.jobs.given import make_frame_labels, make_samples
from experiments.jobs.nnx_models import FrameClassifier
from multimodal_pad import batches
from multimodal_pad.training import fit

samples = make_samples()
for sample, labels in zip(samples, make_frame_labels(samples), strict=True):
    del sample["targets"]
    sample["position_targets"] = {"audio": labels}
batcher = batches(samples, max_shapes=4, batch_size=16)
fit(FrameClassifier(rngs=nnx.Rngs(0)), batcher, epochs=3, optimizer=optax.adam(1e-2))
