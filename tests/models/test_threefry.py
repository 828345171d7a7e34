"""Random bits on the host are those of JAX."""

import jax
import numpy as np
import pytest

from multimodal_pad.models import threefry
from multimodal_pad.models.threefry import random_bits


def of_jax(key, count, size):
    return np.asarray(jax.random.bits(jax.random.fold_in(key, count), (size,)))


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("count", [0, 1, 77])
def test_they_are_those_of_jax(seed, count):
    key = jax.random.key(seed)
    got = random_bits(key, np.uint32(count), 1001)
    assert got.dtype == np.uint32
    np.testing.assert_array_equal(got, of_jax(key, count, 1001))


def test_many_are_drawn_by_jax(monkeypatch):
    key = jax.random.key(3)
    few = random_bits(key, np.uint32(5), 64)
    monkeypatch.setattr(threefry, "MOST", 10)
    np.testing.assert_array_equal(random_bits(key, np.uint32(5), 64), few)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_other_generators_are_those_of_jax(implementation):
    key = jax.random.key(3, impl=implementation)
    np.testing.assert_array_equal(random_bits(key, np.uint32(5), 64), of_jax(key, 5, 64))
