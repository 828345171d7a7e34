from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import PaddingError
from multimodal_pad.models import attention, masked_attention, select_implementation

IMPLEMENTATIONS = [
    "mapped",
    "xla",
    pytest.param("cudnn", marks=pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU")),
]
B, T, S, H, D = 5, 7, 9, 2, 8
QUERY_LENGTHS = np.array([7, 3, 1, 0, 5])
KEY_LENGTHS = np.array([9, 1, 0, 4, 6])


def inputs(implementation, seed=0):
    dtype = jnp.bfloat16 if implementation == "cudnn" else jnp.float32
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal((B, length, H, D)), dtype) for length in (T, S, S))


def attend(implementation, q, k, v):
    lengths = {"query_lengths": jnp.asarray(QUERY_LENGTHS), "key_lengths": jnp.asarray(KEY_LENGTHS)}
    return masked_attention(q, k, v, **lengths, implementation=implementation)


def gradients(implementation, arrays):
    def objective(q, k, v):
        weights = jnp.asarray(np.random.default_rng(1).standard_normal((B, T, H, D)), jnp.float32)
        return (attend(implementation, q, k, v) * weights).sum()

    return jax.jit(jax.grad(objective, argnums=(0, 1, 2)))(*arrays)


def reference(q, k, v):
    """Row by row in float64, over the real positions alone."""
    out = np.zeros((B, T, H, D))
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for b in range(B):
        keys = KEY_LENGTHS[b]
        for t in range(QUERY_LENGTHS[b]):
            for h in range(H):
                if keys:
                    scores = k[b, :keys, h] @ q[b, t, h] / np.sqrt(D)
                    weights = np.exp(scores - scores.max())
                    out[b, t, h] = weights @ v[b, :keys, h] / weights.sum()
    return out


def padding(lengths, size):
    return np.arange(size)[None, :] >= lengths[:, None]


def spoilt(arrays, value):
    q, k, v = (np.array(x) for x in arrays)
    q[padding(QUERY_LENGTHS, T)] = value
    k[padding(KEY_LENGTHS, S)] = value
    v[padding(KEY_LENGTHS, S)] = value
    return tuple(map(jnp.asarray, (q, k, v)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_a_float64_reference(implementation):
    arrays = inputs(implementation)
    tolerance = 2e-2 if implementation == "cudnn" else 1e-6
    np.testing.assert_allclose(
        np.asarray(attend(implementation, *arrays), np.float64), reference(*arrays), atol=tolerance
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_large_scores_do_not_overflow(implementation):
    q, k, v = (30 * x for x in inputs(implementation))
    out = np.asarray(attend(implementation, q, k, v), np.float64)
    np.testing.assert_allclose(out, reference(q, k, v), rtol=2e-2, atol=0.5 if implementation == "cudnn" else 1e-3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_stands_in_the_padding_changes_nothing_exactly(implementation, value):
    arrays = inputs(implementation)
    dirty = spoilt(arrays, value)
    np.testing.assert_array_equal(attend(implementation, *dirty), attend(implementation, *arrays))
    for one, other in zip(gradients(implementation, dirty), gradients(implementation, arrays), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_and_missing_keys_give_and_get_exactly_zero(implementation):
    arrays = inputs(implementation)
    out = np.asarray(attend(implementation, *arrays))
    assert (out[padding(QUERY_LENGTHS, T)] == 0).all()
    assert (out[KEY_LENGTHS == 0] == 0).all()
    dq, dk, dv = map(np.asarray, gradients(implementation, arrays))
    assert np.isfinite(dq).all()
    assert (dq[padding(QUERY_LENGTHS, T)] == 0).all()
    assert (dq[KEY_LENGTHS == 0] == 0).all()
    for gradient in (dk, dv):
        assert (gradient[padding(KEY_LENGTHS, S)] == 0).all()
        assert (gradient[QUERY_LENGTHS == 0] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:1] + IMPLEMENTATIONS[2:])
def test_gradients_equal_those_of_xla(implementation):
    arrays = inputs(implementation)
    tolerance = 3e-2 if implementation == "cudnn" else 1e-5
    wanted = gradients("xla", tuple(x.astype(jnp.float32) for x in arrays))
    for one, other in zip(gradients(implementation, arrays), wanted, strict=True):
        np.testing.assert_allclose(np.asarray(one, np.float32), other, atol=tolerance)


def test_gradients_of_the_second_order_equal_those_of_xla():
    def curvature(implementation):
        def squared(arrays):
            return sum((gradient**2).sum() for gradient in gradients(implementation, arrays))

        return jax.grad(squared)(tuple(x.astype(jnp.float32) for x in inputs(implementation)))

    for one, other in zip(curvature("mapped"), curvature("xla"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_the_slope():
    q, k, v = (x.astype(jnp.float32) for x in inputs("mapped"))
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(k.shape), jnp.float32)
    (dk,) = gradients("mapped", (q, k, v))[1:2]

    def at(step):
        weights = np.random.default_rng(1).standard_normal((B, T, H, D))
        return float((np.asarray(attend("mapped", q, k + step * direction, v), np.float64) * weights).sum())

    slope = (at(1e-2) - at(-1e-2)) / 2e-2
    assert float((dk * direction).sum()) == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("implementation", ["mapped", "xla"])
def test_bfloat16(implementation):
    arrays = inputs(implementation)
    out = attend(implementation, *(x.astype(jnp.bfloat16) for x in arrays))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), reference(*arrays), atol=3e-2)


@pytest.mark.parametrize(
    ("platform", "dtype", "head_dim", "wanted"),
    [
        ("cpu", "float32", 5, "mapped"),
        ("cpu", "bfloat16", 64, "mapped"),
        ("gpu", "bfloat16", 64, "cudnn"),
        ("cuda", "float16", 8, "cudnn"),
        ("cuda", "bfloat16", 5, "xla"),
        ("cuda", "bfloat16", 136, "xla"),
        ("cuda", "float32", 64, "xla"),
        ("rocm", "bfloat16", 64, "xla"),
        ("tpu", "bfloat16", 64, "xla"),
    ],
)
def test_the_implementation_meant_for_a_backend(platform, dtype, head_dim, wanted):
    assert select_implementation(platform, jnp.dtype(dtype), head_dim) == wanted


@pytest.mark.parametrize(("version", "wanted"), [("rocm 60200", "rocm"), ("cuda 12090", "gpu")])
def test_the_gpus_of_two_makers_are_told_apart(monkeypatch, version, wanted):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(attention, "get_backend", lambda: SimpleNamespace(platform_version=version))
    assert attention._platform() == wanted


def test_an_unknown_implementation():
    with pytest.raises(PaddingError, match="got implementation='flash'; choose one of"):
        attend("flash", *inputs("xla"))
