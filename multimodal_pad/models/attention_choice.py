"""The choice of an implementation of attention: by rule, and with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend

from multimodal_pad.errors import PaddingError

Implementation = Literal["tiled", "cudnn", "xla"]

_BUGGY_CUDNN = (91000, 91001)  # cuDNN's own front end refuses attention on them


class AttentionDevice(NamedTuple):
    """The properties of a device that the choice of an implementation depends on.

    Attributes:
        platform: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"`` or another of JAX's.
        compute_capability: of an NVIDIA GPU, ``(9, 0)`` for Hopper; None where unknown.
        cudnn_version: 91002 for 9.10.2; None where unknown.

    >>> ampere = AttentionDevice("cuda", compute_capability=(8, 0), cudnn_version=91002)
    >>> select_implementation("bfloat16", 256, ampere).reason
    'cuDNN takes heads of a width up to 128 here, and not 256'
    """

    platform: str
    compute_capability: tuple[int, int] | None = None
    cudnn_version: int | None = None

    @classmethod
    def default(cls) -> AttentionDevice:
        """Return JAX's default device, with AMD's GPUs distinguished from NVIDIA's (JAX calls both ``gpu``).

        Within :func:`lowering_for`, the device given there.
        """
        lowered_for = _LOWERED_FOR.get()
        if lowered_for is not None:
            return lowered_for
        device: Any = jax.config.jax_default_device  # type: ignore[attr-defined]
        if device is None or isinstance(device, str):
            device = jax.local_devices(backend=device)[0]
        if device.platform != "gpu":
            return cls(device.platform)
        if "rocm" in get_backend("gpu").platform_version.lower():
            return cls("rocm")
        return cls("cuda", _capability(getattr(device, "compute_capability", None)), _cudnn_version())


_LOWERED_FOR: ContextVar[AttentionDevice | None] = ContextVar("lowered_for", default=None)


@contextmanager
def lowering_for(device: AttentionDevice) -> Iterator[None]:
    """Give all code traced in this thread, while the block runs, the attention of this device.

    Trace a separate function for each device: JAX keeps the trace of a function.

    >>> with lowering_for(AttentionDevice("tpu")):
    ...     select_implementation("float32", 64)
    AttentionChoice(implementation='xla', reason='on tpu')
    """
    token = _LOWERED_FOR.set(device)
    try:
        yield
    finally:
        _LOWERED_FOR.reset(token)


class AttentionChoice(NamedTuple):
    """An implementation, and the reason for it.

    Attributes:
        implementation: ``"tiled"``, ``"cudnn"`` or ``"xla"``.
        reason: in a few words.

    >>> select_implementation("float32", 64, AttentionDevice("tpu"))
    AttentionChoice(implementation='xla', reason='on tpu')
    """

    implementation: Implementation
    reason: str


def select_implementation(
    dtype: jnp.dtype | str, head_dim: int, device: AttentionDevice | None = None, *, packed: bool = False
) -> AttentionChoice:
    """Return the implementation of attention for a dtype and head width on a device.

    - ``tiled`` on CPU: tile after tile of real positions, so that the scores stay in the cache;
    - ``cudnn`` on an NVIDIA GPU, for bfloat16 and float16 and heads whose width is a multiple of 8, up to 128 (256 on
      Hopper), where compute capability is at least 8.0 and cuDNN has no known fault (9.10.0 and 9.10.1 have one;
      compute capability 10.3 needs 9.11). Lengths of sequences and batches don't matter, but samples must be padded:
      it can't separate those of a packed batch;
    - ``xla`` elsewhere: scores in memory, in float32.

    The conditions are those of JAX 0.10 and 0.11 and of cuDNN's front end 1.x. All implementations compute the same, up
    to rounding.

    Args:
        dtype: of query, key and value.
        head_dim: width of a head.
        device: by default JAX's default device.
        packed: whether the samples lie end to end, as in a packed batch.

    >>> device = AttentionDevice("cuda", (9, 0), 91100)
    >>> select_implementation("bfloat16", 64, device).implementation
    'cudnn'
    >>> select_implementation("bfloat16", 5, device)
    AttentionChoice(implementation='xla', reason='cuDNN takes heads whose width is a multiple of 8, and not 5')
    >>> select_implementation("bfloat16", 64, device, packed=True)
    AttentionChoice(implementation='xla', reason='cuDNN takes padded samples, and not packed ones')
    >>> select_implementation("float32", 64, AttentionDevice("cpu")).implementation
    'tiled'
    """
    device = AttentionDevice.default() if device is None else device
    if device.platform == "cpu":
        return AttentionChoice("tiled", "on CPU")
    if device.platform != "cuda":
        return AttentionChoice("xla", f"on {device.platform}")
    refused = cudnn_refuses(dtype, head_dim, device, packed=packed)
    return AttentionChoice("xla", refused) if refused else AttentionChoice("cudnn", "on an NVIDIA GPU")


def cudnn_refuses(
    dtype: jnp.dtype | str, head_dim: int, device: AttentionDevice, *, packed: bool = False
) -> str | None:
    """Return the condition of cuDNN's attention that is not met, or None; what is unknown of a device counts as met."""
    capability, version = device.compute_capability, device.cudnn_version
    widest = 256 if capability is None or capability[0] == 9 else 128
    if packed:
        return "cuDNN takes padded samples, and not packed ones"
    if jnp.dtype(dtype).name not in ("bfloat16", "float16"):
        return f"cuDNN takes bfloat16 and float16, and not {jnp.dtype(dtype).name}"
    if head_dim % 8:
        return f"cuDNN takes heads whose width is a multiple of 8, and not {head_dim}"
    if head_dim > widest:
        return f"cuDNN takes heads of a width up to {widest} here, and not {head_dim}"
    if capability is not None and capability < (8, 0):
        return f"cuDNN's attention needs compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}"
    if version in _BUGGY_CUDNN:
        return "cuDNN 9.10.0 and 9.10.1 have faults in attention; 9.10.2 has not"
    if capability == (10, 3) and version is not None and version < 91100:
        return "compute capability 10.3 needs cuDNN 9.11"
    if version is None and device.platform == "cuda" and capability is not None:
        return "JAX finds no cuDNN"
    return None


def choose_implementation(
    implementation: Implementation | None, dtype: jnp.dtype, head_dim: int, *, packed: bool = False
) -> Implementation:
    """Return the implementation asked for, or by default the one by rule.

    On a machine without a GPU, ``cudnn`` can be lowered for one; conditions of the device are then not checked.

    Raises:
        PaddingError: it is unknown, or can't serve here.
    """
    if implementation is None:
        return select_implementation(dtype, head_dim, packed=packed).implementation
    if implementation not in get_args(Implementation):
        raise PaddingError(f"got implementation={implementation!r}; choose one of {list(get_args(Implementation))}")
    if implementation != "cudnn":
        return implementation
    device = AttentionDevice.default()
    device = device if device.platform == "cuda" else AttentionDevice("cuda")
    refused = cudnn_refuses(dtype, head_dim, device, packed=packed)
    if refused:
        raise PaddingError(f"got implementation='cudnn', and {refused}; leave the choice out, or choose 'xla'")
    return implementation


def _capability(text: str | None) -> tuple[int, int] | None:
    """Return ``(9, 0)`` from ``"9.0"``."""
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor or 0)) if major.isdigit() else None


def _cudnn_version() -> int | None:
    """Return cuDNN's version from the private function of JAX's attention; None where there is none."""
    try:
        from jax._src.lib import cuda_versions
    except ImportError:
        return None
    return None if cuda_versions is None else int(cuda_versions.cudnn_get_version())
