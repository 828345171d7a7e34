"""A model's parameters: what they are, and that making them is one program."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from multimodal_pad.compiling import CompileLog
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig, threefry
from multimodal_pad.models.encoder import Encoders
from multimodal_pad.models.normalising import LayerNorm

CONFIG = TransformerConfig(
    {"text": ModalityConfig(vocabulary_size=500), "audio": ModalityConfig(feature_width=64, kernel_size=3)},
    num_outputs=3,
    d_model=32,
    num_heads=2,
    crossmodal_layers=2,
)


def make(seed=0):
    return MultimodalTransformer(CONFIG, rngs=nnx.Rngs(seed))


def parameters(model):
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {"/".join(map(str, path)): x[...] for path, x in zip(flat.paths, flat.leaves, strict=True)}


@pytest.mark.parametrize(("most", "programs"), [(threefry.MOST, 0), (0, 1)])
def test_a_model_is_at_most_one_program(monkeypatch, most, programs):
    """None where it is small, and one where its bits are drawn by JAX."""
    monkeypatch.setattr(threefry, "MOST", most)
    rngs = nnx.Rngs(0)
    jax.clear_caches()
    with CompileLog() as log:
        MultimodalTransformer(CONFIG, rngs=rngs)
        MultimodalTransformer(CONFIG, rngs=rngs)
    assert log.total.backend_compiles == programs


def test_normals_are_normal():
    drawn = np.concatenate([np.ravel(x) for path, x in parameters(make()).items() if path.endswith("embedding")])
    assert stats.kstest(drawn * np.sqrt(CONFIG.d_model), "norm").pvalue > 1e-3


def test_kernels_have_the_variance_that_they_should_have():
    for path, x in parameters(make()).items():
        if path.endswith(("kernel", "embedding")):
            size = x.shape[-1] if path.endswith("embedding") else x.shape[-2]
            spread = np.asarray(x) * np.sqrt(size)
            assert spread.std() == pytest.approx(1, abs=4 / np.sqrt(x.size)), path
            assert abs(spread.mean()) < 5 / np.sqrt(x.size), path
            assert np.abs(spread).max() < 6, path
        else:
            assert (np.asarray(x) == float(path.endswith("scale"))).all(), path


def test_no_two_parameters_are_the_same():
    drawn = [np.ravel(x) for path, x in parameters(make()).items() if path.endswith(("kernel", "embedding"))]
    values = np.concatenate(drawn)
    assert len(np.unique(values)) > 0.9 * len(values)
    kernels = np.asarray(make().memory.layers.query.kernel[...])
    assert kernels.shape[:2] == (2, 3)
    assert len(np.unique(kernels.reshape(6, -1).round(6), axis=0)) == 6


def test_the_seed_decides_and_the_stream_goes_on():
    one, again, other = parameters(make(1)), parameters(make(1)), parameters(make(2))
    assert all((np.asarray(one[path]) == np.asarray(again[path])).all() for path in one)
    assert any((np.asarray(one[path]) != np.asarray(other[path])).any() for path in one)
    rngs = nnx.Rngs(1)
    first, second = (parameters(MultimodalTransformer(CONFIG, rngs=rngs)) for _ in range(2))
    path = "head_output/kernel"
    assert (np.asarray(first[path]) == np.asarray(one[path])).all()
    assert (np.asarray(first[path]) != np.asarray(second[path])).any()
    assert int(rngs.params.count[...]) == 4, "of each model its parameters, and its dropout stream"


def test_made_inside_jit_it_is_the_same():
    @jax.jit
    def create():
        return nnx.state(make(3), nnx.Param)

    for one, other in zip(jax.tree.leaves(create()), jax.tree.leaves(nnx.state(make(3), nnx.Param)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_parts_can_be_made_alone():
    pairs = (0, 1), (1, 0)
    encoders = Encoders(pairs, 8, 3, dropout_rate=0.0, dtype=np.dtype("float32"), rngs=nnx.Rngs(0))
    assert encoders.layers.expand.kernel.shape == (2, 3, 8, 32)
    assert encoders.norm.scale.shape == (2, 8)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(nnx.state(encoders)))
    assert float(LayerNorm(4, rngs=nnx.Rngs(0)).scale[...].sum()) == 4


def test_parameters_lie_where_jax_puts_things():
    devices = {x.device for x in jax.tree.leaves(nnx.state(make(), nnx.Param))}
    assert devices == {jax.devices()[0]}
