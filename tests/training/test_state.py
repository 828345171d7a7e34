"""The train state: names, numbers, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad.compiling import CompileLog, StepTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer
from tests.helpers.training import MeanModel, make_batcher


class Layered(MeanModel):
    """Parameters in a list, a stream of keys, and statistics."""

    def __init__(self, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        super().__init__(rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, batch):
        x = super().__call__(batch)
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))


def test_names_are_those_of_the_attributes():
    state = TrainStep(Layered(), optax.adam(0.1), cross_entropy).state
    linear = {"bias": (2,), "kernel": (2, 2)}
    assert jax.tree.map(jnp.shape, state.params) == {
        "head": {"bias": (2,), "kernel": (3, 2)},
        "layers": {0: linear, 1: linear},
        "norm": {"bias": (2,), "scale": (2,)},
    }
    assert jax.tree.map(jnp.shape, state.rest) == {
        "norm": {"mean": (2,), "var": (2,)},
        "dropout": {"rngs": {"count": (), "key": (2,)}},
    }
    assert jax.tree.structure(state.opt_state[0].mu) == jax.tree.structure(state.params)
    assert int(state.step) == 0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [make_optimizer(), optax.add_noise(0.1, 0.5, jax.random.key(1))])
def test_the_state_is_of_numbers_which_a_step_keeps(optimizer):
    step = TrainStep(Layered(), optimizer, cross_entropy)
    state, table = step.state, StepTable(step.train_step)
    for batch in make_batcher().epoch(0):
        new, _ = table(state, batch)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        for one, other in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
            assert isinstance(one, jax.Array)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert jnp.issubdtype(one.dtype, jnp.number)
        state = new
    assert int(state.step) == int(state.rest["dropout"]["rngs"]["count"]) == len(make_batcher().schedule(0))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_any_generator_come_back_as_they_were(impl):
    model = Layered(nnx.Rngs(jax.random.key(3, impl=impl)))
    step = TrainStep(model, optax.sgd(0.1), cross_entropy)
    key, wanted = step.model(step.state).dropout.rngs.key[...], model.dropout.rngs.key[...]
    assert jax.random.key_impl(key) == jax.random.key_impl(wanted)
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(wanted))


def test_one_program_makes_the_state_and_none_the_model():
    model = Layered()
    jax.clear_caches()
    with CompileLog() as log:
        step = TrainStep(model, make_optimizer(), cross_entropy)
        step.model(step.state)
    assert log.total.backend_compiles == 1


def test_what_an_optimizer_makes_of_the_parameters_may_be_the_parameters():
    """Each array of a donated state has a buffer of its own."""
    same = optax.GradientTransformation(
        lambda params: (params, params), lambda updates, state, _=None: (updates, state)
    )
    step = TrainStep(MeanModel(), same, cross_entropy)
    table, state = StepTable(step.train_step, donate_state=True), step.state
    for batch in make_batcher().epoch(0):
        state, _ = table(state, batch)
    np.testing.assert_array_equal(state.opt_state[0]["head"]["kernel"], MeanModel().head.kernel[...])


def test_the_model_is_copied():
    model = MeanModel()
    step = TrainStep(model, optax.sgd(0.1), cross_entropy)
    made = step.model(step.state)
    StepTable(step.train_step, donate_state=True)(step.state, next(make_batcher().epoch(0)))
    np.testing.assert_array_equal(made.head.kernel[...], model.head.kernel[...])


class Keeping(MeanModel):
    def __call__(self, batch):
        self.outputs = nnx.Variable(super().__call__(batch))
        return self.outputs[...]


class Widening(MeanModel):
    def __init__(self):
        super().__init__()
        self.seen = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, batch):
        self.seen.set_value(self.seen[...] + 0.5)
        return super().__call__(batch)


def forgetting():
    return optax.GradientTransformation(
        lambda _: {"count": jnp.zeros((), jnp.int32)},
        lambda updates, state, _=None: (updates, {"count": state["count"] / 2}),
    )


@pytest.mark.parametrize(
    ("model", "optimizer", "message"),
    [
        (Keeping, optax.sgd(0.1), r"a step gives float32\[6, 2\] at state\['rest'\]\['outputs'\].* and takes nothing"),
        (Widening, optax.sgd(0.1), r"gives float32\[\] at state\['rest'\]\['seen'\] and takes int32\[\]; make every"),
        (MeanModel, forgetting(), r"gives float32\[\] at state\['opt_state'\]\['count'\] and takes int32\[\]"),
    ],
)
def test_a_step_that_changes_what_it_takes_is_refused(model, optimizer, message):
    step = TrainStep(model(), optimizer, cross_entropy)
    with pytest.raises(TrainingError, match=message):
        StepTable(step.train_step)(step.state, next(make_batcher().epoch(0)))


def test_a_model_without_parameters_is_refused():
    class Constant(nnx.Module):
        def __call__(self, batch):
            return jnp.zeros((len(batch.sample_mask), 2))

    with pytest.raises(TrainingError, match=r"got a Constant without parameters; make them nnx\.Param"):
        TrainStep(Constant(), optax.sgd(0.1), cross_entropy)
