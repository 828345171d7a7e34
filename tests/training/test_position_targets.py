"""Targets of positions: the same in both layouts, whatever stands in the padding; means over positions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import pack_samples, pad_samples
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, cross_entropy, fit
from tests.helpers.own_losses import FrameModel, batcher_of, positions, samples_of, tag, tag_and_measure

LAYOUTS = {"padded": pad_samples, "packed": pack_samples}
SAMPLES = samples_of("positions", 6)
ROOM = {"padded": {"pad_to": {"audio": 15}}, "packed": {"capacity": {"audio": 64}}}


def make_batch(layout, samples=SAMPLES):
    return LAYOUTS[layout](samples, batch_size=8, **ROOM[layout])


@pytest.fixture(scope="module")
def measured():
    """What a step measures of a batch, and the gradient that it follows, compiled once for each layout."""
    step = TrainStep(FrameModel(nnx.Rngs(0)), optax.sgd(1.0), loss_fn=tag_and_measure, weight_fn=positions)
    run = jax.jit(step.train_step)

    def measure(batch):
        new, found = run(step.state, batch)
        return found, jax.tree.map(lambda a, b: np.asarray(a - b), step.state.params, new.params)

    return measure


def assert_alike(one, other, **tolerance):
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_both_layouts_have_the_loss_and_the_gradient_of_the_samples_alone(measured):
    padded, packed = (measured(make_batch(layout)) for layout in LAYOUTS)
    assert_alike(padded, packed, rtol=1e-5, atol=1e-6)
    assert float(padded[0].weight) == sum(len(sample["audio"]) for sample in SAMPLES)
    assert int(padded[0].samples) == len(SAMPLES)
    frames = np.concatenate([sample["audio"] for sample in SAMPLES])
    targets = np.concatenate([sample["position_targets"]["audio"]["tag"] for sample in SAMPLES])
    model = FrameModel(nnx.Rngs(0))
    logits = model.head(jax.nn.relu(model.encoder(frames)))
    alone = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    np.testing.assert_allclose(padded[0].metrics["tags"], alone, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_garbage_in_the_padding_changes_nothing(measured, layout):
    batch = make_batch(layout)
    spoilt = make_batch(layout)
    padding = ~batch.masks["audio"]
    spoilt.features["audio"][padding] = 1e3
    spoilt.position_targets["audio"]["tag"][padding] = 10**6
    spoilt.position_targets["audio"]["energy"][padding] = np.nan
    assert padding.any()
    assert_alike(measured(batch), measured(spoilt), rtol=0, atol=0)


def by_hand(model, samples):
    """The mean over all positions of all samples, and how many of them are right."""
    frames = np.concatenate([sample["audio"] for sample in samples])
    targets = np.concatenate([sample["position_targets"]["audio"] for sample in samples])
    logits = model.head(jax.nn.relu(model.encoder(frames)))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return float(losses.mean()), float((logits.argmax(1) == targets).mean())


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_means_of_epochs_and_evaluations_are_over_positions(layout):
    """At a learning rate of 0, over batches of now few, now many positions, the last of them short."""
    seen = []

    def metrics(outputs, targets):
        seen.append((outputs.shape, targets.shape))
        return {"right": (outputs.argmax(1) == targets).mean()}

    samples, model = samples_of("tags"), FrameModel(nnx.Rngs(0))
    batcher = batcher_of("tags", layout)
    options = {"optimizer": optax.sgd(0.0), "progress": False, "evaluate_on": batcher_of("tags", layout)}
    given = {"metrics": metrics}
    if layout == "packed":
        given |= {"loss_fn": lambda model, batch: (tag(model, batch), {"twice": 2 * tag(model, batch)})}
        given |= {"weight_fn": positions}
    result = fit(model, batcher, epochs=1, **given, **options)
    loss, right = by_hand(model, samples)
    record = result.history[0]
    assert record.train_loss == pytest.approx(loss, rel=1e-5)
    assert record.evaluation["loss"] == pytest.approx(loss, rel=1e-5)
    assert record.evaluation["right"] == pytest.approx(right)
    assert record.evaluation.get("twice", 2 * loss) == pytest.approx(2 * loss, rel=1e-5)
    count = sum(len(sample["audio"]) for sample in samples)
    assert seen == [((count, 2), (count,))]
    assert ("twice" in record.evaluation) == (layout == "packed")


def test_usual_metrics_are_of_positions_too():
    pytest.importorskip("sklearn")
    model, batcher = FrameModel(nnx.Rngs(0)), batcher_of("tags")
    result = fit(model, batcher, epochs=1, evaluate_on=batcher, optimizer=optax.sgd(0.0), progress=False)
    assert result.history[0].evaluation["accuracy"] == pytest.approx(by_hand(model, samples_of("tags"))[1])


def test_targets_of_several_modalities_need_a_loss_that_says_what_becomes_of_them():
    both = {"text": np.zeros(2), "audio": np.zeros(3)}
    batch = pad_samples([{"text": np.arange(2), "audio": np.zeros((3, 3), "f4"), "position_targets": both}])
    step = TrainStep(FrameModel(nnx.Rngs(0)), optax.sgd(0.1), cross_entropy)
    with pytest.raises(
        TrainingError, match=r"targets for the positions of \['audio', 'text'\]; give loss_fn\(model, b"
    ):
        jax.eval_shape(step.train_step, step.state, batch)


def test_outputs_that_do_not_fit_the_positions():
    batch = make_batch("padded", samples_of("tags", 6))

    class Pooled(FrameModel):
        def __call__(self, batch):
            return super().__call__(batch).sum(axis=1)

    step = TrainStep(Pooled(nnx.Rngs(0)), optax.sgd(0.1), lambda outputs, *_: jnp.sum(outputs))
    with pytest.raises(
        TrainingError, match=r"outputs of shape \(8, 2\), and the targets are of \(8, 15\); outputs begin"
    ):
        jax.eval_shape(step.eval_step, step.state, batch)
    step = TrainStep(Pooled(nnx.Rngs(0)), optax.sgd(0.1))
    with pytest.raises(
        TrainingError, match=r"got outputs of shape \(8, 2\) and a mask of shape \(8, 15\); give outputs"
    ):
        jax.eval_shape(step.train_step, step.state, batch)
