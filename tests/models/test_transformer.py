"""Padding changes nothing: alone, padded far, among other rows, with garbage in the padding."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import PaddingError, pad_samples
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig, select_implementation
from multimodal_pad.training import cross_entropy
from tests.helpers.golden_case import GOLDEN, golden_results
from tests.helpers.oracle_model import apart, together

CONFIG = TransformerConfig(
    {"text": ModalityConfig(vocabulary_size=50), "audio": ModalityConfig(feature_width=5, kernel_size=3)},
    num_outputs=3,
    d_model=8,
    num_heads=2,
    crossmodal_layers=1,
    memory_layers=1,
    dropout_rate=0.0,
)
GRAPHDEF = nnx.graphdef(nnx.eval_shape(lambda: MultimodalTransformer(CONFIG, rngs=nnx.Rngs(0))))
FAR = {"text": 19, "audio": 33}
AUDIO = ("embed/audio/", "crossmodal/audio_from_text/", "memory/audio/")
"""What only serves the modality audio, by the oracle's paths: in the model, slices of stacked parameters."""


@cache
def initial():
    """The parameters, made when they are first asked for; not to be asked for while something is traced."""
    return nnx.state(MultimodalTransformer(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)


def sample(text, audio, target=1, seed=0):
    rng = np.random.default_rng([seed, text, audio])
    return {
        "text": rng.integers(1, 50, text).astype(np.int32),
        "audio": rng.standard_normal((audio, 5)).astype(np.float32),
        "targets": np.int32(target),
    }


@jax.jit
def everything(parameters, batch):
    """Outputs, loss, and the gradients of the loss in the parameters and the float features."""

    def objective(parameters, audio):
        model = nnx.merge(GRAPHDEF, parameters)
        outputs = model(batch._replace(features={**batch.features, "audio": audio}))
        return cross_entropy(outputs, batch.targets, batch.sample_mask), outputs

    audio = jnp.asarray(batch.features["audio"])
    gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (loss, outputs), (by_parameters, by_audio) = gradient(parameters, audio)
    return outputs, loss, jax.tree.leaves(by_parameters), by_audio


def run(samples, *, counted=None, pad_to=FAR, batch_size=5):
    """Padded far among empty rows, unless told otherwise; ``counted`` says which rows the loss is of."""
    batch = pad_samples(samples, pad_to=pad_to, batch_size=batch_size)
    if counted is not None:
        batch = batch._replace(sample_mask=batch.sample_mask & np.array(counted))
    outputs, loss, by_parameters, by_audio = everything(initial(), batch)
    return np.asarray(outputs), float(loss), by_parameters, np.asarray(by_audio)


def assert_close(one, other):
    """The honest tolerances: outputs 1e-5 absolute, gradients 1e-5 of the global norm."""
    np.testing.assert_allclose(one[0][0], other[0][0], atol=1e-5)
    assert one[1] == pytest.approx(other[1], abs=1e-5)
    norm = np.sqrt(sum(float((g**2).sum()) for g in other[2]))
    difference = np.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(one[2], other[2], strict=True)))
    assert difference <= 1e-5 * norm
    length = min(one[3].shape[1], other[3].shape[1])
    np.testing.assert_allclose(one[3][0, :length], other[3][0, :length], atol=1e-5 * norm)


@pytest.fixture(scope="module")
def alone():
    return run([sample(5, 11)], pad_to={"text": 5, "audio": 11}, batch_size=1)


@pytest.mark.slow
def test_padded_far_is_alone(alone):
    assert_close(run([sample(5, 11)]), alone)


@pytest.mark.slow
def test_among_other_rows_is_alone(alone):
    rows = [sample(5, 11), sample(2, 30), sample(0, 3), sample(17, 0)]
    assert_close(run(rows, counted=[True, False, False, False, False]), alone)


