"""Stretches of an axis: taking apart undoes putting together, and each is the other's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.models.stretches import permuted, put_together, take_apart


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_put_together_then_taken_apart_is_the_same(sizes):
    parts = [np.full((size, 2), i, np.float32) for i, size in enumerate(sizes)]
    whole = put_together(parts)
    assert whole.shape == (sum(sizes), 2)
    for one, other in zip(take_apart(whole, tuple(sizes)), parts, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_of_slices_concatenations_and_gathers(order):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((7, 3)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((3, 2)), jnp.float32) for _ in range(3)]
    places, sizes = (5, 0, 6, 2, 1, 3, 4), (2, 4, 1)

    def with_ours(x):
        parts = take_apart(permuted(x, places), sizes)
        return (put_together([jnp.tanh(a @ b) for a, b in zip(parts, kernels, strict=True)]) ** 2).sum()

    def plainly(x):
        parts = jnp.split(x[jnp.array(places)], np.cumsum(sizes)[:-1])
        return (jnp.concatenate([jnp.tanh(a @ b) for a, b in zip(parts, kernels, strict=True)]) ** 2).sum()

    def derivative(f):
        for _ in range(order):
            f = jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))
        return f(x)

    np.testing.assert_allclose(derivative(with_ours), derivative(plainly), atol=1e-5)
