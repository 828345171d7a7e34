"""Whatever model, loss, targets and optimizer: ``fit`` does what the loop of Flax's documentation does."""

import jax
import pytest
from flax import nnx

from multimodal_pad.training import fit
from tests.helpers.models import assert_same_models
from tests.helpers.own_losses import KINDS, batcher_of, plain_loop

EPOCHS = 3


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_trains_to_the_weights_of_a_plain_loop(name):
    kind = KINDS[name]
    batcher = batcher_of(kind.data, kind.layout)
    given = {"progress": False, "strict": True, "optimizer": kind.optimizer, **kind.options}
    if name.startswith("tags of positions"):
        assert "loss_fn" not in given, "cross entropy of the only targets there are is what is taken by default"
    result = fit(kind.model(nnx.Rngs(0)), batcher, epochs=EPOCHS, **given)
    model, optimizer, steps = plain_loop(kind, EPOCHS)
    if "eval_params" in kind.options:
        trained = nnx.state(model, nnx.Param)
        averaged = kind.options["eval_params"](nnx.as_pure(optimizer.opt_state), nnx.as_pure(trained))
        assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), averaged, nnx.as_pure(trained))))
        nnx.update(model, averaged)
    assert_same_models(result.model, model)
    assert steps[0][0] > steps[-1][0]
    start = kind.model(nnx.Rngs(0))
    assert (result.model.encoder.kernel[...] != start.encoder.kernel[...]).any()
