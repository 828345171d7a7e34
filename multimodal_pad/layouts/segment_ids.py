"""Which sample each position of a packed axis is of, and where samples begin: from their lengths alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def starts_of(lengths: Any, count: int = 0, shares: int = 1) -> Any:
    """Return ``(B,)`` int32: the first position of each sample; like the others below, of NumPy or JAX arrays.

    ``count`` positions lie in as many equal shares; where there is one, they make no difference.
    """
    own = lengths.reshape(shares, -1)
    firsts = np.arange(shares, dtype=np.int32) * (count // shares)
    return (own.cumsum(axis=1, dtype=np.int32) - own + firsts[:, None]).reshape(-1)


def segments_of(lengths: Any, count: int, shares: int = 1) -> Any:
    """Return ``(N,)`` int32: the sample of each of ``count`` positions (how many end before it); B at padding."""
    total, own = len(lengths), len(lengths) // shares
    ends = lengths.reshape(shares, own).cumsum(axis=1, dtype=np.int32)
    places = np.arange(count // shares, dtype=np.int32)
    ended = (places[None, :, None] >= ends[:, None, :]).sum(axis=2, dtype=np.int32)
    if shares > 1:
        firsts = np.arange(shares, dtype=np.int32)[:, None] * own
        ended = ended + firsts + (total - own - firsts) * (ended == own)
    return ended.reshape(-1)


def places_of(lengths: Any, count: int, shares: int = 1) -> Any:
    """Return ``(N,)`` int32: the place of each of ``count`` positions in its sample; 0 at padding."""
    segments = segments_of(lengths, count, shares)
    starts = starts_of(lengths, count, shares)
    places = np.arange(count, dtype=np.int32) - starts[segments.clip(0, len(lengths) - 1)]
    return places * (segments < len(lengths))


def real_of(lengths: Any, count: int, shares: int = 1) -> Any:
    """Return ``(N,)`` bool: which of ``count`` positions are of a sample."""
    filled = lengths.reshape(shares, -1).sum(axis=1)
    return (np.arange(count // shares, dtype=np.int32)[None] < filled[:, None]).reshape(-1)
