"""The parameters of a new model: drawn at once, on the host, whatever their number.

Each call of a JAX initializer is a program of its own, which takes longer to compile than to run. Here the parts of a
model declare their parameters, and the outermost part draws them as one vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from multimodal_pad.models.threefry import fold_in, random_bits


@dataclass(frozen=True)
class _Drawn:
    """A placeholder of a parameter until its values are drawn."""

    shape: tuple[int, ...]
    deviation: float


class Draws:
    """A stand-in for ``nnx.Rngs`` while the parts of a model are made: it notes what is to be drawn.

    Args:
        stack: axes before those of each parameter, as for the layers of an encoder.
    """

    def __init__(self, stack: tuple[int, ...] = ()) -> None:
        self.stack = stack

    def params(self) -> Draws:
        """Return the stand-in that initializers get for a key."""
        return self


def lecun_normal(draws: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Initialise a kernel ``(inputs, outputs)``: normal of variance 1 / inputs (LeCun et al. 1998, section 4.6)."""
    del dtype
    return _Drawn((*draws.stack, *shape), float(shape[-2]) ** -0.5)


def embedding_normal(draws: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Initialise a table ``(tokens, width)``: normal of variance 1 / width."""
    del dtype
    return _Drawn((*draws.stack, *shape), float(shape[-1]) ** -0.5)


def zeros(draws: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Return zeros in float32."""
    del dtype
    return np.zeros((*draws.stack, *shape), np.float32)


def ones(draws: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Return ones in float32."""
    del dtype
    return np.ones((*draws.stack, *shape), np.float32)


def stacked(rngs: nnx.Rngs, count: int) -> nnx.Rngs:
    """Stack so many parts' parameters in one, along a first axis; ``rngs`` is that of :func:`drawn_at_once`."""
    return cast(nnx.Rngs, Draws((*cast(Draws, rngs).stack, count)))


@contextmanager
def drawn_at_once(module: nnx.Module, rngs: nnx.Rngs) -> Iterator[nnx.Rngs]:
    """Yield the ``rngs`` to make the parts of ``module`` with; their parameters have values when the block ends.

    Blocks nest: the outermost draws. The values follow from the stream ``params`` of ``rngs`` and from the shapes of
    the parameters in the order of their paths, and are the same inside and outside of ``jax.jit``, to rounding. They
    lie on JAX's default device.
    """
    if isinstance(rngs, Draws):
        yield rngs
        return
    yield cast(nnx.Rngs, Draws())
    parameters = [x for _, x in nnx.iter_graph(module) if isinstance(x, nnx.Param)]
    wanted = [x.get_raw_value() for x in parameters]
    drawn = [x for x in wanted if isinstance(x, _Drawn)]
    sizes = [int(np.prod(x.shape)) for x in drawn]
    vector = _draw(rngs.params, sum(sizes))
    pieces = iter(zip(drawn, np.cumsum([0, *sizes]).tolist(), sizes, strict=False))
    values = []
    for value in wanted:
        if isinstance(value, _Drawn):
            x, start, size = next(pieces)
            values.append(vector[start : start + size].reshape(x.shape) * np.float32(x.deviation))
        else:
            values.append(value)
    for parameter, value in zip(parameters, jax.device_put(values), strict=True):
        parameter.set_raw_value(value)


def forked(stream: nnx.RngStream) -> nnx.RngStream:
    """Do what ``stream.fork()`` does, without a program where JAX's generator is its default one."""
    key, count = stream.key.get_raw_value(), stream.count.get_raw_value()
    words = None if isinstance(key, Tracer) or isinstance(count, Tracer) else fold_in(key, count)
    if words is None:
        return stream.fork()
    stream.count.set_raw_value(jax.device_put(np.asarray(count) + np.uint32(1)))
    fork = nnx.clone(stream)  # a new RngStream would compile its zero
    fork.key.set_raw_value(jax.random.wrap_key_data(jax.device_put(words)))
    fork.count.set_raw_value(jax.device_put(np.zeros((), np.uint32)))
    return fork


def _draw(stream: nnx.RngStream, size: int) -> Any:
    """Return unit normals ``(size,)``: a NumPy array, or a tracer where the key is one."""
    key, count = stream.key.get_raw_value(), stream.count.get_raw_value()
    even = size + size % 2
    if isinstance(key, Tracer) or isinstance(count, Tracer):
        normals = _normals(jnp, jax.random.bits(jax.random.fold_in(key, count), (even,)))
        count = count + 1
    else:
        normals = _normals(np, random_bits(key, count, even))
        count = jax.device_put(np.asarray(count) + np.uint32(1))
    # Counted here, since `stream()` would compile one program to fold the count in, and one to add.
    stream.count.set_raw_value(count)
    return normals[:size]


def _normals(xp: Any, bits: Any) -> Any:
    """Return normals of random bits, both ``(n,)`` of an even n (Box and Muller 1958), with NumPy or ``jax.numpy``."""
    first, second = xp.split((bits >> 8).astype(np.float32) * np.float32(2**-24), 2)
    radius, angle = xp.sqrt(-2 * xp.log1p(-first)), np.float32(2 * np.pi) * second
    drawn = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])
    # Without it XLA would draw anew for each parameter that is cut out of the vector.
    return drawn if xp is np else jax.lax.optimization_barrier(drawn)
