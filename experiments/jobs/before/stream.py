"""A stream of samples of unknown length."""

# pyright: reportPossiblyUnboundVariable=false

import optax
from flax import nnx

from experiments.jobs.given import Stream
from experiments.jobs.nnx_models import Classifier, classify
from multimodal_pad import StreamBatcher


@nnx.jit
def train_step(model, optimizer, batch):
    loss, gradient = nnx.value_and_grad(classify)(model, batch)
    optimizer.update(model, gradient)
    return loss


model = Classifier(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
batcher = StreamBatcher.planned(Stream(), max_shapes=4, batch_size=16)
for epoch in range(3):
    for batch in batcher:
        loss = train_step(model, optimizer, batch)
    print(f"epoch {epoch}: {float(loss):.4f}")
