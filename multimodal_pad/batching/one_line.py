"""From a list of samples to batches in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from multimodal_pad.batching.batcher import BucketBatcher
from multimodal_pad.lengths.cost import BatchBudget, Cost, position_count
from multimodal_pad.lengths.samples import Source, check_choice, check_indexable
from multimodal_pad.lengths.table import LengthTable, as_lengths
from multimodal_pad.planning.packing import plan_packing
from multimodal_pad.planning.planner import plan_shapes

Laid = Literal["padded", "packed"]


def batches(
    samples: Source,
    *,
    max_shapes: int | None = None,
    batch_size: int | BatchBudget = 32,
    layout: Laid = "padded",
    modalities: Sequence[str] | None = None,
    lengths: LengthTable | Mapping[str, Any] | None = None,
    alignment: int | Mapping[str, int] | None = None,
    cost: Cost = position_count,
    **options: Any,
) -> BucketBatcher:
    """Measure samples, plan their batch shapes, and give the batcher: each ``for`` loop over it runs an epoch.

    ``warm_up`` and ``fit`` take it like any other batcher. Plan yourself, with :func:`~multimodal_pad.plan_shapes` or
    :func:`~multimodal_pad.plan_packing`, where one plan is to serve several sets of samples, such as those of
    validation.

    Args:
        samples: ``len(samples)`` and ``samples[i] -> {modality: (length, *feature_shape), "targets": ...}``; a list of
            dicts is enough. Each is read once to be measured, unless there are ``lengths`` or it has some.
        max_shapes: the compile budget; by default 8 padded shapes, or 1 packed one.
        batch_size: samples per batch, or a :class:`~multimodal_pad.BatchBudget`.
        layout: ``"padded"``, a row for each sample, or ``"packed"``, end to end.
        modalities: which ones, in which order; by default all keys of the first sample but ``"targets"``.
        lengths: the length table of the samples, or its columns.
        alignment: padded lengths or capacities are multiples of it; by default 1 padded, 8 packed.
        cost: cost per sample, of which the plan pads the least.
        options: of the :class:`~multimodal_pad.BucketBatcher`, such as ``seed``, ``grouping`` and ``with_ids``.

    Raises:
        PaddingError: an option out of range, or another layout.
        LengthError: no samples, or a stream, whose length is not known.
        SampleError: a sample does not fit the others.

    >>> import numpy as np
    >>> samples = [{"text": np.arange(n), "targets": n % 2} for n in (3, 5, 12, 4)]
    >>> for batch in batches(samples, max_shapes=2, batch_size=2):
    ...     print(batch.shape, batch.lengths["text"])
    2 x (text 5) [4 5]
    2 x (text 12) [12  3]
    """
    check_choice("layout", layout, Laid)
    check_indexable(samples)
    table = LengthTable.measure(samples, modalities) if lengths is None else as_lengths(lengths)
    table = table if modalities is None else table.select(modalities)
    given: dict[str, Any] = {"batch_size": batch_size, "cost": cost}
    if alignment is not None:
        given["alignment"] = alignment
    if max_shapes is not None:
        given["max_shapes"] = max_shapes
    if layout == "packed":
        return BucketBatcher(samples, plan_packing(table, **given), lengths=table, **options)
    if (grouping := options.get("grouping")) is not None:
        given["grouping"] = grouping
    return BucketBatcher(samples, plan_shapes(table, **given), lengths=table, **options)
