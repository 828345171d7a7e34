"""Which implementation of attention runs where, and why."""

from types import SimpleNamespace

import jax
import pytest

from multimodal_pad.models import AttentionDevice, attention_choice, select_implementation
from multimodal_pad.models.attention_choice import _capability, _cudnn_version

HOPPER = AttentionDevice("cuda", (9, 0), 91002)


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "wanted"),
    [
        (AttentionDevice("cpu"), "float32", 5, "tiled"),
        (AttentionDevice("cpu"), "bfloat16", 64, "tiled"),
        (HOPPER, "bfloat16", 64, "cudnn"),
        (HOPPER, "float16", 8, "cudnn"),
        (HOPPER, "bfloat16", 256, "cudnn"),
        (AttentionDevice("cuda", (8, 0), 90800), "bfloat16", 128, "cudnn"),
        (AttentionDevice("tpu"), "bfloat16", 64, "xla"),
        (AttentionDevice("rocm"), "bfloat16", 64, "xla"),
    ],
)
def test_the_implementation_for_a_device(device, dtype, head_dim, wanted):
    assert select_implementation(dtype, head_dim, device).implementation == wanted


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "why"),
    [
        (HOPPER, "float32", 64, "bfloat16 and float16, and not float32"),
        (HOPPER, "bfloat16", 5, "a multiple of 8, and not 5"),
        (HOPPER, "bfloat16", 264, "up to 256 here, and not 264"),
        (AttentionDevice("cuda", (8, 6), 91002), "bfloat16", 136, "up to 128 here, and not 136"),
        (AttentionDevice("cuda", (10, 0), 91100), "bfloat16", 136, "up to 128 here, and not 136"),
        (AttentionDevice("cuda", (7, 5), 91002), "float16", 64, "needs compute capability 8.0, and this GPU has 7.5"),
        (AttentionDevice("cuda", (9, 0), 91000), "bfloat16", 64, "9.10.0 and 9.10.1 have faults"),
        (AttentionDevice("cuda", (9, 0), 91001), "bfloat16", 64, "9.10.0 and 9.10.1 have faults"),
        (AttentionDevice("cuda", (10, 3), 91002), "bfloat16", 64, "10.3 needs cuDNN 9.11"),
        (AttentionDevice("cuda", (9, 0), None), "bfloat16", 64, "JAX finds no cuDNN"),
    ],
)
def test_each_condition_of_cudnn_by_name(device, dtype, head_dim, why):
    choice = select_implementation(dtype, head_dim, device)
    assert choice.implementation == "xla"
    assert why in choice.reason


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("rocm 60200", AttentionDevice("rocm")), ("cuda 12090", AttentionDevice("cuda", (8, 9), 91002))],
)
def test_the_gpus_of_two_makers_are_told_apart(monkeypatch, version, wanted):
    device = SimpleNamespace(platform="gpu", compute_capability="8.9")
    monkeypatch.setattr(jax, "local_devices", lambda **_: [device])
    monkeypatch.setattr(attention_choice, "get_backend", lambda _: SimpleNamespace(platform_version=version))
    monkeypatch.setattr(attention_choice, "_cudnn_version", lambda: 91002)
    assert AttentionDevice.default() == wanted


def test_the_default_device_counts_where_there_are_several_backends():
    cpu = jax.devices("cpu")[0]
    for chosen in (cpu, "cpu"):
        with jax.default_device(chosen):
            assert AttentionDevice.default() == AttentionDevice("cpu")


def test_compute_capabilities():
    assert [_capability(text) for text in ("9.0", "10.3", "gfx942", None)] == [(9, 0), (10, 3), None, None]


def test_the_version_of_cudnn_is_known_where_jax_has_it():
    """It is read from a module of JAX that is not public: this test says when that has moved."""
    from jax._src.lib import cuda_versions

    assert (_cudnn_version() is None) == (cuda_versions is None)
