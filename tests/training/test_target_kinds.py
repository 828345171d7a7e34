"""Targets of every kind that people hand in: they train and are evaluated, or are refused before anything compiles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, Fixed, StreamBatcher, pack_samples, pad_samples
from multimodal_pad.compiling import CompileLog
from multimodal_pad.errors import SampleError, TrainingError
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import (
    binary_cross_entropy,
    classification_metrics,
    cross_entropy,
    emotion_metrics,
    fit,
    l1,
    multilabel_metrics,
    sentiment_metrics,
)
from multimodal_pad.training.any_batches import as_feed
from multimodal_pad.training.evaluation import choose_metrics
from multimodal_pad.training.limits import Limits
from multimodal_pad.training.measured import Evaluated
from tests.helpers.serving import audio_transformer
from tests.helpers.training import MeanModel

pytest.importorskip("sklearn")

COUNT = 6
ROWS = np.random.default_rng(0).standard_normal((COUNT, 2, 3), "f4")


def batcher_of(targets, key="targets", **options):
    samples = [{"audio": row, key: target} for row, target in zip(ROWS, targets, strict=True)]
    return BucketBatcher(samples, Fixed({"audio": 2}), batch_size=4, **options)


def train(targets, outputs=2, model=None, evaluated=None, **options):
    batcher = targets if isinstance(targets, BucketBatcher | StreamBatcher) else batcher_of(targets)
    options = {"epochs": 1, "optimizer": optax.sgd(0.1), "progress": False, **options}
    evaluated = batcher if evaluated is None else evaluated
    return fit(model or MeanModel(outputs), batcher, evaluate_on=evaluated, **options).history[0]


def refused_before_compiling(message, *arguments, error=TrainingError, **options):
    with CompileLog() as log, pytest.raises(error, match=message):
        train(*arguments, **options)
    assert log["train_step"].compiled == log["eval_step"].compiled == 0


LABELS = np.array([0, 1, 1, 0, 1, 0])
ONE_HOT = np.eye(2, dtype=np.float32)[LABELS]


@pytest.mark.parametrize(
    ("targets", "options", "figures"),
    [
        (LABELS == 1, {}, {"accuracy", "weighted_f1"}),
        (LABELS.astype(np.uint8), {}, {"accuracy", "weighted_f1"}),
        (ONE_HOT, {"loss": binary_cross_entropy}, {"accuracy", "mean_f1"}),
        (ONE_HOT == 1, {"loss": binary_cross_entropy}, {"accuracy", "mean_f1"}),
        (LABELS, {"loss": binary_cross_entropy, "outputs": 1}, {"accuracy", "mean_f1"}),
        (LABELS, {"loss": l1, "outputs": 1}, {"mae"}),
        (LABELS[:, None] == 1, {"loss": l1, "outputs": 1}, {"mae"}),
        (ONE_HOT, {"loss": l1}, {"mae"}),
        (ONE_HOT == 1, {"loss": lambda outputs, targets, mask: l1(outputs, targets, mask)}, {"accuracy", "mean_f1"}),
    ],
)
def test_what_goes_with_a_loss_is_trained_and_scored(targets, options, figures):
    record = train(targets, **options)
    assert set(record.evaluation) == {"loss", *figures}
    assert np.isfinite(list(record.evaluation.values())).all()
    as_numbers = train(targets.astype(np.int32), **options)
    assert record.train_loss == as_numbers.train_loss


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (LABELS[:, None], {}, r"shape \(4, 1\) for outputs of shape \(4, 2\); .*int\(label\[0\]\)"),
        (LABELS.astype(np.float32), {}, r"dtype float32 .*an int for each.*np.int32\(label\).*loss=l1"),
        (ONE_HOT, {}, r"shape \(4, 2\) for outputs .*int\(np.argmax\(row\)\).*loss=binary_cross_entropy"),
        (ONE_HOT.astype(np.int32), {}, r"int\(np.argmax\(row\)\)"),
        (LABELS, {"outputs": 1}, r"cross-entropy of a single output is always 0; give loss=l1"),
        (LABELS, {"loss": l1}, r"dtype int32 and shape \(4,\); give 2 targets for each of \(4,\) \(for class numbers"),
        (LABELS, {"loss": binary_cross_entropy}, r"give 2 targets for each"),
        (LABELS, {"metrics": emotion_metrics}, r"both must be \(samples, 4\)"),
        (LABELS, {"metrics": sentiment_metrics}, "sentiment is one number"),
        (ONE_HOT, {"loss": l1, "metrics": classification_metrics}, "a class number, an int, for each sample"),
        (LABELS, {"monitor": "f1"}, r"got monitor='f1'; the evaluation has \['loss', 'accuracy', 'weighted_f1'\]"),
    ],
)
def test_what_does_not_is_refused_before_anything_compiles(targets, options, message):
    refused_before_compiling(message, targets, **options)


def test_the_targets_of_the_evaluation_are_looked_at_before_training(recwarn):
    refused_before_compiling(r"int\(label\[0\]\)", LABELS, evaluated=batcher_of(LABELS[:, None]))
    assert not recwarn


KINDS = {
    "class": st.integers(0, 1),
    "bool": st.booleans(),
    "float": st.floats(0, 1, width=32),
    "one of one": st.integers(0, 1).map(lambda label: [label]),
    "one-hot": st.integers(0, 1).map(lambda label: np.eye(2)[label]),
    "several": st.lists(st.integers(0, 1), min_size=2, max_size=2),
    "three": st.lists(st.integers(0, 1), min_size=3, max_size=3),
}
DTYPES = ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.slow
@settings(max_examples=30)
@given(st.data())
def test_what_a_step_takes_the_metrics_take(data):
    """Of any kind, dtype, loss and number of outputs: a loss that is finite has metrics, or a TrainingError says no."""
    kind = data.draw(st.sampled_from(list(KINDS)))
    targets = np.array(data.draw(st.lists(KINDS[kind], min_size=4, max_size=4)))
    targets = targets.astype(data.draw(st.sampled_from(DTYPES)))
    loss = data.draw(st.sampled_from([cross_entropy, binary_cross_entropy, l1]))
    outputs = np.linspace(-1, 1, 4 * (count := data.draw(st.integers(1, 3))), dtype=np.float32).reshape(4, count)
    mask = np.ones(4, bool)
    try:
        found = loss(outputs, targets, mask)
    except TrainingError:
        return
    assert np.isfinite(found)
    evaluated = Evaluated(outputs, targets, mask, found)
    metrics = choose_metrics(evaluated, loss, None, "loss")
    assert all(np.isfinite(figure) for figure in metrics(outputs, targets).values())


@pytest.mark.parametrize("label", [-1, -100, 3, 2**31 - 1])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_no_class_number_wraps_under_jit(label, shape):
    targets, mask = np.zeros(shape, np.int32), np.ones(shape, bool)
    targets[(0,) * len(shape)] = label
    outputs = np.zeros((*shape, 3), np.float32)
    value, gradient = jax.jit(jax.value_and_grad(cross_entropy))(outputs, targets, mask)
    assert np.isnan(value)
    mask[(0,) * len(shape)] = False
    assert float(jax.jit(cross_entropy)(outputs, targets, mask)) == pytest.approx(np.log(3))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("target", [-1.0, 2.0, np.nan])
def test_no_probability_beyond_0_and_1(target):
    targets = np.array([target, 1.0], np.float32)
    assert np.isnan(jax.jit(binary_cross_entropy)(np.zeros((2, 1), "f4"), targets, np.ones(2, bool)))
    assert np.isfinite(binary_cross_entropy(np.zeros((2, 1), "f4"), targets, np.array([False, True])))


def test_a_sample_is_named_whose_class_number_the_model_does_not_have():
    for bad, outputs in ((-1, 2), (2, 2), (2**32, 2)):
        labels = LABELS.astype(np.int64).copy()
        labels[4] = bad
        message = rf"sample 4, 'targets': got the class number {bad}; class numbers run from 0 to {outputs - 1}, since "
        refused = {"error": SampleError, "outputs": outputs}
        with pytest.raises(refused["error"], match=message):
            train(labels, outputs)
        with pytest.raises(SampleError, match=message):
            train(LABELS, outputs, evaluated=batcher_of(labels))
    with pytest.raises(SampleError, match=r"class number -100; .*as others do by ignore_index, give loss_fn="):
        train(np.where(LABELS, 1, -100))


def test_the_transformer_says_how_many_outputs_it_has():
    batch = next(batcher_of([0, 1, 1, 3, 0, 1], with_ids=True).epoch(0))
    limits = Limits(audio_transformer(), cross_entropy, batch)
    spoilt, names = batch._replace(targets=np.array([0, 1, 3, 0])), [f"sample {10 * number}" for number in batch.ids]
    with pytest.raises(SampleError, match=rf"{names[2]}, 'targets': got the class number 3; class numbers .* 0 to 1"):
        limits.check(spoilt, lambda: names)


def test_other_losses_name_what_they_do_not_take():
    with pytest.raises(
        SampleError, match=r"sample [035], 'targets': got the target -1; binary_cross_entropy takes 0 or 1"
    ):
        train(np.where(LABELS, 1, -1), outputs=1, loss=binary_cross_entropy)
    with pytest.raises(SampleError, match=r"sample 2, 'targets': got the value 4294967301; JAX takes int64 as int32"):
        train(np.array([0, 1, 2**32 + 5, 0, 0, 0]), outputs=1, loss=l1)
    stream = StreamBatcher(batcher_of(np.where(LABELS, 1, 7)).source, Fixed({"audio": 2}), batch_size=4)
    with pytest.raises(SampleError, match=r"sample \d of a batch, 'targets': got the class number 7"):
        train(stream, evaluated=batcher_of(LABELS))


@pytest.mark.parametrize("targets", [np.array(["a"] * COUNT), np.zeros(COUNT, "M8[s]")])
def test_what_jax_has_no_dtype_for_is_named(targets):
    refused_before_compiling(
        r"'targets' of dtype \S+, and JAX computes with numbers|'targets': got", targets, error=ValueError
    )


def test_a_loss_that_is_nan_names_targets():
    class Gone(MeanModel):
        def __call__(self, batch):
            return super().__call__(batch)[:, :1] * jnp.nan

    with pytest.raises(TrainingError, match=r"the loss is nan; look for targets .*such as -1 or -100"):
        fit(Gone(), batcher_of(LABELS), epochs=1, loss=l1, progress=False)


# Token ids


def token_model(size=5):
    sizes = {"d_model": 4, "num_heads": 1, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.0}
    config = TransformerConfig({"text": ModalityConfig(vocabulary_size=size)}, 2, **sizes)
    return MultimodalTransformer(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def of_ids():
    """The outputs for two samples, by their ids, traced once."""
    graph, state = nnx.split(token_model())
    run = jax.jit(lambda state, batch: nnx.merge(graph, state)(batch))
    return lambda batch: np.asarray(run(state, batch))


def texts(*ids, dtype=np.int32):
    samples = [{"text": np.array(each, dtype), "targets": number % 2} for number, each in enumerate(ids)]
    return BucketBatcher(samples, Fixed({"text": 3}), batch_size=2)


@pytest.mark.parametrize("bad", [-1, 5, -(2**31), 2**31 - 1])
def test_no_token_id_wraps_under_jit(bad, of_ids):
    good, spoilt = (next(texts([1, 2, 3], [4, each]).epoch(0)) for each in (0, bad))
    assert np.isfinite(of_ids(good)).all()
    row = int(bad in spoilt.features["text"][1])
    assert np.isnan(of_ids(spoilt)[row]).all()


def test_padding_may_be_anything(of_ids):
    batch = next(texts([1, 2, 3], [4, 0]).epoch(0))
    spoilt = batch._replace(features={"text": np.where(batch.masks["text"], batch.features["text"], -7)})
    np.testing.assert_array_equal(of_ids(batch), of_ids(spoilt))


@pytest.mark.parametrize(("bad", "dtype"), [(-1, np.int32), (5, np.int32), (2**32, np.int64), (200, np.uint8)])
def test_a_sample_is_named_whose_token_id_is_not_in_the_vocabulary(bad, dtype):
    batcher = texts([1, 2, 3], [4], [0, bad], [1], dtype=dtype)
    limits = Limits(token_model(), cross_entropy, batcher.example())
    for part in (batcher, batcher.shard(0, 2), batcher.shard(1, 2)):
        feed = as_feed(part)
        for step, batch in enumerate(feed.epoch(0)):
            if "sample 2" not in feed.names(0, step):
                limits.check(batch, partial(feed.names, 0, step))
                continue
            with pytest.raises(
                SampleError, match=rf"sample 2, 'text': got the token id {bad}; ids run from 0 to 4: ma"
            ):
                limits.check(batch, partial(feed.names, 0, step))


def test_a_sample_of_a_corpus_is_named_by_its_id_too():
    class Corpus(list):
        ids = ("dia0_utt0", "dia0_utt1", "dia1_utt0")

    samples = Corpus({"text": np.array([1, number], np.int32)} for number in (2, 5, 3))
    batcher = BucketBatcher(samples, Fixed({"text": 3}), batch_size=4)
    feed, batch = as_feed(batcher), next(batcher.epoch(0))
    assert sorted(feed.names(0, 0)) == ["sample 0 (dia0_utt0)", "sample 1 (dia0_utt1)", "sample 2 (dia1_utt0)"]
    with pytest.raises(SampleError, match=r"^sample 1 \(dia0_utt1\), 'text': got the token id 5; ids run from 0 to 4"):
        Limits(token_model(), cross_entropy, batch).check(batch, partial(feed.names, 0, 0))


@pytest.mark.parametrize("make", [pad_samples, pack_samples])
def test_limits_are_of_what_is_real(make):
    samples = [{"text": np.array(ids, np.int32), "targets": 0} for ids in ([1, 2], [], [4])]
    batch = make(samples, batch_size=5, **({"capacity": {"text": 8}} if make is pack_samples else {}))
    limits = Limits(token_model(), cross_entropy, batch)
    batch.features["text"][~batch.masks["text"]] = -7
    batch.targets[3:] = 99
    limits.check(batch, lambda: None)
    batch.targets[2] = 2
    with pytest.raises(SampleError, match=r"sample 2 of a batch, 'targets': got the class number 2"):
        limits.check(batch, lambda: None)


@pytest.mark.slow
def test_a_token_id_beyond_ends_a_training():
    with pytest.raises(SampleError, match="sample 2, 'text': got the token id -1"):
        fit(token_model(), texts([1, 2, 3], [4], [0, -1], [1]), epochs=1, progress=False)


def test_features_that_the_model_does_not_take_are_named():
    with pytest.raises(TrainingError, match=r"'text' of float32 .*takes token ids"):
        fit(token_model(), texts([1, 2], [3], dtype=np.float32), epochs=1, progress=False)
    narrow = BucketBatcher([{"audio": np.zeros((2, 2), "f4"), "targets": 0}], Fixed({"audio": 2}), batch_size=1)
    with pytest.raises(TrainingError, match=r"'audio' of feature shape \(2,\), and the model takes \(3,\)"):
        fit(audio_transformer(), narrow, epochs=1, progress=False)


def test_multilabel_metrics_are_means_over_tasks():
    outputs, targets = np.array([[1.0, -2.0], [-1.0, 3.0], [2.0, 1.0]]), np.array([[1, 0], [1, 1], [1, 0]])
    found = multilabel_metrics(outputs, targets)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["mean_f1"] == pytest.approx((0.8 + (2 / 3 * 2 / 3 + 1 / 3 * 2 / 3)) / 2)
