"""Training on batches that go through Grain."""

import optax
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import batches
from multimodal_pad.grain import BatchIterDataset
from multimodal_pad.training import fit

dataset = BatchIterDataset(batches(make_samples(), max_shapes=4, batch_size=16))
fit(Classifier(rngs=nnx.Rngs(0)), dataset, epochs=3, optimizer=optax.adam(1e-2))
