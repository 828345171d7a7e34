"""Buffers of batches, where JAX takes them without a copy."""

from __future__ import annotations

import math

import numpy as np

_ALIGNMENT = 64  # bytes: what the CPU backend of JAX asks for to take a NumPy buffer without a copy


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised C-contiguous array that starts on a 64-byte boundary.

    On the CPU backend ``jax.device_put`` takes such an array without a copy, whatever
    ``may_alias`` says; for that reason no buffer is ever used for a second batch.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
