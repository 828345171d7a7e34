"""Stacked encoders: layers of their own, one program text for all of them, and no scores kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad.models.encoder import Encoders
from multimodal_pad.models.normalising import standardised
from multimodal_pad.models.padded import PaddedPositions
from multimodal_pad.models.positions import BatchPositions


def make_encoders(layers, pairs=((0, 0),), width=8):
    return Encoders(pairs, width, layers, dropout_rate=0.0, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))


def make_positions(longest, *lengths, implementation=None):
    modalities = [PaddedPositions(jnp.asarray(x), n) for n, x in zip(longest, lengths, strict=True)]
    return BatchPositions(modalities, num_heads=2, implementation=implementation)


def program_size(layers):
    positions = make_positions([5], [5, 3])
    graphdef, state = nnx.split(make_encoders(layers))

    def loss(state):
        return nnx.merge(graphdef, state)(jnp.ones((10, 8)), None, positions).sum()

    return len(jax.jit(jax.grad(loss)).lower(state).as_text().splitlines())


@pytest.mark.slow
def test_scanned_layers_are_layers_of_their_own_one_after_the_other():
    encoders = make_encoders(3, pairs=((0, 1), (1, 0)))
    positions = make_positions([5, 4], [5, 3], [4, 0])
    rng = np.random.default_rng(0)
    x, sources = (jnp.asarray(rng.standard_normal((18, 8)), jnp.float32) for _ in range(2))
    kernels = np.asarray(encoders.layers.query.kernel[...])
    assert kernels.shape == (2, 3, 8, 8)
    assert len(np.unique(kernels.reshape(6, -1), axis=0)) == 6
    wanted = x
    for i in range(3):
        one = make_encoders(1, pairs=((0, 1), (1, 0)))
        nnx.update(one.layers, jax.tree.map(lambda p, i=i: p[:, i : i + 1], nnx.state(encoders.layers)))
        graphdef, state = nnx.split(one.layers)
        layer = nnx.merge(graphdef, jax.tree.map(lambda p: p[:, 0], state))
        wanted = layer(wanted, standardised(sources), positions, None)
    np.testing.assert_allclose(encoders(x, sources, positions), standardised(wanted), atol=1e-5)


def test_no_score_is_kept_for_the_gradient_and_no_mask_of_it():
    encoders = make_encoders(3)
    positions = make_positions([5], [5, 3, 1, 4, 2, 5, 5], implementation="tiled")

    def total(x):
        return encoders(x, None, positions).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(jnp.ones((35, 8))))
    assert "[2,32,32]" in program  # of one tile
    assert "2,32,32]" not in program.replace("[2,32,32]", "")


def test_the_program_does_not_grow_with_depth():
    assert program_size(4) == program_size(12)
