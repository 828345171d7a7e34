"""The default optimizer of a training."""

from __future__ import annotations

import optax

from multimodal_pad.errors import TrainingError


def make_optimizer(
    learning_rate: float = 1e-3,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    clip: float = 0.8,
    weight_decay: float = 1e-2,
) -> optax.GradientTransformation:
    """Make AdamW with linear warm-up, cosine decay and clipping by global norm (0.8 is MulT's).

    Args:
        learning_rate: the highest.
        warmup_steps: steps in which it rises from 0.
        decay_steps: the step, warm-up included, at which it has fallen to 0; by default it stays at its highest.
        clip: the largest global norm of a gradient.
        weight_decay: of AdamW; 0 is Adam.

    Raises:
        TrainingError: a rate or norm that is not above 0, or a decay that ends before the warm-up does.

    >>> optimizer = make_optimizer(2e-3, warmup_steps=100, decay_steps=2000)
    """
    if not learning_rate > 0 or warmup_steps < 0 or not clip > 0:
        raise TrainingError(
            f"got learning_rate={learning_rate}, warmup_steps={warmup_steps}, clip={clip}; learning_rate and "
            "clip must be above 0, warmup_steps at least 0"
        )
    if decay_steps is not None and decay_steps <= warmup_steps:
        raise TrainingError(
            f"got decay_steps={decay_steps} and warmup_steps={warmup_steps}; decay ends after the warm-up"
        )
    rate: optax.ScalarOrSchedule = learning_rate
    if decay_steps is not None and warmup_steps:
        rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, decay_steps)
    elif decay_steps is not None:
        rate = optax.cosine_decay_schedule(learning_rate, decay_steps)
    elif warmup_steps:
        rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay))
