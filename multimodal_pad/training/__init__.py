"""Loss, metrics, train step and loop (JAX, Flax, optax)."""

from multimodal_pad.training.loop import EpochRecord, FitResult, evaluate, fit, make_optimizer
from multimodal_pad.training.loss import cross_entropy, l1
from multimodal_pad.training.metrics import classification_metrics, regression_metrics
from multimodal_pad.training.step import StepMetrics, TrainStep

__all__ = [
    "EpochRecord",
    "FitResult",
    "StepMetrics",
    "TrainStep",
    "classification_metrics",
    "cross_entropy",
    "evaluate",
    "fit",
    "l1",
    "make_optimizer",
    "regression_metrics",
]
