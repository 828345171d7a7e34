"""Training on packed batches: one program for an epoch, and one for its evaluation; resumed as any other run."""

import numpy as np
import pytest
from flax import nnx

from multimodal_pad import BucketBatcher, LengthTable, Packed, plan_packing
from multimodal_pad.compiling import CompileLog
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints

RNG = np.random.default_rng(0)
LENGTHS = np.stack([RNG.integers(0, 9, 60), RNG.integers(0, 20, 60)], axis=1)
SAMPLES = [
    {
        "text": RNG.integers(1, 5, text).astype(np.int32) + 5 * (i % 2),
        "audio": RNG.standard_normal((audio, 3)).astype(np.float32),
        "targets": np.int32(i % 2),
    }
    for i, (text, audio) in enumerate(LENGTHS.tolist())
]
MODALITIES = {"text": ModalityConfig(vocabulary_size=11), "audio": ModalityConfig(feature_width=3, kernel_size=3)}


def make_model():
    config = TransformerConfig(MODALITIES, 2, d_model=8, num_heads=2, crossmodal_layers=1, memory_layers=1)
    return MultimodalTransformer(config, rngs=nnx.Rngs(0))


def make_batcher():
    table = LengthTable(("text", "audio"), LENGTHS)
    return BucketBatcher(SAMPLES, Packed(plan_packing(table, batch_size=8)))


def train(epochs, **options):
    return fit(
        make_model(),
        make_batcher(),
        epochs=epochs,
        optimizer=make_optimizer(0.02),
        evaluate_on=make_batcher(),
        progress=False,
        **options,
    )


def test_one_program_to_train_and_one_to_evaluate():
    with CompileLog() as log:
        result = train(3)
    assert log["train_step"].backend_compiles == 1
    assert log["eval_step"].backend_compiles == 1
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < losses[0]
    assert result.history[-1].evaluation["accuracy"] > 0.8


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = train(2)
    train(1, checkpoints=Checkpoints(tmp_path))
    resumed = train(2, checkpoints=Checkpoints(tmp_path))
    assert [record.train_loss for record in resumed.history[-1:]] == [
        pytest.approx(whole.history[-1].train_loss, abs=1e-6)
    ]
