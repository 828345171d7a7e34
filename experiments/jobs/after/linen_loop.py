"""A loop of one's own, with Flax Linen."""

# pyright: reportPossiblyUnboundVariable=false

import jax
import optax
from flax.training.train_state import TrainState

from experiments.jobs.given import make_samples
from experiments.jobs.linen_model import Classifier
from experiments.jobs.nnx_models import classify
from multimodal_pad import batches

model = Classifier()


@jax.jit
def train_step(state, batch):
    def loss_of(params):
        return classify(lambda batch: model.apply(params, batch), batch)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=gradient), loss


batcher = batches(make_samples(), max_shapes=4, batch_size=16)
params = model.init(jax.random.key(0), batcher.example())
state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-2))
for epoch in range(3):
    for batch in batcher:
        state, loss = train_step(state, batch)
    print(f"epoch {epoch}: {float(loss):.4f}")
