"""An average of the parameters that the optimizer keeps is what is evaluated, chosen, saved and given back."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad.training import fit
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.saved_model import restore_model
from tests.helpers.models import assert_same_models
from tests.helpers.own_losses import AVERAGED, batcher_of, classify, keep_average
from tests.helpers.training import DeepModel


def train(epochs=2, **options):
    optimizer = optax.chain(optax.adam(0.05), keep_average(0.9))
    given = {**AVERAGED, "optimizer": optimizer, "progress": False, "strict": True, **options}
    return fit(DeepModel(), batcher_of("label"), epochs=epochs, **given)


def saved(folder, **options):
    """What training with checkpoints comes to, what is restored of these, and the state that was saved."""
    with Checkpoints(folder) as checkpoints:
        result = train(checkpoints=checkpoints, **options)
        return result, restore_model(checkpoints, DeepModel(rngs=nnx.Rngs(9))), checkpoints.restore().state


@pytest.fixture(scope="module")
def whole():
    return train()


@pytest.mark.slow
def test_the_average_is_evaluated_and_given_back():
    result = train(evaluate_on=batcher_of("label", batch_size=20))
    batch = next(batcher_of("label", batch_size=20).epoch(0))
    loss, metrics = jax.jit(lambda batch: classify(result.model, batch))(batch)
    found = result.history[result.best_epoch].evaluation
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float(metrics["accuracy"]))


def test_the_average_is_saved_and_the_state_goes_on_as_it_was(tmp_path, whole):
    result, restored, state = saved(tmp_path)
    assert_same_models(restored, result.model, atol=0)
    assert_same_models(result.model, whole.model, atol=0)
    average = nnx.to_pure_dict(nnx.state(result.model, nnx.Param))
    trained = state["params"]["head"]["kernel"]
    assert np.abs(trained - average["head"]["kernel"]).max() > 1e-3


def test_a_run_that_was_stopped_ends_with_the_same_average(tmp_path, whole):
    saved(tmp_path, epochs=1)
    assert_same_models(saved(tmp_path)[0].model, whole.model)
