"""Training on two devices."""

from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import batches
from multimodal_pad.training import fit

batcher = batches(make_samples(), max_shapes=4, batch_size=16)
fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3)  # on all devices that there are
