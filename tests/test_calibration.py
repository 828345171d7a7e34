from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import LengthTable, PaddingError, attention_area, pad_samples, plan_shapes
from multimodal_pad.compiling import calibrate
from multimodal_pad.compiling import CompileLog, StepTable
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(200).lengths.select(("text", "audio"))
BATCH = pad_samples(
    [{"text": np.ones(3, np.int32), "audio": np.ones((2, 4), np.float32), "targets": np.int32(1)}] * 5, batch_size=8
)


def calibrated_step(state, batch):
    audio = batch.features["audio"]
    scores = jnp.einsum("btf,bsf->bts", audio, audio)
    return state + scores.sum() + batch.features["text"].sum() + batch.sample_mask.sum(), scores.max()


@pytest.mark.parametrize("donate_state", [False, True])
def test_three_shapes_are_compiled_and_timed(donate_state):
    table = StepTable(calibrated_step, donate_state=donate_state)
    with CompileLog() as log:
        run_time = calibrate(table, jnp.zeros(()), BATCH, TABLE, attention_area, epochs=3)
    assert log["calibrated_step"].backend_compiles == len(table) == 3
    assert run_time.epochs == 3
    assert run_time.compile_seconds > 0
    assert run_time.seconds_per_cost > 0
    wanted = np.quantile(TABLE.values, [0.5, 0.9, 0.99], axis=0, method="inverted_cdf")
    assert sorted(dict(shape.lengths)["audio"] for shape in table.steps) == wanted[:, 1].tolist()
    assert {shape.batch_size for shape in table.steps} == {8}
    # Compiling takes the seconds measured, so a run without end pays for many shapes, one without steps for one.
    for epochs, least, most in ((1e12, 20, 128), (0, 1, 1)):
        plan = plan_shapes(TABLE, max_shapes="auto", cost=attention_area, run_time=replace(run_time, epochs=epochs))
        assert least <= len(plan) <= most


def test_lengths_that_are_all_equal_are_one_shape():
    table = StepTable(calibrated_step)
    equal = LengthTable(("text", "audio"), np.full((9, 2), 5))
    assert calibrate(table, jnp.zeros(()), BATCH, equal, attention_area, epochs=1).seconds_per_cost > 0
    assert len(table) == 1


def test_the_slope_leaves_out_what_every_step_takes():
    costs = np.array([1.0, 5, 20])
    assert _slope(costs, 0.3 + 2 * costs) == pytest.approx(2)
    assert _slope(costs, 2 * costs) == pytest.approx(2)
    assert _slope(costs, np.array([3.0, 2, 1])) > 0, "noise does not make it negative"
    assert _slope(costs[:1], np.array([3.0])) == pytest.approx(3)


def test_bad_calibrations():
    with pytest.raises(PaddingError, match="got repeats=0"):
        calibrate(StepTable(calibrated_step), jnp.zeros(()), BATCH, TABLE, attention_area, epochs=1, repeats=0)
    with pytest.raises(PaddingError, match="got epochs=-1"):
        calibrate(StepTable(calibrated_step), jnp.zeros(()), BATCH, TABLE, attention_area, epochs=-1)
    with pytest.raises(PaddingError, match=r"a batch of \['audio', 'text'\] and lengths of \['text'\]"):
        calibrate(StepTable(calibrated_step), jnp.zeros(()), BATCH, TABLE.select(["text"]), attention_area, epochs=1)
    with pytest.raises(PaddingError, match="the cost of every shape is 0"):
        calibrate(StepTable(calibrated_step), jnp.zeros(()), BATCH, TABLE, lambda rows: np.zeros(len(rows)), epochs=1)
