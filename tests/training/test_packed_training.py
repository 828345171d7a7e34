"""Training on packed batches: one program for an epoch, and one for its evaluation; resumed as any other run."""

import numpy as np
import optax
import pytest

from multimodal_pad import BucketBatcher, Packed, PaddingError, StreamBatcher, plan_packing
from multimodal_pad.compiling import CompileLog, forbid_compiles, warm_up
from multimodal_pad.training import TrainStep, cross_entropy, fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.packed import SAMPLES, TABLE, make_model
from tests.helpers.training import MeanModel


def make_policy(**options):
    return Packed(plan_packing(TABLE, batch_size=8, **options))


def make_batcher(**options):
    return BucketBatcher(SAMPLES, make_policy(**options))


def train(epochs, **options):
    return fit(
        make_model(dropout_rate=0.1),
        make_batcher(),
        epochs=epochs,
        optimizer=make_optimizer(0.02),
        evaluate_on=make_batcher(),
        progress=False,
        **options,
    )


@pytest.mark.slow
def test_one_program_to_train_and_one_to_evaluate():
    with CompileLog() as log:
        result = train(3)
    assert log["train_step"].backend_compiles == 1
    assert log["eval_step"].backend_compiles == 1
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < losses[0]
    assert result.history[-1].evaluation["accuracy"] > 0.8


@pytest.mark.slow
def test_a_stream_trains_in_the_program_that_it_was_warmed_up_for():
    batcher = StreamBatcher(SAMPLES, make_policy(), buffer=24)
    step = TrainStep(make_model(), make_optimizer(0.02), cross_entropy)
    table, state, losses = warm_up(step.train_step, batcher, step.state, progress=False), step.state, []
    assert len(table) == 1
    with forbid_compiles():
        for _ in range(3):
            for batch in batcher:
                state, metrics = table(state, batch)
                losses.append(metrics.loss)
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_a_batch_for_several_devices_is_no_batch_for_one():
    """Also of a model that doesn't look: it would take padding for samples, and samples for others."""
    batcher = make_batcher(shares=2).shard(0, 1, devices=2)
    step = TrainStep(MeanModel(), optax.sgd(0.1), cross_entropy)
    for function in (step.train_step, step.eval_step):
        with pytest.raises(PaddingError, match="got a packed batch in 2 shares, one for each of as many devices; run"):
            function(step.state, next(batcher.epoch(0)))


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = train(2)
    train(1, checkpoints=Checkpoints(tmp_path))
    resumed = train(2, checkpoints=Checkpoints(tmp_path))
    assert [record.train_loss for record in resumed.history[-1:]] == [
        pytest.approx(whole.history[-1].train_loss, abs=1e-6)
    ]
