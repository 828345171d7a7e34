"""Planned batch shapes for multimodal sequences: the data side, which is NumPy only.

The model side (``multimodal_pad.compiling``, ``.models``, ``.training``) imports JAX and is never
imported from here.
"""

from multimodal_pad.batcher import BucketBatcher
from multimodal_pad.cost import TransformerCost
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths import LengthTable
from multimodal_pad.padding import BatchShape, PaddedBatch, pad_samples, unpad
from multimodal_pad.policies import Exact, Fixed, Ladder, Policy
from multimodal_pad.schedule import Schedule, make_schedule
from multimodal_pad.stats import PaddingStats

__version__ = "0.1.0"

__all__ = [
    "BatchShape",
    "BucketBatcher",
    "Exact",
    "Fixed",
    "Ladder",
    "LengthTable",
    "PaddedBatch",
    "PaddingError",
    "PaddingStats",
    "Policy",
    "Schedule",
    "TransformerCost",
    "make_schedule",
    "pad_samples",
    "unpad",
]
