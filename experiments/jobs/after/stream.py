"""A stream of samples of unknown length."""

import optax
from flax import nnx

from experiments.jobs.given import Stream
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import StreamBatcher
from multimodal_pad.training import fit

batcher = StreamBatcher.planned(Stream(), max_shapes=4, batch_size=16)
fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3, optimizer=optax.adam(1e-2))
