"""A loop of one's own, with Equinox."""

# pyright: reportPossiblyUnboundVariable=false

import equinox as eqx
import jax
import optax

from experiments.jobs.equinox_model import Classifier
from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import classify
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes

optimizer = optax.adam(1e-2)


@eqx.filter_jit
def train_step(model, moments, batch):
    loss, gradient = eqx.filter_value_and_grad(classify)(model, batch)
    updates, moments = optimizer.update(gradient, moments)
    return eqx.apply_updates(model, updates), moments, loss


model = Classifier(jax.random.key(0))
moments = optimizer.init(eqx.filter(model, eqx.is_array))
samples = make_samples()
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
for epoch in range(3):
    for batch in batcher.epoch(epoch):
        model, moments, loss = train_step(model, moments, batch)
    print(f"epoch {epoch}: {float(loss):.4f}")
