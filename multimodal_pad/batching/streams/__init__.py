"""Batches from streams: iterables of samples of unknown length (NumPy only)."""

from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.batching.streams.options import StreamOptions
from multimodal_pad.batching.streams.staleness import PlanReport

__all__ = ["PlanReport", "StreamBatcher", "StreamOptions"]
