"""Layer norm, against that of Flax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad.models.normalising import LayerNorm


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_layer_norm_and_its_gradients_are_those_of_flax(dtype, tolerance):
    rng = np.random.default_rng(0)
    x, weights = (jnp.asarray(3 + rng.standard_normal((5, 6)), dtype) for _ in range(2))

    def total(kind, x, scale, bias):
        norm = kind(6, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = scale, bias
        return (norm(x).astype(jnp.float32) * weights.astype(jnp.float32)).sum()

    parts = x, jnp.asarray(rng.standard_normal(6), jnp.float32), jnp.asarray(rng.standard_normal(6), jnp.float32)
    got, wanted = (
        jax.value_and_grad(partial(total, kind), argnums=(0, 1, 2))(*parts)
        for kind in (LayerNorm, partial(nnx.LayerNorm, dtype=jnp.dtype(dtype)))
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance)
