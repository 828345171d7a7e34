"""Embedding positions: the convolution of each sample, and where they are in it."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad.models.embedding import InputEmbedding, sinusoidal_positions
from multimodal_pad.models.padded import PaddedPositions


def test_the_convolution_equals_one_over_zeros_beyond_the_end():
    rng = np.random.default_rng(0)
    embedding = InputEmbedding(
        4, feature_width=3, vocabulary_size=None, kernel_size=5, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(1)
    )
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    mask = np.arange(9)[None, :] < np.array([[9], [6]])
    x[~mask] = np.nan
    kernel = np.asarray(embedding.project.kernel[...]).reshape(5, 3, 4)
    got = np.asarray(embedding(jnp.asarray(x), PaddedPositions(mask.sum(axis=1), 9))).reshape(2, 9, 4)
    for row, length in ((0, 9), (1, 6)):
        inside = np.pad(np.where(mask[row][:, None], x[row], 0), ((2, 2), (0, 0)))
        wanted = np.stack([np.einsum("kf,kfd->d", inside[t : t + 5], kernel) for t in range(9)])
        wanted = 2 * wanted + sinusoidal_positions(9, 4)
        np.testing.assert_allclose(got[row, :length], wanted[:length], atol=1e-5)
        assert (got[row, length:] == 0).all()


@pytest.mark.parametrize("width", [4, 5])
def test_positions_tell_places_apart(width):
    table = sinusoidal_positions(40, width)
    assert table.shape == (40, width)
    assert len(np.unique(table.round(6), axis=0)) == 40
    np.testing.assert_array_equal(sinusoidal_positions(12, width), table[:12])
