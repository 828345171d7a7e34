"""Compare two results, and make batches for it."""

from __future__ import annotations

import numpy as np

from multimodal_pad import PaddedBatch


def with_nan(batch: PaddedBatch) -> PaddedBatch:
    """Put NaN, or the highest token id, into all padding of a batch."""
    features = {}
    for name, x in batch.features.items():
        real = batch.masks[name].reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
        features[name] = np.where(real, x, np.asarray(np.nan if x.dtype.kind == "f" else x.max(), x.dtype))
    return batch._replace(features=features)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference; infinite where one of them is NaN."""
    return float(np.nan_to_num(np.abs(one - other), nan=np.inf).max())
