"""What the precision of float32 products does: nothing on a CPU, and much on an NVIDIA GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad.models import masked_attention
from multimodal_pad.models.attention_choice import AttentionDevice

ROWS, LENGTH, HEADS, WIDTH = 2, 64, 4, 32
TF32 = (8, 0)
"""The compute capability from which NVIDIA's GPUs multiply in TF32."""


def off_by(precision):
    """Largest difference of attention to one in float64, as JAX multiplies by default and with this precision."""
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, ROWS, LENGTH, HEADS, WIDTH)).astype(np.float32)
    lengths = np.full(ROWS, LENGTH, np.int32)
    scores = np.einsum("bthd,bshd->bhts", query.astype(np.float64), key) / np.sqrt(WIDTH)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    wanted = np.einsum("bhts,bshd->bthd", weights / weights.sum(axis=-1, keepdims=True), value)

    @jax.jit
    def attend(*arrays):
        lengths_of = {"query_lengths": jnp.asarray(lengths), "key_lengths": jnp.asarray(lengths)}
        return masked_attention(*arrays, **lengths_of, implementation="xla", precision=precision)

    with jax.default_matmul_precision("default"):
        return np.abs(np.asarray(attend(query, key, value), np.float64) - wanted).max()


def test_the_highest_is_float32_everywhere():
    assert off_by("highest") < 1e-5


@pytest.mark.gpu
def test_the_default_of_a_gpu_is_not():
    capability = AttentionDevice.default().compute_capability
    if capability is None or capability < TF32:
        pytest.skip(f"compute capability {capability} has no TF32")
    assert 3e-5 < off_by(None) < 1e-2


def test_tests_ask_for_the_precision_that_they_test():
    """Unless who runs them asks for another: ``tests/conftest.py``."""
    assert jax.config.jax_default_matmul_precision is not None
