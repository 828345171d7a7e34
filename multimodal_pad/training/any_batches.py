"""All kinds of batches that a training takes."""

from __future__ import annotations

from typing import Any

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.batching.streams.options import StreamOptions
from multimodal_pad.errors import TrainingError
from multimodal_pad.training.batcher_feed import BatcherFeed, GrainBatches, GrainFeed
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.stream_feed import GrainStream, GrainStreamFeed, StreamFeed

AnyBatches = BucketBatcher | StreamBatcher | GrainBatches | GrainStream | Feed
"""The kinds of batches that a training takes."""


def as_feed(batches: Any, name: str = "batcher") -> Feed:
    """Return the feed of batches, whichever kind they are.

    Raises:
        TrainingError: they are no batches; ``name`` is what it calls them.

    >>> from multimodal_pad import Fixed
    >>> as_feed(BucketBatcher([{"text": [5, 6, 7]}], Fixed({"text": 4}), batch_size=1)).steps(0)
    1
    """
    if isinstance(batches, Feed):
        return batches
    if isinstance(batches, BucketBatcher):
        return BatcherFeed(batches)
    if isinstance(batches, StreamBatcher):
        return StreamFeed(batches)
    # Grain's are recognised by their attributes: their classes would have to be imported with Grain.
    if isinstance(getattr(batches, "batcher", None), BucketBatcher) and hasattr(batches, "with_batcher"):
        return GrainFeed(batches)
    if isinstance(getattr(batches, "stream_options", None), StreamOptions):
        return GrainStreamFeed(batches)
    raise TrainingError(
        f"{name}: got {_describe(batches)}; give a BucketBatcher, a StreamBatcher, or a dataset of multimodal_pad.grain"
    )


def _describe(batches: Any) -> str:
    kind = type(batches)
    if isinstance(batches, (list, tuple)):
        of = type(batches[0]).__name__ if batches else "nothing"
        return f"a {kind.__name__} of {of}: of samples make BucketBatcher(samples, plan)"
    if kind.__module__.partition(".")[0] == "grain":
        return (
            f"{kind.__module__}.{kind.__name__}: a MapDataset of samples is a source for BucketBatcher, and of an "
            "IterDataset StreamIterDataset makes batches"
        )
    if hasattr(batches, "dataset"):
        return f"a {kind.__name__}, which makes batches of its own: give its dataset to BucketBatcher(dataset, plan)"
    if hasattr(batches, "__getitem__") and hasattr(batches, "__len__"):
        return f"{kind.__module__}.{kind.__name__}: of an indexable source make BucketBatcher(source, plan)"
    if hasattr(batches, "__iter__"):
        return f"{kind.__module__}.{kind.__name__}: of an iterable of samples make StreamBatcher(samples, plan)"
    return f"{kind.__module__}.{kind.__name__}"
