import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad.training import binary_cross_entropy, cross_entropy, l1

RNG = np.random.default_rng(0)
OUTPUTS = RNG.standard_normal((6, 4)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 6).astype(np.int32)
PRESENT = RNG.integers(0, 2, (6, 4)).astype(np.int32)
VALUES = RNG.standard_normal((6, 4)).astype(np.float32)


@settings(max_examples=25)
@given(st.sets(st.integers(0, 5), min_size=1))
def test_masked_equals_sliced(rows):
    kept = np.isin(np.arange(6), list(rows))
    for loss, targets in ((cross_entropy, CLASSES), (l1, VALUES), (binary_cross_entropy, PRESENT)):
        whole = jax.jit(loss)(OUTPUTS, targets, kept)
        sliced = jax.jit(loss)(OUTPUTS[kept], targets[kept], np.ones(kept.sum(), bool))
        assert float(whole) == pytest.approx(float(sliced), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "targets", "wanted"),
    [
        (cross_entropy, CLASSES, optax.softmax_cross_entropy_with_integer_labels),
        (binary_cross_entropy, PRESENT, optax.sigmoid_binary_cross_entropy),
        (l1, VALUES, lambda outputs, targets: jnp.abs(outputs - targets)),
    ],
)
def test_equals_optax(loss, targets, wanted):
    got, mean = jax.jit(lambda x, y: (loss(x, y, jnp.ones(6, bool)), wanted(x, y).mean()))(OUTPUTS, targets)
    assert float(got) == pytest.approx(float(mean), abs=1e-6)


@pytest.mark.parametrize(("loss", "targets"), [(cross_entropy, CLASSES), (l1, VALUES), (binary_cross_entropy, PRESENT)])
def test_masked_rows_get_no_gradient_whatever_their_targets(loss, targets):
    mask = np.array([True, True, False, True, False, False])
    targets, nonsense = (targets, 10**6) if targets.ndim == 1 else (targets.astype(np.float32), np.nan)
    garbage = targets.copy()
    garbage[~mask] = nonsense
    step = jax.jit(jax.value_and_grad(loss))
    value, gradient = step(OUTPUTS, garbage, mask)
    assert float(value) == float(step(OUTPUTS, targets, mask)[0])
    assert (np.asarray(gradient)[~mask] == 0).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("loss", "targets"), [(cross_entropy, CLASSES), (l1, VALUES), (binary_cross_entropy, PRESENT)])
def test_no_real_row_is_zero_with_zero_gradient(loss, targets):
    value, gradient = jax.jit(jax.value_and_grad(loss))(OUTPUTS, targets, np.zeros(6, bool))
    assert float(value) == 0
    assert (np.asarray(gradient) == 0).all()