@pytest.mark.slow
def test_a_fully_padded_row_changes_no_loss_and_no_gradient():
    rows = [sample(5, 11), sample(2, 30, target=0), sample(9, 4, target=2)]
    one, other = run(rows, batch_size=3), run(rows)
    assert_close(one, other)
    assert (other[3][3:] == 0).all()
    assert np.isfinite(other[0]).all()


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e30])
def test_garbage_in_the_padding_changes_nothing_exactly(garbage):
    rows = [sample(5, 11), sample(2, 30), sample(0, 3), sample(17, 0)]
    clean = pad_samples(rows, pad_to=FAR, batch_size=5)
    dirty = {m: np.array(x) for m, x in clean.features.items()}
    dirty["text"][~clean.masks["text"]] = 2**30
    dirty["audio"][~clean.masks["audio"]] = garbage
    targets = np.array(clean.targets)
    targets[~clean.sample_mask] = 99
    for one, other in zip(
        jax.tree.leaves(everything(initial(), clean._replace(features=dirty, targets=targets))),
        jax.tree.leaves(everything(initial(), clean)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_missing_modality_contributes_and_gets_exactly_zero():
    rows = [sample(5, 0), sample(9, 0, target=0)]
    batch = pad_samples(rows, pad_to=FAR, batch_size=5)
    outputs, loss, by_parameters, by_audio = everything(initial(), batch)
    assert np.isfinite(outputs).all()
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in by_parameters)
    assert (np.asarray(by_audio) == 0).all()
    gradient = apart(CONFIG, jax.tree.unflatten(jax.tree.structure(initial()), by_parameters))
    of_audio = [path for path in gradient if path.startswith(AUDIO)]
    assert len(of_audio) == 1 + 2 * 16
    assert all((np.asarray(gradient[path]) == 0).all() for path in of_audio)

    # Nor does it matter what the parameters of the missing modality are.
    parameters = apart(CONFIG, initial())
    changed = {path: x + 7.0 if path.startswith(AUDIO) else x for path, x in parameters.items()}
    np.testing.assert_array_equal(everything(together(CONFIG, changed, initial()), batch)[0], outputs)


def test_a_sample_missing_everything_is_finite():
    outputs, loss, by_parameters, _ = run([sample(0, 0), sample(3, 3)])
    assert np.isfinite(outputs).all()
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in by_parameters)


def test_a_mask_that_is_ignored_would_be_seen(alone):
    """The tests above can fail: with padding declared real, the outputs move."""
    batch = pad_samples([sample(5, 11)], pad_to=FAR, batch_size=5)
    all_real = {m: np.full_like(lengths, FAR[m]) for m, lengths in batch.lengths.items()}
    outputs = np.asarray(everything(initial(), batch._replace(lengths=all_real))[0])
    assert np.abs(outputs[0] - alone[0][0]).max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_modalities(count):
    names = [f"stream{i}" for i in range(count)]
    config = TransformerConfig(dict.fromkeys(names, ModalityConfig(feature_width=3)), 2, d_model=8, num_heads=2)
    batch = pad_samples([{name: np.ones((5 + i, 3), np.float32) for i, name in enumerate(names)}] * 4)

    def build_and_apply():
        model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
        pairs = 0 if model.crossmodal is None else len(model.crossmodal.layers.query.kernel[...])
        assert pairs == count * (count - 1)
        return model(batch)

    outputs = nnx.eval_shape(build_and_apply)
    assert outputs.shape == (4, 2)
    assert outputs.dtype == jnp.float32


def with_options(**options):
    """The same parameters under another configuration, as a compiled function of a batch."""
    config = TransformerConfig(**{**vars(CONFIG), **options})
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))
    parameters = initial()

    @jax.jit
    def apply(batch):
        return nnx.merge(graphdef, parameters)(batch)

    return apply


def test_bfloat16_is_near_float32():
    rows = [sample(5, 11), sample(2, 8)]
    outputs = with_options(dtype="bfloat16")(pad_samples(rows, pad_to=FAR, batch_size=5))
    assert outputs.dtype == jnp.float32
    wanted = run(rows)[0]
    np.testing.assert_allclose(outputs, wanted, atol=0.05)
    assert (np.asarray(outputs) != wanted).any(), "it did compute in another dtype"


@pytest.mark.slow
def test_in_bfloat16_another_shape_changes_no_more_than_rounding_does():
    apply = with_options(dtype="bfloat16")
    rows = [sample(5, 11), sample(2, 30), sample(17, 4)]
    near, far = (apply(pad_samples(rows, pad_to=pad_to, batch_size=5)) for pad_to in ({"text": 17, "audio": 30}, FAR))
    np.testing.assert_allclose(near, far, atol=5e-3)


@pytest.mark.slow
def test_dropout_is_that_of_flax():
    """In training mode a key of the model's own stream for each call, and in evaluation mode none."""
    config = TransformerConfig(**{**vars(CONFIG), "dropout_rate": 0.3})
    batch = pad_samples([sample(5, 11)], pad_to=FAR, batch_size=5)
    apply = nnx.jit(lambda model: model(batch))

    def make(**streams):
        return MultimodalTransformer(config, rngs=nnx.Rngs(0, **streams))

    model, again, other = make(dropout=1), make(dropout=1), make(dropout=2)
    one, two = apply(model), apply(model)
    np.testing.assert_array_equal(one, apply(again))
    np.testing.assert_array_equal(two, apply(again))
    assert (one[0] != two[0]).any()
    assert (one[0] != apply(other)[0]).any()
    model.eval()
    np.testing.assert_allclose(apply(model)[0], run([sample(5, 11)])[0][0], atol=1e-6)
    assert int(model.rngs.count[...]) == 2, "evaluation takes no key"
    model.train()
    assert (apply(model)[0] != one[0]).any()


