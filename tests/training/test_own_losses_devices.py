"""Own losses over two devices of a process: what one device comes to."""

import subprocess
import sys

import pytest

from tests.helpers.devices import cpu_environment

CODE = """
import jax, numpy as np, optax, pytest
import jax.numpy as jnp
from flax import nnx
from multimodal_pad.training import DataMesh, TrainStep, fit
from tests.helpers.models import assert_same_models
from tests.helpers.own_losses import KINDS, batcher_of, classify, contrast, keep_average, mean_of
from tests.helpers.training import DeepModel

jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 2


def train(kind, devices, layout, **options):
    # Of 21 samples the last three have their row on the first device, which has few or none of the weight, and none or
    # few on the second one.
    batcher, other = (batcher_of(kind.data, layout, shares=2, count=n) for n in (21, 9))
    options = {**kind.options, "optimizer": optax.sgd(0.1), "evaluate_on": other, "progress": False, **options}
    return fit(kind.model(nnx.Rngs(0)), batcher, epochs=2, strict=True, devices=jax.devices()[:devices], **options)


def mean_of_positions(outputs, targets):
    return {"right": (outputs.argmax(1) == targets).mean(), "count": len(targets)}


AVERAGED = {
    "eval_params": lambda opt_state, _: opt_state[-1].params,
    "optimizer": optax.chain(optax.sgd(0.1), keep_average(0.5)),
}
for name, layout, options in (
    ("tags of positions", "padded", {**AVERAGED, "metrics": mean_of_positions}),
    ("tags of positions, packed", "packed", {"metrics": mean_of_positions}),
    ("weighted samples", "padded", {}),
):
    one, two = (train(KINDS[name], devices, layout, **options) for devices in (1, 2))
    assert_same_models(two.model, one.model, atol=1e-5)
    for record, wanted in zip(two.history, one.history, strict=True):
        np.testing.assert_allclose(record.train_loss, wanted.train_loss, rtol=1e-5)
        assert record.evaluation.keys() == wanted.evaluation.keys()
        for figure, value in wanted.evaluation.items():
            np.testing.assert_allclose(record.evaluation[figure], value, rtol=1e-5)


# Random numbers are others on each device; metrics are means by the weight.
def draw(model, batch, rngs):
    loss, _ = classify(model, batch)
    return jnp.where(batch.sample_mask.any(), loss, 0), {"drawn": jax.random.uniform(rngs.noise())}


def contrast_all(model, batch):
    mean = mean_of(batch)
    views = model.encoder(mean), model.encoder(1.1 * mean + 0.1)
    one, other, mask = (jax.lax.all_gather(x, "data", tiled=True) for x in (*views, batch.sample_mask))
    similar = jnp.where(mask[None, :], one @ other.T / 8, -1e9)
    losses = optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(mask)))
    return jnp.where(mask, losses, 0).sum() / jnp.maximum(mask.sum(), 1)


def all_rows(batch):
    return jax.lax.all_gather(batch.sample_mask, "data").sum()


mesh = DataMesh()
batch = next(batcher_of("label", count=4).epoch(0))  # three rows on the first device, and one on the second
placed = mesh.place_batch(batch)


def measured(loss_fn, mesh, batch, **options):
    step = TrainStep(DeepModel(), optax.sgd(1.0), loss_fn=loss_fn, seed=5, mesh=mesh and mesh.mesh, **options)
    state = step.state if mesh is None else mesh.place_state(step.state)
    new, found = jax.jit(step.train_step)(state, batch)
    return found, new.params


found, _ = measured(draw, mesh, placed)
keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), device) for device in range(2)]
drawn = [float(jax.random.uniform(nnx.Rngs(key).noise())) for key in keys]
np.testing.assert_allclose(found.metrics["drawn"], 0.75 * drawn[0] + 0.25 * drawn[1], rtol=1e-6)
assert (float(found.weight), int(found.samples)) == (4, 4)

# A loss that compares rows has those of its device, unless it gathers the others, as the documentation says.
(alone, wanted), (here, _) = measured(contrast, None, batch), measured(contrast, mesh, placed)
gathered, params = measured(contrast_all, mesh, placed, weight_fn=all_rows)
assert float(here.loss) < 0.9 * float(alone.loss)
np.testing.assert_allclose(gathered.loss, alone.loss, rtol=1e-5)
for a, b in zip(*map(jax.tree.leaves, (params, wanted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
print("well")
"""


@pytest.mark.slow
def test_two_devices_train_as_one():
    command = [sys.executable, "-W", "error", "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "well\n"
