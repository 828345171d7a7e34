"""A contrastive loss, without targets."""

# pyright: reportPossiblyUnboundVariable=false

import optax
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import TwoTowers, contrast
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes


@nnx.jit
def train_step(model, optimizer, batch):
    loss, gradient = nnx.value_and_grad(contrast)(model, batch)
    optimizer.update(model, gradient)
    return loss


model = TwoTowers(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
samples = make_samples()
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
for epoch in range(3):
    for batch in batcher.epoch(epoch):
        loss = train_step(model, optimizer, batch)
    print(f"epoch {epoch}: {float(loss):.4f}")
