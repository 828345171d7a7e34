"""Packed batches over several devices of a process: a share on each, and what one device comes to."""

import subprocess
import sys

import pytest

from tests.helpers.devices import cpu_environment

START = """
import jax, numpy as np, optax, pytest
from flax import nnx
from multimodal_pad import BucketBatcher, Packed, PaddingError, plan_packing, unpack
from multimodal_pad.compiling import CompileLog
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import DataMesh, fit
from tests.helpers.batches import assert_same_samples
from tests.helpers.packed import SAMPLES, TABLE, make_model

jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 4


def make_batcher(batch_size=8, shares=4, tile_pairs=False, **options):
    plan = plan_packing(TABLE, batch_size=batch_size, shares=shares, tile_pairs=tile_pairs)
    return BucketBatcher(SAMPLES, Packed(plan), **options)
"""

TRAINS_AS_ONE = """
def trained(devices):
    options = {"optimizer": optax.sgd(0.1, momentum=0.9), "devices": jax.devices()[:devices], "progress": False}
    with CompileLog() as log:
        result = fit(make_model(), make_batcher(), epochs=2, evaluate_on=make_batcher(), strict=True, **options)
    assert (log["train_step"].backend_compiles, log["eval_step"].backend_compiles) == (1, 1)
    return result


# The last batch of 61 samples has one in each of two shares, and three in none.
one = trained(1)
for devices in (2, 4):
    several = trained(devices)
    for record, wanted in zip(several.history, one.history, strict=True):
        np.testing.assert_allclose(record.train_loss, wanted.train_loss, rtol=1e-5)
        for name, figure in wanted.evaluation.items():
            np.testing.assert_allclose(record.evaluation[name], figure, rtol=1e-5)
    leaves = (jax.tree.leaves(nnx.state(result.model)) for result in (several, one))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
"""

EACH_TAKES_A_SHARE = """
mesh = DataMesh()
batcher = make_batcher(with_ids=True)
mine = mesh.share(batcher)
assert mesh.share(mine) is mine
whole = list(batcher.epoch(1))
shards = [list(batcher.shard(index, 4).epoch(1)) for index in range(4)]
for placed, alone, *parts in zip(mesh.epoch(mine, 1), whole, *shards, strict=True):
    assert placed.shape == alone.shape
    assert_same_samples(unpack(placed), unpack(alone))
    for leaf, *leaves in zip(*map(jax.tree.leaves, (placed, *parts)), strict=True):
        for shard, part in zip(leaf.addressable_shards, leaves, strict=True):
            np.testing.assert_array_equal(shard.data, part)
with pytest.raises(PaddingError, match="got a packed batch in 4 shares, one for each of as many devices; run the"):
    make_model()(placed)

for shares, devices in ((1, 2), (2, 4)):
    batcher = make_batcher(shares=shares)
    message = rf"evaluate_on: got packed batches in {shares} shares to share out over {devices}; plan with plan_packing"
    with pytest.raises(TrainingError, match=message + rf".*shares={devices}\\) or a multiple, or fewer devices"):
        fit(make_model(), make_batcher(), epochs=1, evaluate_on=batcher, devices=jax.devices()[:devices])
with pytest.raises(TrainingError, match="batcher: got shard 0 of 1 with devices=2, in process 0 of 1 with 4 devices"):
    DataMesh().share(make_batcher().shard(0, 1, devices=2))
"""


ON_PAIRS = TRAINS_AS_ONE.replace("make_model()", 'make_model(attention="xla")').replace(
    "make_batcher()", "make_batcher(tile_pairs=True)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(TRAINS_AS_ONE, id="train", marks=pytest.mark.slow),
        pytest.param(ON_PAIRS, id="pairs", marks=pytest.mark.slow),
        pytest.param(EACH_TAKES_A_SHARE, id="place"),
    ],
)
def test_over_four_devices(code):
    command = [sys.executable, "-W", "error", "-c", START + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=4))
    assert done.returncode == 0, done.stderr
