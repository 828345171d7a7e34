"""What a model carries beside its parameters, over two devices."""

import subprocess
import sys

import pytest

from tests.helpers.devices import cpu_environment

TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
from multimodal_pad import BucketBatcher, Fixed
from multimodal_pad.compiling import StepTable
from multimodal_pad.training import DataMesh, TrainStep, cross_entropy, fit, make_optimizer
from tests.helpers.training import DeepModel, make_batcher, make_samples

assert jax.device_count() == 2
ROWS, RATE = 6, 0.5


class Seen(nnx.Module):
    # Its statistic is the mean of what dropout leaves of ones.
    def __init__(self, streams=()):
        self.scale = nnx.Param(jnp.ones((4, 2)))
        self.dropout = nnx.Dropout(RATE, rngs=nnx.Rngs(3))
        if streams:
            self.dropout.rngs = self.dropout.rngs.split(streams)
        self.mean = nnx.BatchStat(jnp.zeros(4))

    def __call__(self, batch):
        stream = self.dropout.rngs
        ones = jnp.ones((len(batch.sample_mask), 4))
        if stream.key.shape:
            left = jax.vmap(lambda key: self.dropout(ones, rngs=key))(stream.key[...]).mean(axis=0)
            stream.count[...] += 1
        else:
            left = self.dropout(ones)
        real = jnp.asarray(batch.sample_mask)[:, None]
        self.mean[...] = jnp.where(real, left, 0).sum(axis=0) / real.sum()
        return left @ self.scale[...]


def ones_left(key, count, real):
    key = key if count is None else jax.random.fold_in(key, count)
    left = nnx.Dropout(RATE)(jnp.ones((ROWS // 2, 4)), rngs=key)
    return np.asarray(left)[:real].sum(axis=0)


mesh = DataMesh()
batches = mesh.share(BucketBatcher(make_samples(10), Fixed({"audio": 12}), batch_size=ROWS))
for streams in ((), (2,)):
    model = Seen(streams)
    step = TrainStep(model, optax.sgd(0.1), cross_entropy, mesh=mesh.mesh)
    state = mesh.place_state(step.state)
    table = StepTable(
        step.train_step, in_shardings=(mesh.state_sharding, mesh.batch_sharding), out_shardings=mesh.state_sharding
    )
    keys = model.dropout.rngs.key[...]
    for number, batch in enumerate(mesh.epoch(batches, 0)):
        state, _ = table(state, batch)
        real = np.asarray(batch.sample_mask).reshape(2, -1).sum(axis=1)
        folded = [jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), index) for index in range(2)]
        sums = [
            np.mean([ones_left(key, None if streams else number, real[index]) for key in folded[index]], axis=0)
            for index in range(2)
        ]
        assert (sums[0] != sums[1]).any()
        got = np.asarray(state.rest["mean"])
        np.testing.assert_allclose(got, sum(sums) / real.sum(), rtol=1e-5)
        carried = state.rest["dropout"]["rngs"]
        np.testing.assert_array_equal(carried["key"], jax.random.key_data(keys))
        assert (np.asarray(carried["count"]) == number + 1).all()
    assert real.tolist() == [3, 1]
    for x in jax.tree.leaves(state):
        one, other = (np.asarray(shard.data) for shard in x.addressable_shards)
        np.testing.assert_array_equal(one, other)


def trained(devices, model, optimizer):
    whole = BucketBatcher(make_samples(36), Fixed({"audio": 12}), batch_size=ROWS)
    options = {"optimizer": optimizer, "devices": jax.devices()[:devices], "strict": True, "progress": False}
    result = fit(model, whole, epochs=2, evaluate_on=make_batcher(make_samples(13, seed=1)), **options)
    return jax.tree.leaves(nnx.state(result.model)), [record.evaluation["loss"] for record in result.history]


search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=5, store_grad=True)
for model, optimizer in (
    (DeepModel(norm=True, axis_name="data"), make_optimizer(0.05)),
    (DeepModel(), optax.chain(optax.sgd(1.0), search)),
    (DeepModel(), optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=1, accumulation_size=2))),
):
    (one, losses), (two, others) = (trained(devices, model, optimizer) for devices in (1, 2))
    np.testing.assert_allclose(losses, others, rtol=1e-4)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
print("well")
"""


@pytest.mark.slow
def test_streams_differ_and_statistics_are_means():
    command = [sys.executable, "-W", "error", "-c", TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "well"
