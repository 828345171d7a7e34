"""What a loss gives, what it is given, and what is said where that is not what it should be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import pad_samples
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, binary_cross_entropy, cross_entropy, fit, l1
from tests.helpers.own_losses import TwoHeads, batcher_of, samples_of, two_heads
from tests.helpers.training import MeanModel, make_batcher, make_samples

BATCH = pad_samples(make_samples(4), pad_to={"audio": 12}, batch_size=5)
MODEL = MeanModel()


def trace(loss_fn=None, batch=BATCH, model=MODEL, optimizer=None, what="train_step", **options):
    step = TrainStep(model, optimizer or optax.sgd(0.1), loss_fn=loss_fn, **options)
    return jax.eval_shape(getattr(step, what), step.state, batch)


def mean(model, batch):
    return cross_entropy(model(batch), batch.targets, batch.sample_mask)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (
            lambda model, batch: model(batch),
            r"loss_fn gives a loss of shape \(5, 2\) and dtype float32; it is to be one",
        ),
        (lambda model, batch: jnp.int32(mean(model, batch)), r"a loss of shape \(\) and dtype int32"),
        (lambda *_: None, "loss_fn gives a NoneType; it is to give a loss, or loss_fn a loss and a dict"),
        (lambda model, batch: (mean(model, batch), 1, 2), "loss_fn gives a tuple; it is to give a loss"),
        (
            lambda model, batch: (mean(model, batch), model(batch)),
            r"a loss and an array of shape \(5, 2\); it is to giv",
        ),
        (
            lambda model, batch: (mean(model, batch), {"x": model(batch)}),
            r"the metric 'x', an array of shape \(5, 2\); m",
        ),
        (lambda model, batch: (mean(model, batch), {3: 1.0}), "the metric 3, a float; metrics are scalars by name"),
        (
            lambda model, batch: (mean(model, batch), {"loss": 1.0}),
            "the metric 'loss', .* the name 'loss' is the loss's",
        ),
    ],
)
def test_what_a_loss_may_not_give(loss_fn, message):
    for what in ("train_step", "eval_step"):
        with pytest.raises(TrainingError, match=message):
            trace(loss_fn, what=what)


def of_batch(batch):
    return batch.sample_mask.sum()


def of_three(model, batch, other):
    return other * mean(model, batch)


def with_rngs_of_three(model, batch, *, rngs, other):
    return other * rngs.noise() * mean(model, batch)


@pytest.mark.parametrize(
    ("loss_fn", "named"),
    [
        (of_batch, r"\(batch\) \(too many positional arguments\)"),
        (cross_entropy, r"\(outputs: .* \(missing a required argument: 'mask'\)"),
        (of_three, r"\(model, batch, other\) \(missing a required argument: 'other'\)"),
        (with_rngs_of_three, r"\(model, batch, \*, rngs, other\) \(missing a required"),
    ],
)
def test_a_loss_that_takes_something_else(loss_fn, named):
    with pytest.raises(
        TrainingError, match=rf"got a loss_fn that takes {named}.*; it is to take \(model, batch\), and"
    ):
        fit(MODEL, make_batcher(), epochs=1, loss_fn=loss_fn, progress=False)


def test_a_loss_may_take_more_that_has_a_value():
    scaled = functools.partial(lambda factor, model, batch, other=1.0: factor * other * mean(model, batch), 2.0)
    assert trace(scaled)[1].loss.dtype == np.float32


def test_only_one_loss():
    with pytest.raises(
        TrainingError, match=r"got loss and loss_fn; give one of them: loss\(outputs, targets, mask\), or"
    ):
        fit(MODEL, make_batcher(), epochs=1, loss=cross_entropy, loss_fn=mean)


def test_a_weight_is_a_number():
    with pytest.raises(TrainingError, match=r"weight_fn gives an array of shape \(5,\); it is to give one number"):
        trace(mean, weight_fn=lambda batch: batch.sample_mask)


def test_losses_in_half_precision_are_reported_in_float32():
    def loss_fn(model, batch):
        return mean(model, batch).astype(jnp.bfloat16), {"half": jnp.bfloat16(0.5), "count": jnp.int32(2), "yes": True}

    found = trace(loss_fn)[1]
    assert {x.dtype for x in (found.loss, *found.metrics.values())} == {np.dtype(np.float32)}


def test_batches_without_targets():
    batch = BATCH._replace(targets=None)
    with pytest.raises(
        TrainingError, match="the batches have no targets; give every sample its 'targets' or 'position"
    ):
        trace(batch=batch)
    with pytest.raises(TrainingError, match=r"or a loss_fn.* that needs none, without metrics="):
        trace(lambda model, batch: model(batch).sum(), batch, what="eval_step", with_outputs=True)
    found = trace(lambda model, batch: model(batch).sum(), batch, what="eval_step")
    assert (found.outputs, found.targets, found.mask.shape) == (None, None, (5,))


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy, l1])
def test_a_dict_of_targets_needs_a_loss_that_takes_one(loss):
    batch = pad_samples(samples_of("dict", 4))
    with pytest.raises(
        TrainingError, match="got targets that are a dict, and this loss takes arrays; give a loss, or a"
    ):
        trace(batch=batch, loss=loss)
    with pytest.raises(TrainingError, match="got outputs that are a dict"):
        trace(batch=BATCH, model=TwoHeads(nnx.Rngs(0)), loss=loss)


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (cross_entropy, np.zeros((5, 2), np.int32), r"int32 and shape \(5, 2\) for outputs.*np.argmax\(row\)"),
        (cross_entropy, np.zeros((5, 3), np.int32), r"logits of shape \(5, 2\) and class numbers of shape \(5, 3\)"),
        (
            cross_entropy,
            np.zeros(4, np.int32),
            r"got targets of shape \(4,\) and a mask of shape \(5,\); give targets for",
        ),
        (l1, np.zeros(5, np.float32), r"got outputs of shape \(5, 2\) .* shape \(5,\); give 2 targets for each"),
        (binary_cross_entropy, np.zeros((5, 3)), r"got outputs of shape \(5, 2\) and targets of .* shape \(5, 3\)"),
    ],
)
def test_targets_that_do_not_fit_the_outputs(loss, targets, message):
    with pytest.raises(TrainingError, match=message):
        trace(batch=BATCH._replace(targets=targets), loss=loss)


def test_parameters_to_evaluate_are_those_of_the_model():
    with pytest.raises(
        TrainingError, match=r"eval_params gives nothing at state\['params'\]\['head'\]\['bias'\] and tak"
    ):
        trace(mean, what="eval_step", eval_params=lambda _, params: {"head": {"kernel": params["head"]["kernel"]}})


def test_losses_of_positions_are_means_over_the_mask_whatever_is_elsewhere():
    rng, shape = np.random.default_rng(0), (3, 5)
    outputs, mask = rng.standard_normal((*shape, 4)).astype(np.float32), rng.random(shape) < 0.6
    classes = rng.integers(0, 4, shape)
    present, values = rng.integers(0, 2, (*shape, 4)), rng.standard_normal((*shape, 4)).astype(np.float32)
    for loss, targets in ((cross_entropy, classes), (binary_cross_entropy, present), (l1, values)):
        spoilt = np.where(mask[..., None], outputs, np.inf)
        value, gradient = jax.jit(jax.value_and_grad(loss))(spoilt, targets, mask)
        flat = jax.jit(loss)(outputs[mask], targets[mask], np.ones(mask.sum(), bool))
        assert float(value) == pytest.approx(float(flat), rel=1e-5)
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient)[~mask] == 0).all()


def test_metrics_of_dicts_get_dicts_and_means_are_by_weight():
    """Of a loss of outputs and targets that are dicts, and of one of model and batch, which are the same figures."""

    def of_outputs(outputs, targets, mask):
        label = cross_entropy(outputs["label"], targets["label"], mask)
        return label + 0.5 * l1(outputs["level"], targets["level"], mask)

    def metrics(outputs, targets):
        assert {name: x.shape for name, x in outputs.items()} == {"label": (20, 2), "level": (20, 1)}
        assert {name: x.shape for name, x in targets.items()} == {"label": (20,), "weight": (20,), "level": (20, 1)}
        return {"level_mae": np.abs(outputs["level"] - targets["level"]).mean()}

    options = {"epochs": 1, "optimizer": optax.sgd(0.0), "metrics": metrics, "progress": False}
    batcher = batcher_of("dict")
    one, other = (
        fit(TwoHeads(nnx.Rngs(0)), batcher, evaluate_on=batcher, **loss, **options).history[0]
        for loss in ({"loss": of_outputs}, {"loss_fn": two_heads})
    )
    assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
    assert {"loss": 0, "level_mae": 0, "label": 0, "level": 0}.keys() == other.evaluation.keys()
    for name, figure in one.evaluation.items():
        assert other.evaluation[name] == pytest.approx(figure, rel=1e-6)
    assert other.evaluation["level"] == pytest.approx(other.evaluation["level_mae"], rel=1e-5)


def test_random_numbers_of_a_loss_are_others_in_each_step_and_the_same_in_evaluations():
    def loss_fn(model, batch, rngs):
        return mean(model, batch), {"drawn": jax.random.uniform(rngs.noise())}

    def drawn(seed, step):
        return float(jax.random.uniform(nnx.Rngs(jax.random.fold_in(jax.random.key(seed), step)).noise()))

    step = TrainStep(MODEL, optax.sgd(0.0), loss_fn=loss_fn, seed=7)
    run, state = jax.jit(step.train_step), step.state
    for number in range(3):
        state, found = run(state, BATCH)
        assert float(found.metrics["drawn"]) == pytest.approx(drawn(7, number))
    evaluated = jax.jit(step.eval_step)(state, BATCH)
    assert float(evaluated.metrics["drawn"]) == pytest.approx(drawn(7, 0))
    assert len({drawn(7, 0), drawn(7, 1), drawn(0, 1)}) == 3
