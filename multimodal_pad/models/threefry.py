"""JAX's default random bits, on the host: a few numbers need no program, which takes longer to compile than to run."""

from __future__ import annotations

import jax
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)

MOST = 1 << 22
"""Up to so many numbers, NumPy takes less time than compiling a program."""


def random_bits(key: jax.Array, count: jax.Array, size: int) -> np.ndarray:
    """Return ``jax.random.bits(jax.random.fold_in(key, count), (size,))``, uint32, as a NumPy array.

    NumPy makes them where that is faster and JAX's generator is its default one, and a program of JAX's elsewhere.

    >>> random_bits(jax.random.key(0), jax.numpy.uint32(1), 2).tolist()
    [31327077, 89727312]
    """
    folded = fold_in(key, count) if jax.config.jax_threefry_partitionable and size <= MOST else None  # type: ignore[attr-defined]
    if folded is None:
        return np.asarray(jax.jit(_bits, static_argnums=2)(key, count, size))
    high, low = _threefry(folded, np.zeros(size, np.uint32), np.arange(size, dtype=np.uint32))
    return high ^ low


def fold_in(key: jax.Array, count: jax.Array) -> np.ndarray | None:
    """Compute the data of ``jax.random.fold_in(key, count)``, uint32 ``(2,)``, as a NumPy array.

    Returns:
        None for several keys, or a generator that is not JAX's default one.

    >>> fold_in(jax.random.key(0), jax.numpy.uint32(1)).tolist()
    [928981903, 3453687069]
    """
    if jax.random.key_impl(key) != "threefry2x32" or key.shape:
        return None
    words = np.asarray(jax.random.key_data(key))
    return np.concatenate(_threefry(words, np.zeros(1, np.uint32), np.asarray(count, np.uint32).reshape(1)))


def _bits(key: jax.Array, count: jax.Array, size: int) -> jax.Array:
    return jax.random.bits(jax.random.fold_in(key, count), (size,))


def _threefry(key: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run 20 rounds of Threefry-2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    high, low = high + keys[0], low + keys[1]
    for number in range(5):
        for rotation in _ROTATIONS[number % 2]:
            high += low
            low = (low << np.uint32(rotation)) | (low >> np.uint32(32 - rotation))
            low ^= high
        high += keys[(number + 1) % 3]
        low += keys[(number + 2) % 3] + np.uint32(number + 1)
    return high, low
