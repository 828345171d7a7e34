"""Training on batches that go through Grain."""

# pyright: reportPossiblyUnboundVariable=false

import optax
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier, classify
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes
from multimodal_pad.grain import BatchIterDataset


@nnx.jit
def train_step(model, optimizer, batch):
    loss, gradient = nnx.value_and_grad(classify)(model, batch)
    optimizer.update(model, gradient)
    return loss


model = Classifier(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
samples = make_samples()
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
for batch in BatchIterDataset(batcher, epochs=3):
    loss = train_step(model, optimizer, batch)
print(f"the last step: {float(loss):.4f}")
