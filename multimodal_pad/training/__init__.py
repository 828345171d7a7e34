"""Loss, metrics, train step and loop (JAX, Flax, optax).

Checkpoints are in :mod:`multimodal_pad.training.checkpoint`, and models from them in
:mod:`multimodal_pad.training.saved_model`, which import Orbax.
"""

from multimodal_pad.training.evaluation import evaluate
from multimodal_pad.training.history import EpochRecord, History
from multimodal_pad.training.loop import FitResult, fit
from multimodal_pad.training.loss import binary_cross_entropy, cross_entropy, l1
from multimodal_pad.training.measured import Evaluated, StepMetrics
from multimodal_pad.training.mesh import DataMesh
from multimodal_pad.training.metrics import (
    classification_metrics,
    emotion_metrics,
    multilabel_metrics,
    regression_metrics,
    sentiment_metrics,
    sims_metrics,
)
from multimodal_pad.training.optimizer import make_optimizer
from multimodal_pad.training.state import TrainState
from multimodal_pad.training.step import TrainStep
from multimodal_pad.training.stopping import Stopped

__all__ = [
    "DataMesh",
    "EpochRecord",
    "Evaluated",
    "FitResult",
    "History",
    "StepMetrics",
    "Stopped",
    "TrainState",
    "TrainStep",
    "binary_cross_entropy",
    "classification_metrics",
    "cross_entropy",
    "emotion_metrics",
    "evaluate",
    "fit",
    "l1",
    "make_optimizer",
    "multilabel_metrics",
    "regression_metrics",
    "sentiment_metrics",
    "sims_metrics",
]
