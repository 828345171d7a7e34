"""Planned batch shapes for multimodal sequences: the data side, which is NumPy only.

The model side (``multimodal_pad.compiling``, ``.models``, ``.training``) imports JAX and is never
imported from here.
"""

from multimodal_pad import signals  # noqa: F401  first: a command that still starts can be stopped
from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.batching.collating import Collator
from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.batching.one_line import batches
from multimodal_pad.batching.streams import StreamBatcher
from multimodal_pad.errors import PaddingError, PlanWarning
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec
from multimodal_pad.layouts.packed import PackedBatch, pack_samples, unpack
from multimodal_pad.layouts.padded import PaddedBatch, pad_samples, unpad
from multimodal_pad.lengths.cost import BatchBudget, TransformerCost, attention_area, position_count
from multimodal_pad.lengths.named import named_samples
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.packed import Packed
from multimodal_pad.planning.packing import plan_packing
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.planned import Planned
from multimodal_pad.planning.planner import plan_shapes
from multimodal_pad.planning.run_time import RunTime
from multimodal_pad.scheduling.policies import Exact, Fixed, Ladder
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.scheduling.schedule import Schedule, make_schedule
from multimodal_pad.scheduling.steps import Steps

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "BatchBudget",
    "BatchShape",
    "BatchSpec",
    "BucketBatcher",
    "Collator",
    "Exact",
    "Fixed",
    "Ladder",
    "LengthTable",
    "Packed",
    "PackedBatch",
    "PackingPlan",
    "PaddedBatch",
    "PaddingError",
    "PaddingStats",
    "PlanWarning",
    "Planned",
    "Policy",
    "RunTime",
    "Schedule",
    "ShapePlan",
    "Steps",
    "StreamBatcher",
    "TransformerCost",
    "attention_area",
    "batches",
    "make_schedule",
    "named_samples",
    "pack_samples",
    "pad_samples",
    "plan_packing",
    "plan_shapes",
    "position_count",
    "unpack",
    "unpad",
]
