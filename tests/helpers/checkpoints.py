"""States to save, saved, and restored: bit by bit what they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad.errors import CheckpointWarning
from multimodal_pad.training.checkpoint import Checkpoints


def make_state(value, size=3000):
    """What a training saves: arrays on the device (large enough for a file of their own) and one on the host."""
    return {
        "leaves": [
            jnp.arange(size, dtype=jnp.float32) + value,
            jnp.arange(5, dtype=jnp.bfloat16) * value,
            jnp.asarray(value, jnp.int32),
        ],
        "best": np.full(7, value, np.float32),
    }


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_steps(folder, *steps):
    with Checkpoints(folder, keep_last=9) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"epoch": step})


def restore(folder, size=3000):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(make_state(0, size))


def assert_restored(folder, step):
    got = restore(folder)
    assert got is not None
    assert (got.step, got.record) == (step, {"epoch": step})
    assert_same(got.state, make_state(step))


def assert_skipped(folder, step, taken):
    with pytest.warns(CheckpointWarning, match=rf"{step} is damaged \(.+\) and is skipped; .*{taken} is taken"):
        assert_restored(folder, taken)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
