"""What a step says that is given a state or a batch that it was not compiled for."""

from collections import OrderedDict
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import PaddingError, batches, pad_samples
from multimodal_pad.compiling import StepTable, warm_up
from multimodal_pad.errors import CompileError, StepMismatchError

SAMPLES = [{"text": np.ones((n, 2), np.float32), "targets": np.float32(n)} for n in (2, 3, 3, 2)]


def a_state(dtype=jnp.float32):
    return {"params": {"head": {"kernel": jnp.zeros(3, dtype)}}, "step": jnp.zeros((), jnp.int32)}


def a_batch(**fields):
    return pad_samples(SAMPLES[:2])._replace(**fields)


def kept(state, _):
    return state


def widened(state, batch):
    """A next state whose kernel is float32, whatever it was, and a loss."""
    kernel = state["params"]["head"]["kernel"].astype(jnp.float32) + batch.features["text"].sum()
    return {**state, "params": {"head": {"kernel": kernel}}}, kernel.sum()


def test_a_state_that_comes_back_otherwise_is_named_at_the_second_step():
    batcher = batches(SAMPLES, max_shapes=1, batch_size=2)
    table = warm_up(widened, batcher, a_state(jnp.bfloat16), progress=False)
    first, second = batcher
    state, _ = table(a_state(jnp.bfloat16), first)
    with pytest.raises(
        StepMismatchError,
        match=r"'widened', compiled for 2 x .*: state\['params'\]\['head'\]\['kernel'\] comes back from the step as "
        r"float32\[3\] and goes in as bfloat16\[3\]; let the step give the state back",
    ) as caught:
        table(state, second)
    assert isinstance(caught.value, PaddingError | CompileError)
    assert isinstance(caught.value, TypeError)
    assert "step']" not in str(caught.value), "what is as it was is not named"


def test_the_result_itself_may_be_the_next_state():
    table = StepTable(
        lambda state, batch: {"sum": state["sum"] + batch.lengths["text"].sum().astype(jnp.int32), "n": 1}
    )
    with pytest.raises(
        PaddingError, match=r"state\['n'\] comes back from the step and is int32\[\], and was not there"
    ):
        table(table({"sum": jnp.zeros((), jnp.int32)}, a_batch()), a_batch())


class Pair(NamedTuple):
    model: dict
    count: np.ndarray


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (a_state(jnp.float16), r"\['head'\]\['kernel'\] goes in as float16\[3\] and was compiled as float32\[3\]"),
        ({"params": {}, "step": np.int32(0)}, r"state\['params'\]\['head'\]\['kernel'\] is missing"),
        ({**a_state(), "more": np.ones(2)}, r"state\['more'\] is float32\[2\], and was not there"),
        (OrderedDict(a_state()), r"state has the same leaves in another structure"),
        (Pair({}, np.int32(0)), r"state\['step'\] is missing.*state\.count is int32\[\]"),
    ],
)  # fmt: skip
def test_the_leaf_of_the_state_is_named(state, message):
    table = StepTable(lambda state, batch: state["params"]["head"]["kernel"].sum() + batch.features["text"].sum())
    table(a_state(), a_batch())
    with pytest.raises(StepMismatchError, match=message) as caught:
        table(state, a_batch())
    assert "comes back" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": None}, r"batch\.targets is missing, and was compiled as float32\[2\]"),
        ({"ids": np.zeros(2, np.int32)}, r"batch\.ids is int32\[2\], and was not there"),
        ({"targets": np.zeros((2, 7), np.float32)}, r"batch\.targets goes in as float32\[2,7\]"),
        ({"features": {"text": np.ones((2, 3, 2), np.int32)}}, r"batch\.features\['text'\] goes in as int32\[2,3,2\]"),
    ],
)
def test_the_array_of_the_batch_is_named(fields, message):
    table = StepTable(lambda state, batch: state + batch.features["text"].sum())
    table(jnp.zeros(()), a_batch())
    with pytest.raises(StepMismatchError, match=message) as caught:
        table(jnp.zeros(()), a_batch(**fields))
    assert "features" in message or "features" not in str(caught.value)


def test_many_leaves_are_counted():
    table = StepTable(kept)
    table({str(n): np.zeros(1, np.float32) for n in range(9)}, a_batch())
    with pytest.raises(StepMismatchError, match=r"state\['4'\] goes in.*; and 4 more; warm up with"):
        table({str(n): np.zeros(1, np.int32) for n in range(9)}, a_batch())


def test_what_is_alike_goes_in_weakly_typed_or_wide():
    table = StepTable(lambda state, batch: state + batch.targets.sum())
    table(jnp.zeros(()), a_batch())
    assert float(table(jnp.asarray(1.0), a_batch(targets=np.array([2.0, 3.0])))) == 6


def test_what_a_step_fails_by_otherwise_is_left_as_it_is():
    table = StepTable(kept)
    table(jnp.zeros(()), a_batch())

    def failing(*_):
        raise TypeError("of another kind")

    (shape, step), = table.steps.items()  # fmt: skip
    step = type(step)(type("Failing", (), {"__call__": staticmethod(failing), **vars_of(step.call)})(), 0.0, None)
    table.steps[shape] = step
    with pytest.raises(TypeError, match="of another kind"):
        table(jnp.zeros(()), a_batch())


def vars_of(compiled):
    return {"args_info": compiled.args_info, "out_info": compiled.out_info}


def test_a_python_number_in_a_state_is_named():
    with pytest.raises(PaddingError, match=r"got float 0\.1 at state\['rates'\]\[1\]; give arrays"):
        StepTable(kept)({"rates": [jnp.zeros(()), 0.1]}, a_batch())
