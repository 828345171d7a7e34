"""Checkpoints of another model, loss or optimizer are refused, and named, also where all arrays are alike."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import Fixed, PaddingError
from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.serving import Predictor
from multimodal_pad.training import cross_entropy, fit, l1, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.described import MADE_OF, describe_model
from multimodal_pad.training.identity import IDENTITY, check_structure, describe_identity, describe_structure
from multimodal_pad.training.run import check_same
from multimodal_pad.training.saved_model import restore_model
from multimodal_pad.training.state import take_apart
from tests.helpers.training import MeanModel, make_batcher, mean_of

SIZES = {"d_model": 4, "num_heads": 2, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.1}


def transformer(names=("one", "other"), **options):
    modalities = {name: ModalityConfig(feature_width=3) for name in names}
    return MultimodalTransformer(TransformerConfig(modalities, 2, **{**SIZES, **options}), rngs=nnx.Rngs(0))


class Chain(nnx.Module):
    """Parts whose order is nowhere but in the model."""

    def __init__(self, *parts, rate=0.1):
        self.parts, self.rate = nnx.List(parts), rate
        self.head = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, batch):
        x = mean_of(batch)
        for part in self.parts:
            x = part(x)
        return self.head(x)


def layer(**options):
    return nnx.Linear(3, 3, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (
            transformer,
            lambda: transformer(("other", "one")),
            r"config.modalities is \['other', 'one'\] here and \['one'",
        ),
        (transformer, lambda: transformer(num_heads=1), "config.num_heads is 1 here and 2 there"),
        (transformer, lambda: transformer(dtype="bfloat16"), "config.dtype is 'bfloat16' here and 'float32' there"),
        (transformer, lambda: transformer(dropout_rate=0.2), "config.dropout_rate is 0.2 here and 0.1 there"),
        (lambda: Chain(jax.nn.relu), lambda: Chain(jax.nn.gelu), "parts.0 is 'gelu' here and 'relu' there"),
        (lambda: Chain(layer(), jnp.tanh), lambda: Chain(jnp.tanh, layer()), "parts.0 is 'tanh' here"),
        (lambda: Chain(layer()), lambda: Chain(layer(dtype=jnp.bfloat16)), "parts.0.dtype is 'bfloat16' here and None"),
        (lambda: Chain(rate=0.1), lambda: Chain(rate=0.3), "rate is 0.3 here and 0.1 there"),
        (lambda: Chain(nnx.Dropout(0.5)), lambda: Chain(nnx.Dropout(0.1)), "parts.0.rate is 0.1 here and 0.5 there"),
        (lambda: Chain(nnx.Dropout(0.5)), Chain, "parts.0 is None here and 'flax Dropout' there"),
    ],
)
def test_models_that_compute_something_else_differ(one, other, differs):
    saved, here = (json.loads(json.dumps(describe_structure(make()))) for make in (one, other))
    check_structure(saved, describe_structure(one()), "it", {}, training=True)
    with pytest.raises(TrainingError, match=rf"it is of another model or optimizer: .*{differs}"):
        check_structure(saved, here, "it", {}, training=True)
    if "rate" in differs or "dtype" in differs:  # to predict, that may be another
        check_structure(saved, here, "it", {}, training=False)
    else:
        with pytest.raises(TrainingError, match=differs):
            check_structure(saved, here, "it", {}, training=False)


def test_modes_and_ways_to_compute_are_no_difference():
    model, other = transformer(precision="highest"), transformer(attention="xla")
    model.eval()
    check_structure(describe_structure(model), describe_structure(other), "it", {}, training=True)
    one, other = Chain(nnx.Dropout(0.5)), Chain(nnx.Dropout(0.5))
    one.eval()
    assert describe_structure(one) == describe_structure(other)


def test_attributes_that_another_flax_has_do_not_count():
    saved = describe_structure(Chain(layer()))
    here = {**saved, "parts.0.novel": True}
    check_structure(saved, here, "it", {"flax": "0.1"}, training=True)
    with pytest.raises(TrainingError, match="novel"):
        check_structure(saved, here, "it", {}, training=True)
    with pytest.raises(TrainingError, match="the model's rate is 3"):
        check_structure(saved, {**here, "rate": 3}, "it", {"flax": "0.1"}, training=True)


def test_optimizers_are_told_by_their_transformations():
    made = [
        optax.adam(0.1),
        optax.adamw(0.1),
        optax.sgd(0.1),
        optax.sgd(0.1, momentum=0.9),
        optax.lion(0.1),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        optax.MultiSteps(optax.adam(0.1), 2),
        optax.multi_transform({"a": optax.adam(0.1), "b": optax.set_to_zero()}, lambda _: "a"),
    ]
    found = [describe_identity({"optimizer": optimizer})["optimizer"] for optimizer in made]
    assert len({tuple(names) for names in found}) == len(made)
    for rate, decay in ((1e-3, 1e-2), (1e-2, 0.5)):
        names = describe_identity({"optimizer": make_optimizer(rate, weight_decay=decay)})["optimizer"]
        assert names == ["clip_by_global_norm", "scale_by_adam", "add_decayed_weights", "scale"]


def test_functions_are_told_by_name():
    scaled = functools.partial(l1, mask=None)
    assert describe_identity({"loss": l1, "loss_fn": None, "weight_fn": scaled, "eval_params": lambda *_: 0}) == {
        "loss": "l1",
        "loss_fn": None,
        "weight_fn": ["l1", [], [["mask", None]]],
        "eval_params": "test_functions_are_told_by_name.<locals>.<lambda>",
        "libraries": {"flax": __import__("flax").__version__, "optax": optax.__version__},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder, 1)
    return folder


def train(folder, epochs=2, model=None, **options):
    with Checkpoints(folder) as checkpoints:
        options = {"optimizer": optax.adamw(0.1), "loss": cross_entropy, **options}
        model = model or Chain(layer(), jnp.tanh)
        return fit(model, make_batcher(), epochs=epochs, checkpoints=checkpoints, progress=False, **options)


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"model": Chain(layer(), jax.nn.relu)}, "the model's parts.1 is 'relu' here and 'tanh' there"),
        ({"optimizer": optax.adam(0.1)}, "optimizer is .*'scale_by_adam', 'scale'.* here and .*add_decayed_weights"),
        ({"loss": lambda *given: cross_entropy(*given)}, "loss is '.*<lambda>' here and 'cross_entropy' there"),
        ({"weight_fn": lambda batch: batch.sample_mask.sum()}, "weight_fn is .* here and None there"),
        ({"seed": 3}, "seed is 3 here and 0 there"),
    ],
)
def test_a_run_goes_on_only_as_what_it_was(trained, options, differs):
    with pytest.raises(TrainingError, match=rf"the run in {trained} is of another model or optimizer: {differs}"):
        train(trained, **options)


def test_a_model_to_predict_with_is_the_one_that_was_trained(trained):
    with Checkpoints(trained) as checkpoints:
        restore_model(checkpoints, Chain(layer(dtype=jnp.bfloat16), jnp.tanh))
        with pytest.raises(TrainingError, match=r"is of another model: .*parts.1 is 'relu' here and 'tanh' there"):
            restore_model(checkpoints, Chain(layer(), jax.nn.relu))
    with pytest.raises(PaddingError, match=r"parts.1 is 'relu' here and 'tanh' there; give one that is made like it"):
        Predictor.load(trained, model=Chain(layer(), jax.nn.relu))


def test_a_saved_predictor_is_loaded_into_the_same_model(tmp_path):
    sample = {"audio": np.ones((2, 3), np.float32)}
    predictor = Predictor(Chain(jnp.tanh), Fixed({"audio": 2}), batch_size=1, example=sample)
    predictor.save(tmp_path / "saved")
    with pytest.raises(PaddingError, match=r"parts.0 is 'relu' here and 'tanh' there"):
        Predictor.load(tmp_path / "saved", model=Chain(jax.nn.relu))
    np.testing.assert_array_equal(Predictor.load(tmp_path / "saved", model=Chain(jnp.tanh))(sample), predictor(sample))


def test_the_order_of_modalities_outlives_a_checkpoint(tmp_path):
    """JSON's own comparison of objects overlooks it."""
    names = ("zebra", "ant")
    _, params, rest = take_apart(transformer(names))
    record = {MADE_OF: {"model": describe_model(transformer(names))}, IDENTITY: {}, "settings": {}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": params, "rest": rest}, record)
        record = checkpoints.restore().record
    here = {**record, MADE_OF: {"model": describe_model(transformer(names[::-1]))}}
    with pytest.raises(TrainingError, match=r"config.modalities is \['ant', 'zebra'\] here and \['zebra', 'ant'\]"):
        check_same(record, record["settings"], here, "it")
    with pytest.raises(PaddingError, match=r"config.modalities is \['ant', 'zebra'\] here"):
        Predictor.load(tmp_path, model=transformer(names[::-1]))
    options = {"plan": Fixed(dict.fromkeys(names, 2)), "batch_size": 1, "ahead": False}
    assert list(Predictor.load(tmp_path, **options).program.model["config"]["modalities"]) == list(names)


def test_checkpoints_of_an_older_version_go_on_with_a_warning():
    record = {"settings": {"monitor": "loss"}}
    with pytest.warns(
        CheckpointWarning, match=r"it is of an older version .* arrays are compared, and nothing else is"
    ):
        check_same(record, record["settings"], {}, "it")
    with pytest.raises(TrainingError, match="another monitor"):
        check_same(record, {"monitor": "mae"}, {}, "it")


def test_a_small_model_says_little():
    assert len(json.dumps(describe_structure(MeanModel()))) < 1000
