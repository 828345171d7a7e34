"""Models of other libraries: an error says what they are, and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, fit
from tests.helpers.training import MeanModel, make_batcher, mean_of


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, batch):
        return linen.Dense(2)(linen.relu(linen.Dense(4)(mean_of(batch))))


def refused(model, message):
    for make in (
        lambda: TrainStep(model, optax.sgd(0.1)),
        lambda: fit(model, make_batcher(), epochs=1, progress=False),
    ):
        with pytest.raises(TrainingError, match=message + r".*for the model, which is to be an nnx\.Module; "):
            make()


def function(params, batch):
    return params["kernel"] * batch.sample_mask


def test_models_that_are_not_of_nnx_are_named():
    refused(function, "got the function function")
    refused(LinenModel(), "got the Linen module LinenModel")
    refused(MeanModel, "got the class MeanModel")
    refused({"kernel": np.zeros(3)}, "got an object of type dict")
    with pytest.raises(
        TrainingError, match=r"the page 'Loops of your own' of the documentation has a loop of 20 lines"
    ):
        TrainStep(function, optax.sgd(0.1))


def test_a_linen_module_trains_as_the_error_says():
    with pytest.raises(
        TrainingError, match=r"nnx\.bridge\.ToNNX\(module, rngs=nnx\.Rngs\(0\)\)\.lazy_init\(batch\) make"
    ):
        TrainStep(LinenModel(), optax.sgd(0.1))
    batcher = make_batcher()
    batch = next(batcher.epoch(0))
    model = nnx.bridge.ToNNX(LinenModel(), rngs=nnx.Rngs(0)).lazy_init(batch)
    result = fit(model, batcher, epochs=2, optimizer=optax.adam(0.05), progress=False)
    assert result.history[1].train_loss < result.history[0].train_loss
    assert (result.model.Dense_0["kernel"][...] != model.Dense_0["kernel"][...]).any()


def test_an_equinox_module_is_named():
    equinox = pytest.importorskip("equinox")
    refused(equinox.nn.Linear(3, 2, key=jax.random.key(0)), "got the Equinox module Linear")


def test_a_torch_module_is_named():
    """A stand-in, since importing PyTorch takes seconds."""
    kind = type("Linear", (), {"__module__": "torch.nn.modules.linear"})
    refused(kind(), "got the PyTorch module Linear")
    with pytest.raises(TrainingError, match=r"loop of PyTorch's own, which takes the arrays by torch\.from_numpy"):
        TrainStep(kind(), optax.sgd(0.1))


def test_a_module_without_parameters():
    class Empty(nnx.Module):
        def __call__(self, batch):
            return jnp.zeros((len(batch.sample_mask), 2))

    with pytest.raises(TrainingError, match="got a Empty without parameters"):
        TrainStep(Empty(), optax.sgd(0.1))
