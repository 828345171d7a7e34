"""A trained model for requests: one, many, or one by one; saved, loaded, exported (JAX)."""

from multimodal_pad.serving.predictor import Predictor, load_exported
from multimodal_pad.serving.server import Server
from multimodal_pad.serving.stats import PredictionStats, ServerStats

__all__ = ["PredictionStats", "Predictor", "Server", "ServerStats", "load_exported"]
