"""A loop of one's own, with Equinox."""

# pyright: reportPossiblyUnboundVariable=false

import equinox as eqx
import jax
import optax

from experiments.jobs.equinox_model import Classifier
from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import classify
from multimodal_pad import batches

optimizer = optax.adam(1e-2)


@eqx.filter_jit
def train_step(model, moments, batch):
    loss, gradient = eqx.filter_value_and_grad(classify)(model, batch)
    updates, moments = optimizer.update(gradient, moments)
    return eqx.apply_updates(model, updates), moments, loss


model = Classifier(jax.random.key(0))
moments = optimizer.init(eqx.filter(model, eqx.is_array))
batcher = batches(make_samples(), max_shapes=4, batch_size=16)
for epoch in range(3):
    for batch in batcher:
        model, moments, loss = train_step(model, moments, batch)
    print(f"epoch {epoch}: {float(loss):.4f}")
