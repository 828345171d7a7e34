"""Recipes of optax's and Flax's documentation do in ``fit`` what they do in a plain NNX loop."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import BucketBatcher, Fixed
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import cross_entropy, fit, make_optimizer
from tests.helpers.models import assert_same_models
from tests.helpers.training import DeepModel, make_batcher, make_samples

EPOCHS = 3


def transformer(dropout=0.0):
    config = TransformerConfig(
        {"audio": ModalityConfig(feature_width=3)},
        num_outputs=2,
        d_model=8,
        num_heads=2,
        crossmodal_layers=1,
        memory_layers=1,
        dropout_rate=dropout,
    )
    return MultimodalTransformer(config, rngs=nnx.Rngs(0, dropout=1))


def plain_loop(model, optimizer, batcher, epochs=EPOCHS):
    """The training loop of Flax's documentation, over the same batches in the same order."""
    model.train()
    state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, state, batch):
        def loss_fn(model):
            return cross_entropy(model(batch), batch.targets, batch.sample_mask)

        loss, gradient = nnx.value_and_grad(loss_fn)(model)
        graphdef, rest = nnx.split(model)

        def value_fn(params):
            return loss_fn(nnx.merge(graphdef, nnx.merge_state(rest, params)))

        state.update(model, gradient, value=loss, grad=nnx.as_pure(gradient), value_fn=value_fn)
        return loss

    losses = [float(train_step(model, state, batch)) for epoch in range(epochs) for batch in batcher.epoch(epoch)]
    model.eval()
    return model, losses


def compare(make, optimizer):
    """The model of ``fit`` with the one of a plain loop, to 1e-6."""
    result = fit(make(), make_batcher(), epochs=EPOCHS, optimizer=optimizer, strict=True, progress=False)
    model, losses = plain_loop(make(), optimizer, make_batcher())
    assert_same_models(result.model, model)
    assert losses[0] > losses[-1]
    return result.model


@pytest.mark.slow
def test_weight_decay_of_matrices_alone():
    """Optax: ``mask`` is a tree of bools by name, or a function that makes one of the parameters."""

    def by_rank(params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    model = compare(DeepModel, optax.adamw(0.01, weight_decay=0.5, mask=by_rank))
    by_name = {"encoder": {"kernel": True, "bias": False}, "head": {"kernel": True, "bias": False}}
    named = fit(
        DeepModel(),
        make_batcher(),
        epochs=EPOCHS,
        optimizer=optax.adamw(0.01, weight_decay=0.5, mask=by_name),
        progress=False,
    ).model
    assert_same_models(named, model)
    none = fit(DeepModel(), make_batcher(), epochs=EPOCHS, optimizer=optax.adam(0.01), progress=False).model
    assert np.abs(none.head.kernel[...]).sum() > 1.05 * np.abs(model.head.kernel[...]).sum(), "the matrices decayed"


@pytest.mark.slow
def test_frozen_encoders():
    """Optax's ``multi_transform``, with labels by path, and by the keys of a nested dict."""

    def by_path(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "head" if path[0].key.startswith("head") else "encoder", params
        )

    def by_dict(params):
        return {name: "head" if name.startswith("head") else "encoder" for name in params}

    transforms = {"head": optax.adam(0.01), "encoder": optax.set_to_zero()}
    model, start = compare(transformer, optax.multi_transform(transforms, by_path)), transformer()
    for name in ("embed", "memory"):
        for one, other in zip(*(jax.tree.leaves(nnx.state(getattr(m, name))) for m in (model, start)), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (model.head_output.kernel[...] != start.head_output.kernel[...]).any()
    optimizer = optax.multi_transform(transforms, by_dict)
    assert_same_models(
        fit(transformer(), make_batcher(), epochs=EPOCHS, optimizer=optimizer, progress=False).model, model
    )


@pytest.mark.slow
def test_labels_by_path():
    """As ``jax.tree_util.tree_map_with_path`` gives paths, with a learning rate for each part."""

    def labels(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, params)

    compare(DeepModel, optax.multi_transform({"encoder": optax.adam(1e-3), "head": optax.adam(1e-2)}, labels))


@pytest.mark.slow
def test_a_rate_that_falls_on_a_plateau():
    """Optax gives ``reduce_on_plateau`` the loss as an extra argument."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.5, accumulation_size=2)
    model = compare(DeepModel, optax.chain(optax.adam(0.01), plateau))
    adam = fit(DeepModel(), make_batcher(), epochs=EPOCHS, optimizer=optax.adam(0.01), progress=False).model
    assert (np.abs(adam.head.kernel[...] - model.head.kernel[...]) > 1e-4).any(), "the rate has fallen"


@pytest.mark.slow
def test_a_line_search():
    """Optax gives ``scale_by_backtracking_linesearch`` value, gradient and the function of the loss."""
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=5, store_grad=True)
    compare(DeepModel, optax.chain(optax.sgd(1.0), search))


@pytest.mark.slow
def test_batch_statistics():
    model = compare(lambda: DeepModel(norm=True), make_optimizer(0.01))
    assert (np.asarray(model.norm.mean[...]) != 0).any()


@pytest.mark.slow
def test_dropout_of_flax():
    model = compare(lambda: DeepModel(dropout=0.5), make_optimizer(0.01))
    assert int(model.dropout.rngs.count[...]) == EPOCHS * len(make_batcher().schedule(0)), "a key per step"


@pytest.mark.slow
def test_dropout_and_statistics_of_a_model_in_evaluation_mode():
    def make():
        model = DeepModel(norm=True, dropout=0.5)
        model.eval()
        return model

    compare(make, make_optimizer(0.01))


@pytest.mark.slow
def test_dropout_of_the_transformer():
    model = compare(lambda: transformer(0.3), make_optimizer(0.01))
    assert int(model.rngs.count[...]) == EPOCHS * len(make_batcher().schedule(0)), "a key per step"
    without = fit(transformer(), make_batcher(), epochs=EPOCHS, optimizer=make_optimizer(0.01), progress=False).model
    assert (model.head_output.kernel[...] != without.head_output.kernel[...]).any()


@pytest.mark.slow
def test_evaluation_is_in_evaluation_mode_and_leaves_the_model_alone():
    """With the loss of the evaluation known from the model of each epoch."""
    batcher, other = make_batcher(), BucketBatcher(make_samples(7, seed=3), Fixed({"audio": 12}), batch_size=7)
    model = DeepModel(norm=True, dropout=0.5)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    result = fit(model, batcher, epochs=2, evaluate_on=other, optimizer=make_optimizer(0.05), progress=False)
    batch = next(other.epoch(0))
    wanted = cross_entropy(result.model(batch), batch.targets, batch.sample_mask)
    assert result.history[result.best_epoch].evaluation["loss"] == pytest.approx(float(wanted), abs=1e-6)
    assert result.model.dropout.deterministic
    assert not model.dropout.deterministic
    for one, other in zip(
        jax.tree.leaves(before), jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_best_epoch_has_its_statistics():
    """Evaluated on flipped labels the first epoch is the best, whatever comes after it."""
    flipped = make_batcher([{**sample, "targets": np.int32(1 - sample["targets"])} for sample in make_samples()])
    options = {"evaluate_on": flipped, "optimizer": make_optimizer(0.1), "progress": False}
    first, later = (fit(DeepModel(norm=True, dropout=0.2), make_batcher(), epochs=n, **options) for n in (1, 4))
    assert later.best_epoch == 0
    assert_same_models(first.model, later.model)
