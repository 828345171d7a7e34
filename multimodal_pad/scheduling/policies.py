"""Policies that need no plan: the batch's own maxima, ladders of edges, or one length for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal_pad.errors import LengthError
from multimodal_pad.lengths.samples import check_names, check_whole, shown
from multimodal_pad.lengths.table import LONGEST, LengthTable
from multimodal_pad.scheduling.policy import Policy, digest

MOST_EDGES = 2**24
"""The most edges of one modality that :meth:`Ladder.multiples_of` makes."""

SHOWN_EDGES = 8
"""Above so many edges in a modality, a ladder is described by their number."""


class Exact(Policy):
    """Each batch padded to its own maxima: Algorithm 1 as it stands, one XLA program per shape.

    Args:
        modalities: names of the M columns.

    Raises:
        LengthError: no names, one twice, or one that is ``"targets"`` or ``"position_targets"``.

    >>> Exact(["text", "audio"]).round_up(np.array([[3, 0]])).tolist()
    [[3, 1]]
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = check_names(modalities)

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths themselves, at least 1."""
        return np.maximum(lengths, 1)

    @property
    def finite(self) -> bool:
        """False: the shapes are unbounded."""
        return False

    def lengths(self) -> None:
        """None."""
        return

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths themselves: nothing is too long."""
        return lengths

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the modalities."""
        return digest(f"Exact({list(self.modalities)})")

    def __repr__(self) -> str:
        return f"Exact({list(self.modalities)})"


class Ladder(Policy):
    """Each modality rounded up to the next of its own edges; the batch shapes are the product.

    Args:
        edges: for each modality its bucket lengths, strictly increasing, the first at least 1.

    Raises:
        LengthError: no edges, or edges that are not whole, not increasing, or below 1.

    >>> ladder = Ladder({"text": [8, 16], "audio": [64]})
    >>> ladder.round_up(np.array([[3, 40], [9, 0]])).tolist()
    [[8, 64], [16, 64]]
    >>> ladder.lengths().tolist()
    [[8, 64], [16, 64]]
    """

    def __init__(self, edges: Mapping[str, Any]) -> None:
        self.modalities = check_names(tuple(edges))
        self.edges = tuple(_check_edges(name, column) for name, column in edges.items())

    @classmethod
    def powers_of_two(cls, lengths: LengthTable, smallest: int = 1) -> Ladder:
        """Make edges ``smallest * 2**i``, up to the first that holds the longest length."""
        check_whole("smallest", smallest, 1, LengthError)
        edges = {}
        for name, longest in lengths.maxima.items():
            edges[name] = [smallest]
            while edges[name][-1] < longest:
                edges[name].append(min(2 * edges[name][-1], LONGEST))
        return cls(edges)

    @classmethod
    def multiples_of(cls, lengths: LengthTable, multiple: int | Mapping[str, int]) -> Ladder:
        """Make edges at every multiple (one for all, or per modality) up to the longest length."""
        steps = multiple if isinstance(multiple, Mapping) else dict.fromkeys(lengths.modalities, multiple)
        _check_steps(lengths, steps)
        edges = {}
        for name, longest in lengths.maxima.items():
            step = int(steps[name])
            edges[name] = range(step, max(1, longest) + step, step)
            if len(edges[name]) > MOST_EDGES or edges[name][-1] > LONGEST:
                raise LengthError(
                    f"{name!r}: got lengths up to {longest:,} and multiples of {step:,}, which are "
                    f"{len(edges[name]):,} edges up to {edges[name][-1]:,}; give a multiple with at most "
                    f"{MOST_EDGES:,} edges up to {LONGEST:,}, or padding to a few lengths"
                )
        return cls(edges)

    @classmethod
    def quantiles(cls, lengths: LengthTable, count: int) -> Ladder:
        """Make at most ``count`` edges per modality, at the 1/count, 2/count, ... 1 quantiles of the lengths.

        Fewer where quantiles coincide. The quantile is the smallest length with at least that share
        of the samples at or below it (NumPy's ``inverted_cdf``).
        """
        check_whole("count", count, 1, LengthError)
        levels = np.arange(1, count + 1) / count
        values = np.maximum(lengths.values, 1)
        columns = [np.quantile(column, levels, method="inverted_cdf") for column in values.T]
        return cls(dict(zip(lengths.modalities, map(np.unique, columns), strict=True)))

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Round each length up to the next edge of its modality."""
        lengths = np.asarray(lengths)
        last = np.array([edges[-1] for edges in self.edges])
        self.check_held(lengths, np.all(lengths <= last, axis=1))
        columns = [edges[np.searchsorted(edges, column)] for edges, column in zip(self.edges, lengths.T, strict=True)]
        return np.stack(columns, axis=1)

    def lengths(self) -> np.ndarray:
        """Return the product of the edges."""
        return np.stack(np.meshgrid(*self.edges, indexing="ij"), axis=-1).reshape(-1, len(self.edges))

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Cut lengths to the last edges."""
        return np.minimum(lengths, [edges[-1] for edges in self.edges])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the edges."""
        return digest(f"{type(self).__name__}({self._edges()})")

    def _edges(self) -> dict[str, Any]:
        return {m: e.tolist() for m, e in zip(self.modalities, self.edges, strict=True)}

    def __repr__(self) -> str:
        if all(len(edges) <= SHOWN_EDGES for edges in self.edges):
            return f"{type(self).__name__}({self._edges()})"
        shown = [f"{m} {len(e):,} from {e[0]} to {e[-1]}" for m, e in zip(self.modalities, self.edges, strict=True)]
        return f"{type(self).__name__}(edges: {', '.join(shown)})"


class Fixed(Ladder):
    """One length per modality for every batch: one XLA program, and the most padding.

    Args:
        lengths: the bucket length of each modality, at least 1.

    Raises:
        LengthError: no modality, or a length that is not whole or below 1.

    >>> Fixed.longest(LengthTable(("text",), np.array([[3], [9]]))).lengths().tolist()
    [[9]]
    """

    compile_all = True

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__({name: [length] for name, length in lengths.items()})

    @classmethod
    def longest(cls, lengths: LengthTable) -> Fixed:
        """Make fixed padding to the longest sample of the table (at least 1)."""
        return cls({name: max(1, length) for name, length in lengths.maxima.items()})

    def _edges(self) -> dict[str, Any]:
        return {m: int(e[0]) for m, e in zip(self.modalities, self.edges, strict=True)}


def _check_edges(name: str, column: Any) -> np.ndarray:
    try:
        edges = np.asarray(list(column))
    except (TypeError, ValueError):  # the latter for lists of unequal lengths
        raise LengthError(f"{name!r}: got the edges {column!r}; give a list of bucket lengths") from None
    if edges.ndim != 1 or not edges.size:
        raise LengthError(f"{name!r}: got the edges {column!r}; give at least one bucket length")
    whole = edges.dtype.kind in "iu"
    if edges.max(initial=0) > LONGEST if whole else _too_long(edges):
        raise LengthError(
            f"{name!r}: got the edges {shown(edges.tolist())}; no bucket length is above {LONGEST:,}: batches hold "
            "lengths as int32"
        )
    if not whole or edges[0] < 1 or (np.diff(edges.astype(np.int64)) <= 0).any():
        raise LengthError(
            f"{name!r}: got the edges {edges.tolist()}; they must be whole numbers of positions, at least 1, "
            "each larger than the one before"
        )
    return edges.astype(np.int64)


def _too_long(edges: np.ndarray) -> bool:
    """Return whether whole numbers are among them that no dtype of NumPy holds."""
    return edges.dtype == object and any(isinstance(edge, int) and edge > LONGEST for edge in edges.tolist())


def _check_steps(lengths: LengthTable, steps: Mapping[str, int]) -> None:
    if set(steps) != set(lengths.modalities):
        raise LengthError(f"got multiples for {sorted(steps)}; give one for each of {sorted(lengths.modalities)}")
    for name, step in steps.items():
        check_whole(f"multiple[{name!r}]", step, 1, LengthError)
