"""The measurements of steps on a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class StepMetrics(NamedTuple):
    """The measurements of a train step: scalars on the device.

    Attributes:
        loss: mean over what is real in the batch: samples or positions.
        grad_norm: global norm of the gradient, before clipping.
        samples: number of real samples, int32.
        weight: the divisor of the mean, float32: as a rule the number of real samples or positions.
        metrics: those of ``loss_fn``, means like the loss, by name.

    >>> import jax.numpy as jnp
    >>> found = StepMetrics(jnp.float32(0.5), jnp.float32(2.0), jnp.int32(32), weight=jnp.float32(32), metrics={})
    >>> f"loss {found.loss:.2f} over {found.samples} samples"  # waits for the device
    'loss 0.50 over 32 samples'
    """

    loss: jax.Array
    grad_norm: jax.Array
    samples: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]


class Evaluated(NamedTuple):
    """The result of an evaluation step, for the whole batch, wherever its rows were computed.

    Attributes:
        outputs: ``(B, K)``, or any tree of arrays whose first axes are those of ``mask``; None where a ``loss_fn`` was
            given and outputs were not asked for.
        targets: those of the batch, ``(B, ...)`` or a dict of such arrays; or those of the positions of a modality,
            padded ``(B, L, ...)``, packed ``(N, ...)``. None without outputs.
        mask: bool, of what counts: of samples ``(B,)``, or of positions ``(B, L)`` or ``(N,)``.
        loss: mean over what is real, a scalar.
        weight: the divisor of that mean; None where it is the number of True in the mask.
        metrics: those of ``loss_fn``, means like the loss, by name; None where there are none.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> outputs, mask = jnp.array([[0.2, 0.8], [0.0, 0.0]]), jnp.array([True, False])
    >>> found = Evaluated(outputs, targets=jnp.array([1, 0]), mask=mask, loss=jnp.float32(0.4))
    >>> np.asarray(found.outputs)[np.asarray(found.mask)].argmax(axis=1).tolist()
    [1]
    """

    outputs: Any
    targets: Any
    mask: jax.Array
    loss: jax.Array
    weight: jax.Array | None = None
    metrics: dict[str, jax.Array] | None = None
