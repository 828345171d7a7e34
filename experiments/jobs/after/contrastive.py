"""A contrastive loss, without targets."""

import optax
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import TwoTowers, contrast
from multimodal_pad import batches
from multimodal_pad.training import fit

batcher = batches(make_samples(), max_shapes=4, batch_size=16)
fit(TwoTowers(rngs=nnx.Rngs(0)), batcher, epochs=3, optimizer=optax.adam(1e-2), loss_fn=contrast)
