"""The transformer on packed batches: each sample as if it were alone, and what the padded batch gives."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import PackedBatch, PaddingError, pack_samples, pad_samples, unpack
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.models import transformer as transformer_module
from multimodal_pad.models.attention_choice import AttentionDevice
from multimodal_pad.models.embedding import InputEmbedding, sinusoidal_positions
from multimodal_pad.models.packed import PackedPositions
from multimodal_pad.models.padded import PaddedPositions
from multimodal_pad.training import TrainStep, cross_entropy
from tests.helpers.oracle_model import apart
from tests.helpers.packed import with_pairs

MODALITIES = {
    "text": ModalityConfig(vocabulary_size=50),
    "audio": ModalityConfig(feature_width=5, kernel_size=3),
    "visual": ModalityConfig(feature_width=4),
    "pose": ModalityConfig(feature_width=2, kernel_size=5),
}
CAPACITY = {"text": 45, "audio": 140, "visual": 40, "pose": 30}
ROWS = {"text": 19, "audio": 33, "visual": 20, "pose": 15}
BATCH = 6
IMPLEMENTATIONS = ["tiled", *(pytest.param(other, marks=pytest.mark.slow) for other in ("xla", "paired"))]
"""``paired`` is ``xla`` over the pairs of tiles that the batch lists."""


@cache
def make_model(count=2, **options):
    """The structure, and parameters that no option decides; biases are random too."""
    paired = options.get("attention") == "paired"
    options |= {"attention": "xla"} if paired else {}
    config = TransformerConfig(
        dict(list(MODALITIES.items())[:count]),
        num_outputs=3,
        **{"d_model": 8, "num_heads": 2, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.0, **options},
    )
    graphdef, parameters, rest = nnx.split(MultimodalTransformer(config, rngs=nnx.Rngs(0)), nnx.Param, ...)
    rng = np.random.default_rng(3)
    parameters = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), parameters)

    @jax.jit
    def everything(parameters, batch):
        """Outputs, and the gradients of the loss in the parameters and the float features."""

        def objective(parameters, floats):
            model = nnx.merge(graphdef, parameters, rest)
            outputs = model(batch._replace(features={**batch.features, **floats}))
            return cross_entropy(outputs, batch.targets, batch.sample_mask), outputs

        floats = {name: jnp.asarray(x) for name, x in batch.features.items() if name != "text"}
        gradient, outputs = jax.grad(objective, argnums=(0, 1), has_aux=True)(parameters, floats)
        return outputs, *gradient

    def given(parameters, batch):
        """As the batch is, or with the pairs of tiles listed."""
        if not paired or not isinstance(batch, PackedBatch):
            return everything(parameters, batch)
        samples = unpack(batch)
        layout = with_pairs(samples, {name: CAPACITY[name] for name in batch.features})
        pairs = pack(samples, layout=layout).tile_pairs
        return everything(parameters, batch._replace(tile_pairs=pairs))

    return config, parameters, given


def make_samples(count, seed=0, lengths=None):
    """Up to 5 samples that fit both shapes, some of length 0 and 1."""
    rng = np.random.default_rng(seed)
    names = list(MODALITIES)[:count]
    samples = []
    for i in range(5):
        sample = {"targets": np.int32(rng.integers(3))}
        for name in names:
            longest = min(ROWS[name], CAPACITY[name] // 5)
            n = rng.choice([0, 1, longest, rng.integers(longest + 1)]) if lengths is None else lengths[name][i]
            width = MODALITIES[name].feature_width
            tokens = rng.integers(1, 50, n).astype(np.int32)
            sample[name] = tokens if width is None else rng.standard_normal((n, width)).astype(np.float32)
        samples.append(sample)
    return samples


def pack(samples, **options):
    names = [name for name in samples[0] if name != "targets"]
    capacity = {name: CAPACITY[name] for name in names}
    return pack_samples(samples, capacity=capacity, batch_size=BATCH, modalities=names, **options)


def pad(samples, batch_size=BATCH):
    names = [name for name in samples[0] if name != "targets"]
    pad_to = {name: ROWS[name] for name in names}
    return pad_samples(samples, pad_to=pad_to, batch_size=batch_size, modalities=names)


def norm(tree):
    return np.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in jax.tree.leaves(tree)))


def assert_same_parameters(one, other, tolerance=1e-5):
    assert norm(other) > 0
    assert norm(jax.tree.map(jnp.subtract, one, other)) <= tolerance * norm(other)


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("count", "attention"),
    [
        (1, "tiled"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, "xla"), (1, "paired"), (3, "tiled")]),
        *(pytest.param(2, each, marks=pytest.mark.slow) for each in ("tiled", "xla", "paired")),
        *(pytest.param(3, each, marks=pytest.mark.long) for each in ("xla", "paired")),
        *(pytest.param(4, each, marks=pytest.mark.long) for each in ("tiled", "xla", "paired")),
    ],
)
def test_packed_is_padded(count, attention):
    """Outputs and all gradients, of batches of random lengths."""
    _, parameters, everything = make_model(count, attention=attention)
    of_padded = make_model(count, attention="tiled")[2]
    for seed in range(6):
        samples = make_samples(count, seed)
        got, wanted = everything(parameters, pack(samples)), of_padded(parameters, pad(samples))
        np.testing.assert_allclose(got[0], wanted[0], atol=1e-5)
        assert_same_parameters(got[1], wanted[1])
        for name, by_features in got[2].items():
            lengths, begin = [len(sample[name]) for sample in samples], 0
            for row, length in enumerate(lengths):
                one, other = by_features[begin : begin + length], wanted[2][name][row, :length]
                np.testing.assert_allclose(one, other, atol=1e-5 * norm(wanted[2]))
                begin += length
            assert (by_features[begin:] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_packed_is_alone(attention):
    _, parameters, everything = make_model(2, attention=attention)
    samples = make_samples(2, seed=1)
    together = everything(parameters, pack(samples))[0]
    for i, sample in enumerate(samples):
        np.testing.assert_allclose(together[i], everything(parameters, pad([sample], batch_size=1))[0][0], atol=1e-5)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_garbage_behind_the_last_sample_changes_nothing_exactly(attention):
    _, parameters, everything = make_model(2, attention=attention)
    clean = pack(make_samples(2))
    wanted = everything(parameters, clean)
    assert all((~mask).any() for mask in clean.masks.values())
    for garbage in (np.nan, np.inf, -1e30):
        dirty = {name: np.array(x) for name, x in clean.features.items()}
        dirty["text"][~clean.masks["text"]] = 2**30
        dirty["audio"][~clean.masks["audio"]] = garbage
        targets = np.where(clean.sample_mask, clean.targets, 99)
        assert_equal(everything(parameters, clean._replace(features=dirty, targets=targets)), wanted)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [1e4, -1e12])
def test_other_samples_change_no_output_exactly(attention, value):
    _, parameters, everything = make_model(2, attention=attention)
    batch = pack(make_samples(2, lengths={"text": [5, 4, 9, 0, 1], "audio": [3, 1, 14, 11, 6]}))
    wanted = everything(parameters, batch)[0]
    for mine in range(5):
        features = {}
        for name, x in batch.features.items():
            others = (batch.segment_ids[name] != mine).reshape(-1, *[1] * (x.ndim - 1))
            features[name] = np.where(others, 49 if name == "text" else np.float32(value), x)
        got = everything(parameters, batch._replace(features=features))[0]
        np.testing.assert_array_equal(got[mine], wanted[mine])
        assert (got[:5] != wanted[:5]).any(axis=1).sum() == 4, "the others did change"


def test_samples_run_into_each_other_would_be_seen():
    """The tests above can fail: with another cut between the same samples, outputs move."""
    _, parameters, everything = make_model(2, attention="tiled")
    batch = pack(make_samples(2, lengths={"text": [5, 4, 9, 0, 1], "audio": [3, 1, 14, 11, 6]}))
    wanted = everything(parameters, batch)[0]
    for name, by in (("text", [1, -1, 0, 0, 0, 0]), ("audio", [0, 0, 1, -1, 0, 0])):
        lengths = {**batch.lengths, name: batch.lengths[name] + np.array(by, np.int32)}
        got = everything(parameters, batch._replace(lengths=lengths))[0]
        moved = np.abs(got - wanted).max(axis=1) > 1e-3
        np.testing.assert_array_equal(moved, np.array(by) != 0)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_a_missing_modality_gives_and_gets_exactly_zero_when_packed(attention):
    config, parameters, everything = make_model(2, attention=attention)
    samples = make_samples(2, lengths={"text": [5, 4, 9, 0, 1], "audio": [0] * 5})
    outputs, by_parameters, _ = everything(parameters, pack(samples))
    assert np.isfinite(outputs).all(), "those of a sample without anything, and of one that fills up, too"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(by_parameters))
    of_audio = (
        "embed/audio/",
        "crossmodal/audio_from_text/",
        "crossmodal/text_from_audio/layers/key_value",
        "memory/audio/",
    )
    found = {path: x for path, x in apart(config, by_parameters).items() if path.startswith(of_audio)}
    assert len(found) == 1 + 2 * 16 + 2
    assert all((np.asarray(x) == 0).all() for x in found.values())


@pytest.mark.slow
def test_samples_that_fill_up_change_no_gradient():
    _, parameters, everything = make_model(2, attention="tiled")
    samples = make_samples(2, seed=2)
    full = pack_samples(samples, capacity={name: CAPACITY[name] for name in ("text", "audio")})
    one, other = everything(parameters, full), everything(parameters, pack(samples))
    np.testing.assert_allclose(one[0], other[0][:5], atol=1e-6)
    assert_same_parameters(one[1], other[1], 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_packed_in_bfloat16_is_near_float32(attention):
    samples = make_samples(2, seed=3)
    _, parameters, narrow = make_model(2, attention=attention, dtype="bfloat16")
    wide = make_model(2, attention=attention)[2]
    got, wanted = narrow(parameters, pack(samples)), wide(parameters, pack(samples))
    assert got[0].dtype == jnp.float32
    np.testing.assert_allclose(got[0], wanted[0], atol=0.05)
    assert (got[0] != wanted[0]).any(), "it did compute in another dtype"
    assert_same_parameters(got[1], wanted[1], 0.1)


@pytest.mark.slow
def test_dropout_on_packed_batches():
    config = make_model(2, attention="tiled")[0]
    config = TransformerConfig(**{**vars(config), "dropout_rate": 0.3})
    model = MultimodalTransformer(config, rngs=nnx.Rngs(0, dropout=1))
    apply, batch = nnx.jit(lambda model, batch: model(batch)), pack(make_samples(2, seed=4))
    one, two = apply(model, batch), apply(model, batch)
    assert (one[0] != two[0]).any()
    model.eval()
    np.testing.assert_array_equal(apply(model, batch), apply(model, batch))


@pytest.mark.slow
def test_a_train_step_on_a_packed_batch_is_that_on_the_padded_one():
    """What is common to both is the parameters: the same tree, and after a step the same values."""
    config = make_model(2, attention="tiled")[0]
    step = TrainStep(MultimodalTransformer(config, rngs=nnx.Rngs(0)), optax.sgd(0.1), cross_entropy)
    run = jax.jit(step.train_step)
    samples = make_samples(2, seed=5)
    (packed, of_packed), (padded, of_padded) = (run(step.state, batch) for batch in (pack(samples), pad(samples)))
    assert int(of_packed.samples) == 5
    assert float(of_packed.loss) == pytest.approx(float(of_padded.loss), abs=1e-5)
    assert float(of_packed.grad_norm) == pytest.approx(float(of_padded.grad_norm), rel=1e-5)
    assert_same_parameters(packed.params, padded.params)
    assert norm(jax.tree.map(jnp.subtract, packed.params, step.state.params)) > 1e-3, "the step did something"


def test_the_convolution_on_packed_samples_is_that_on_rows():
    rng = np.random.default_rng(0)
    embedding = InputEmbedding(
        4, feature_width=3, vocabulary_size=None, kernel_size=5, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(1)
    )
    samples = [{"audio": rng.standard_normal((n, 3)).astype(np.float32)} for n in (9, 0, 1, 2, 6, 1)]
    packed = pack_samples(samples, capacity={"audio": 25}, pad_value=np.nan)
    padded = pad_samples(samples, pad_to={"audio": 12}, pad_value=np.nan)
    lengths = jnp.asarray(packed.lengths["audio"])
    got = np.asarray(embedding(jnp.asarray(packed.features["audio"]), PackedPositions(lengths, 25)))
    rows = np.asarray(embedding(jnp.asarray(padded.features["audio"]), PaddedPositions(lengths, 12)))
    wanted = rows.reshape(6, 12, 4)[padded.masks["audio"]]
    np.testing.assert_allclose(got[:19], wanted, atol=1e-6)
    assert (got[19:] == 0).all()


def test_positions_count_from_the_start_of_the_sample():
    positions = PackedPositions(jnp.array([3, 0, 2]), 7)
    table = sinusoidal_positions(7, 4)
    got = np.asarray(positions.plus_places(jnp.zeros((7, 4)), table))
    np.testing.assert_array_equal(got[:5], table[[0, 1, 2, 0, 1]])


def test_the_model_says_what_runs_on_packed_batches(monkeypatch):
    monkeypatch.setattr(AttentionDevice, "default", lambda: AttentionDevice("cuda", (9, 0), 91100))
    text = str(nnx.eval_shape(make_wide))
    assert (
        "memory attention, 2 heads of 8: cudnn (on an NVIDIA GPU); "
        "for packed batches xla (cuDNN takes padded samples, and not packed ones)" in text
    )
    assert "memory attention, 2 heads of 8: cudnn (padded batches only)" in str(
        nnx.eval_shape(lambda: make_wide(attention="cudnn"))
    )


def make_wide(**options):
    config = TransformerConfig(
        {"text": MODALITIES["text"], "audio": MODALITIES["audio"]},
        num_outputs=3,
        d_model=16,
        num_heads=2,
        dtype="bfloat16",
        **options,
    )
    return MultimodalTransformer(config, rngs=nnx.Rngs(0))


def test_cudnn_never_runs_on_packed_batches():
    batch = pack(make_samples(2))
    with pytest.raises(
        PaddingError, match="got implementation='cudnn', and cuDNN takes padded samples, and not packed"
    ):
        nnx.eval_shape(lambda: make_wide(attention="cudnn")(batch))


def test_a_batch_of_an_unknown_layout(monkeypatch):
    batch = pack(make_samples(2))
    monkeypatch.setattr(transformer_module, "_POSITIONS", {"padded": PaddedPositions})
    with pytest.raises(PaddingError, match="got a packed batch; the model takes these layouts: padded"):
        nnx.eval_shape(lambda: make_wide()(batch))
