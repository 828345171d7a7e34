"""The train step lowers for GPU and TPU on a machine that has neither."""

import jax
import jax._src.cudnn.fused_attention_stablehlo as cudnn
import jax.export
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import pack_samples, pad_samples
from multimodal_pad.models import (
    AttentionDevice,
    ModalityConfig,
    MultimodalTransformer,
    TransformerConfig,
    select_implementation,
)
from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer
from tests.helpers.packed import with_pairs

D_MODEL, NUM_HEADS = 16, 2  # a head of 8, which cuDNN takes


SAMPLES = [{"text": np.ones(1, np.int32), "audio": np.ones((1, 4), np.float32), "targets": np.int32(0)}] * 4


def lowered_for(device, batch, *, packed=False):
    """The text of the train step for a device, with the attention meant for it."""
    implementation = select_implementation("bfloat16", D_MODEL // NUM_HEADS, device, packed=packed).implementation
    config = TransformerConfig(
        {"text": ModalityConfig(vocabulary_size=20), "audio": ModalityConfig(feature_width=4, kernel_size=3)},
        num_outputs=3,
        d_model=D_MODEL,
        num_heads=NUM_HEADS,
        crossmodal_layers=3,
        dtype="bfloat16",
        attention=implementation,
    )
    step = TrainStep(MultimodalTransformer(config, rngs=nnx.Rngs(0)), make_optimizer(), cross_entropy)
    checks = [
        jax.export.DisabledSafetyCheck.custom_call(name)
        for name in ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
    ]
    exported = jax.export.export(jax.jit(step.train_step), platforms=[device.platform], disabled_checks=checks)(
        step.state, batch
    )
    assert exported.platforms == (device.platform,)
    return implementation, exported.mlir_module()


EVEN, ODD, ONES = ({"text": 8, "audio": 16}, {"text": 18, "audio": 49}, {"text": 1, "audio": 1})


@pytest.mark.slow
def test_for_tpu():
    implementation, text = lowered_for(AttentionDevice("tpu"), pad_samples(SAMPLES, pad_to=ODD))
    assert implementation == "xla"
    assert "cudnn" not in text


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [EVEN, ODD, ONES], ids=str)
def test_for_cuda(monkeypatch, lengths):
    # cuDNN's version is asked of the driver while tracing; a machine without one has none to tell.
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    implementation, text = lowered_for(AttentionDevice("cuda", (9, 0), 91100), pad_samples(SAMPLES, pad_to=lengths))
    assert implementation == "cudnn"
    assert "__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text


@pytest.mark.slow
@pytest.mark.parametrize("device", [AttentionDevice("tpu"), AttentionDevice("cuda", (9, 0), 91100)], ids=str)
def test_packed_batches_with_pairs_of_tiles(device):
    capacity = {"text": 200, "audio": 700}
    batch = pack_samples(SAMPLES, capacity=capacity, layout=with_pairs(SAMPLES, capacity))
    implementation, text = lowered_for(device, batch, packed=True)
    assert implementation == "xla"
    assert "cudnn" not in text
    for count, others in ((200, 700), (700, 700), (700, 200)):
        assert f"{count}x{others}x" not in text, "no scores of all queries and keys"
    assert "x64x64x" in text
