"""The device: what it is, and how fast it multiplies large matrices."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.accelerator.budget import Clock
from experiments.accelerator.config import Config
from experiments.accelerator.record import Record
from experiments.lib.provenance import provenance
from experiments.lib.timing import time_calls

SMALLEST = 1024
LONGEST_PRODUCT = 0.2
"""Longest seconds of a product after which a larger one is tried."""


def measure(_name: str, config: Config, record: Record, clock: Clock, _cache_dir: Path) -> None:
    """Measure FLOP/s of products in bfloat16 and in float32 at JAX's default precision, and name the device."""
    stats = jax.devices()[0].memory_stats() or {}
    record.keep(**provenance("experiments.accelerator", list(config.arguments)), bytes_limit=stats.get("bytes_limit"))
    products = []
    for dtype in ("bfloat16", "float32"):
        products.append({"dtype": dtype, "sizes": [], "flops_per_second": []})
        size = min(SMALLEST, config.product_size)
        while size <= config.product_size and not (clock.over() and products[-1]["sizes"]):
            seconds = float(np.median(product_seconds(size, dtype, clock.left() / 8)))
            products[-1]["sizes"].append(size)
            products[-1]["flops_per_second"].append(2 * size**3 / seconds)
            record.keep(products=products)
            if seconds > LONGEST_PRODUCT:
                break
            size *= 4 if size < 4096 else 2


def product_seconds(size: int, dtype: str, seconds: float) -> list[float]:
    """Time a product of two ``(size, size)`` matrices of normal variates, in seconds, round by round.

    >>> len(product_seconds(8, "float32", 1.0)) > 0
    True
    """
    one, other = (jax.random.normal(jax.random.key(seed), (size, size), jnp.dtype(dtype)) for seed in (0, 1))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(one, other))
    return time_calls(lambda: multiply(one, other), jax.block_until_ready, seconds=seconds)