@pytest.mark.parametrize("streams", [{"default": 0}, {"default": 0, "dropout": 3}, {"params": 0, "dropout": 3}])
def test_the_dropout_stream_is_forked_as_nnx_dropout_does(streams):
    ours, theirs = nnx.Rngs(**streams), nnx.Rngs(**streams)
    config = TransformerConfig(**{**vars(CONFIG), "dropout_rate": 0.3})
    model = MultimodalTransformer(config, rngs=ours)
    theirs.params()
    dropout = nnx.Dropout(0.3, rngs=theirs)
    for name in ("key", "count", "tag"):
        got, wanted = getattr(model.rngs, name), getattr(dropout.rngs, name)
        assert got == wanted if name == "tag" else (got[...] == wanted[...]).all()
    assert {name: int(stream.count[...]) for name, stream in ours.items()} == {
        name: int(stream.count[...]) for name, stream in theirs.items()
    }
    assert not hasattr(MultimodalTransformer(CONFIG, rngs=nnx.Rngs(0)), "rngs"), "without a rate there is no stream"


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_the_precision_reaches_every_product(precision):
    config = TransformerConfig(**{**vars(CONFIG), "precision": precision, "memory_layers": 3})
    graphdef, parameters = nnx.split(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))
    batch = pad_samples([sample(5, 11)])

    def total(parameters):
        return nnx.merge(graphdef, parameters)(batch).sum()

    with jax.default_matmul_precision(None):
        text = str(jax.jit(jax.grad(total)).trace(parameters).jaxpr)
    found = re.findall(r"precision=\(?(?:Precision\.)?(\w+)", text)
    assert len(found) > 50
    assert set(found) == {precision.upper()}


def test_the_model_says_which_attention_runs():
    text = str(MultimodalTransformer(CONFIG, rngs=nnx.Rngs(0)))
    choice = select_implementation("float32", 4)
    assert "MultimodalTransformer of text, audio: " in text
    assert f"crossmodal attention, 2 heads of 4: {choice.implementation} ({choice.reason})" in text
    assert f"memory attention, 2 heads of 4: {choice.implementation}" in text
    named = TransformerConfig(**{**vars(CONFIG), "attention": "xla", "precision": "high"})
    text = str(MultimodalTransformer(named, rngs=nnx.Rngs(0)))
    assert "memory attention, 2 heads of 4: xla" in text
    assert "float32, matrix products in high precision" in text


@pytest.mark.slow
def test_results_are_those_of_before():
    """Outputs, loss and gradients of the first version, to float32 rounding; ``tiled`` is what runs on CPU."""
    wanted = np.load(GOLDEN)
    for attention in ("tiled", "xla"):
        got = golden_results(attention)
        np.testing.assert_allclose(got["outputs"], wanted["outputs"], atol=1e-6 * np.abs(wanted["outputs"]).max())
        np.testing.assert_allclose(got["loss"], wanted["loss"], atol=1e-6)
        norm = np.linalg.norm(wanted["gradients"])
        assert np.linalg.norm(got["gradients"] - wanted["gradients"]) <= 1e-6 * norm


def test_the_model_goes_through_nnx_jit():
    assert hash(GRAPHDEF) == hash(nnx.graphdef(MultimodalTransformer(CONFIG, rngs=nnx.Rngs(1))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of them"),
        ({"feature_width": 3, "vocabulary_size": 3}, "give exactly one of them"),
        ({"feature_width": 0}, "at least 1"),
        ({"feature_width": 3, "kernel_size": 2}, "kernel_size=2; it must be odd"),
        ({"vocabulary_size": 3, "kernel_size": 3}, "a kernel is for features"),
    ],
)
def test_bad_modalities(options, message):
    with pytest.raises(PaddingError, match=message):
        ModalityConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": {}}, "at least one name"),
        ({"num_heads": 3}, "heads must divide"),
        ({"num_outputs": 0}, "num_outputs=0"),
        ({"memory_layers": 0}, "memory_layers=0"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"attention": "flash"}, "attention='flash'"),
        ({"precision": "exact"}, "precision='exact'"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(PaddingError, match=message):
        TransformerConfig(**{**vars(CONFIG), **options})
