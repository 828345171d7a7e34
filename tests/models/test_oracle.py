"""The model against its first version, which had an encoder of its own for each pair: outputs and all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import pad_samples
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import cross_entropy
from tests.helpers.oracle_model import apart, oracle_outputs, together

MODALITIES = {
    "text": ModalityConfig(vocabulary_size=11),
    "audio": ModalityConfig(feature_width=5, kernel_size=3),
    "visual": ModalityConfig(feature_width=4),
}
LENGTHS = [(4, 9, 5), (1, 6, 7), (0, 6, 3), (7, 0, 0), (3, 1, 0), (0, 0, 0)]
"""Odd and even, with missing modalities, one sample without any; two rows more are empty."""


def make_config(count, layers, **options):
    modalities = dict(list(MODALITIES.items())[:count])
    sizes = {"d_model": 8, "num_heads": 2, "crossmodal_layers": layers, "memory_layers": layers}
    return TransformerConfig(modalities, num_outputs=3, dropout_rate=0.0, **{**sizes, **options})


def make_batch(count):
    rng = np.random.default_rng(0)
    samples = []
    for number, (text, audio, visual) in enumerate(LENGTHS):
        sample = {
            "text": rng.integers(0, 11, text).astype(np.int32),
            "audio": rng.standard_normal((audio, 5)).astype(np.float32),
            "visual": rng.standard_normal((visual, 4)).astype(np.float32),
        }
        samples.append({**dict(list(sample.items())[:count]), "targets": np.int32(number % 3)})
    return pad_samples(samples, batch_size=len(LENGTHS) + 2)


def random_parameters(config):
    """The oracle's, random everywhere: biases, and scales around 1."""
    rng = np.random.default_rng(1)
    found = {}
    for path, x in apart(config, nnx.state(MultimodalTransformer(config, rngs=nnx.Rngs(0)), nnx.Param)).items():
        normal = rng.standard_normal(x.shape).astype(np.float32)
        if path.endswith("scale"):
            found[path] = 1 + 0.3 * normal
        else:
            found[path] = normal / np.sqrt(x.shape[-2], dtype=np.float32) if "kernel" in path else 0.3 * normal
    return found


def both(config, batch):
    """Outputs and gradients by the oracle's paths, of the oracle and of the model."""
    graphdef, state = nnx.split(MultimodalTransformer(config, rngs=nnx.Rngs(0)))
    parameters = random_parameters(config)

    def of_oracle(parameters, batch):
        outputs = oracle_outputs(config, parameters, batch)
        return cross_entropy(outputs, batch.targets, batch.sample_mask), outputs

    def of_model(state, batch):
        outputs = nnx.merge(graphdef, state)(batch)
        return cross_entropy(outputs, batch.targets, batch.sample_mask), outputs

    (_, wanted), wanted_gradient = jax.jit(jax.value_and_grad(of_oracle, has_aux=True))(parameters, batch)
    (_, got), gradient = jax.jit(jax.value_and_grad(of_model, has_aux=True))(together(config, parameters, state), batch)
    return (wanted, wanted_gradient), (got, apart(config, gradient))


def assert_alike(config, batch, *, tolerance):
    (wanted, wanted_gradient), (got, gradient) = both(config, batch)
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(got, wanted, atol=tolerance * scale)
    assert gradient.keys() == wanted_gradient.keys()
    norm = np.sqrt(sum(float((x**2).sum()) for x in wanted_gradient.values()))
    assert norm > 0.1
    for path, x in wanted_gradient.items():
        assert np.linalg.norm(np.ravel(gradient[path] - x)) <= tolerance * norm, path


@pytest.mark.slow
@pytest.mark.parametrize(("count", "layers"), [(1, 3), (2, 3), (3, 1)])
def test_outputs_and_all_gradients_are_the_oracles(count, layers):
    assert_alike(make_config(count, layers), make_batch(count), tolerance=1e-6)


@pytest.mark.slow
def test_the_other_implementation_of_attention():
    assert_alike(make_config(2, 1, attention="xla"), make_batch(2), tolerance=1e-6)


@pytest.mark.slow
def test_bfloat16():
    assert_alike(make_config(2, 1, dtype="bfloat16"), make_batch(2), tolerance=0.05)


@pytest.mark.slow
def test_another_order_of_encoders_would_be_seen():
    """The test above can fail: with two encoders exchanged, nothing is alike."""
    config, batch = make_config(3, 1), make_batch(3)
    graphdef, state = nnx.split(MultimodalTransformer(config, rngs=nnx.Rngs(0)))
    parameters = random_parameters(config)
    wanted = oracle_outputs(config, parameters, batch)
    one, other = "crossmodal/text_from_audio/", "crossmodal/text_from_visual/"
    exchanged = {path.replace(one, "*").replace(other, one).replace("*", other): x for path, x in parameters.items()}
    assert np.abs(nnx.merge(graphdef, together(config, exchanged, state))(batch) - wanted).max() > 1e-3


def test_a_model_for_three_modalities_has_few_parameter_arrays():
    model = MultimodalTransformer(make_config(3, 2), rngs=nnx.Rngs(0))
    assert model.crossmodal.layers.query.kernel.shape == (6, 2, 8, 8)
    assert model.memory.layers.query.kernel.shape == (3, 2, 16, 16)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 41
