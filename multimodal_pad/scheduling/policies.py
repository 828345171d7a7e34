"""Policies: the rule that takes the lengths of a batch to its padded lengths.

A policy works on integer arrays ``(n, M)`` whose columns follow ``policy.modalities``; a row is a
sample, or the per-modality maxima of a batch. Padded lengths are at least 1, so that a modality
that is missing in a whole batch still has a static shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, UncoveredLengthError
from multimodal_pad.lengths.table import LengthTable, check_names, check_whole
from multimodal_pad.planning.cost import Cost, check_priced, position_count
from multimodal_pad.planning.plan import ShapePlan

LongSamples = Literal["error", "truncate", "drop"]
"""What becomes of a sample that no bucket holds."""


class Policy(ABC):
    """What every policy offers.

    Attributes:
        modalities: names of the M columns.
    """

    modalities: tuple[str, ...]

    @abstractmethod
    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Padded lengths ``(n, M)`` for each row of ``lengths (n, M)``.

        Raises:
            UncoveredLengthError: a row is longer than every bucket; names row, modality, limit.
        """

    @abstractmethod
    def shapes(self) -> np.ndarray | None:
        """Every row that ``round_up`` can answer with, ``(k, M)``, or None where unbounded."""

    @property
    def finite(self) -> bool:
        """Whether :meth:`shapes` are finitely many, which may still be very many."""
        return True

    @abstractmethod
    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """The longest lengths ``(n, M)``, at most those given, that the policy covers."""

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Bool ``(n,)``: which rows fit a bucket."""
        return (self.truncate(lengths) == lengths).all(axis=1)

    def batch_sizes(self, padded: np.ndarray) -> np.ndarray | None:
        """Rows per batch ``(n,)`` at each of the padded lengths; None where the policy leaves them open."""
        del padded
        return None

    def why_not(self, lengths: np.ndarray) -> str:
        """What keeps a row of lengths ``(M,)``, which is not covered, out of every bucket."""
        limits = self.truncate(lengths[None])[0]
        column = int(np.argmax(lengths > limits))
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the longest bucket has {limits[column]}"
        )

    def _check_rows(self, lengths: np.ndarray, held: np.ndarray) -> None:
        """Raise an UncoveredLengthError that names the first row that is not held."""
        if not held.all():
            row = int(np.argmin(held))
            raise UncoveredLengthError(
                f"row {row}: {self.why_not(lengths[row])}; add a longer bucket, or truncate or drop long samples on "
                "purpose"
            )


class Exact(Policy):
    """Each batch padded to its own maxima: Algorithm 1 as it stands, one XLA program per shape.

    >>> Exact(["text", "audio"]).round_up(np.array([[3, 0]])).tolist()
    [[3, 1]]
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = check_names(modalities)

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """The lengths themselves, at least 1."""
        return np.maximum(lengths, 1)

    @property
    def finite(self) -> bool:
        """False: there is no bound on what it may answer."""
        return False

    def shapes(self) -> None:
        """None."""
        return

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """The lengths themselves: nothing is too long."""
        return lengths

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
    >>> ladder.shapes().tolist()
    [[8, 64], [16, 64]]
    """

    def __init__(self, edges: Mapping[str, Any]) -> None:
        self.modalities = check_names(tuple(edges))
        self.edges = tuple(_check_edges(name, column) for name, column in edges.items())

    @classmethod
    def powers_of_two(cls, lengths: LengthTable, smallest: int = 1) -> Ladder:
        """Edges ``smallest * 2**i``, up to the first that holds the longest length."""
        check_whole("smallest", smallest, 1, LengthError)
        edges = {}
        for name, longest in lengths.maxima.items():
            edges[name] = [smallest]
            while edges[name][-1] < longest:
                edges[name].append(2 * edges[name][-1])
        return cls(edges)

    @classmethod
    def multiples_of(cls, lengths: LengthTable, multiple: int | Mapping[str, int]) -> Ladder:
        """Edges at every multiple (one for all, or per modality) up to the longest length."""
        steps = multiple if isinstance(multiple, Mapping) else dict.fromkeys(lengths.modalities, multiple)
        _check_steps(lengths, steps)
        return cls({m: range(steps[m], max(1, n) + steps[m], steps[m]) for m, n in lengths.maxima.items()})

    @classmethod
    def quantiles(cls, lengths: LengthTable, count: int) -> Ladder:
        """At most ``count`` edges per modality, at the 1/count, 2/count, ... 1 quantiles of the lengths.

        Fewer where quantiles coincide. The quantile is the smallest length with at least that share
        of the samples at or below it (NumPy's ``inverted_cdf``).
        """
        check_whole("count", count, 1, LengthError)
        levels = np.arange(1, count + 1) / count
        values = np.maximum(lengths.values, 1)
        columns = [np.quantile(column, levels, method="inverted_cdf") for column in values.T]
        return cls(dict(zip(lengths.modalities, map(np.unique, columns), strict=True)))

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Each length rounded up to the next edge of its modality."""
        lengths = np.asarray(lengths)
        last = np.array([edges[-1] for edges in self.edges])
        self._check_rows(lengths, np.all(lengths <= last, axis=1))
        columns = [edges[np.searchsorted(edges, column)] for edges, column in zip(self.edges, lengths.T, strict=True)]
        return np.stack(columns, axis=1)

    def shapes(self) -> np.ndarray:
        """The product of the edges."""
        return np.stack(np.meshgrid(*self.edges, indexing="ij"), axis=-1).reshape(-1, len(self.edges))

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths cut to the last edges."""
        return np.minimum(lengths, [edges[-1] for edges in self.edges])

    def __repr__(self) -> str:
        edges = {m: e.tolist() for m, e in zip(self.modalities, self.edges, strict=True)}
        return f"{type(self).__name__}({edges})"


class Fixed(Ladder):
    """One length per modality for every batch: one XLA program, and the most padding.

    >>> Fixed.longest(LengthTable(("text",), np.array([[3], [9]]))).shapes().tolist()
    [[9]]
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__({name: [length] for name, length in lengths.items()})

    @classmethod
    def longest(cls, lengths: LengthTable) -> Fixed:
        """Fixed padding to the longest sample of the table (at least 1)."""
        return cls({name: max(1, length) for name, length in lengths.maxima.items()})

    def __repr__(self) -> str:
        return f"Fixed({ {m: int(e[0]) for m, e in zip(self.modalities, self.edges, strict=True)} })"


class Planned(Policy):
    """Each row padded to the cheapest shape of a plan that holds it.

    >>> from multimodal_pad import plan_shapes
    >>> table = LengthTable(("text", "audio"), np.array([[3, 9], [9, 3], [2, 8]]))
    >>> Planned(plan_shapes(table, max_shapes=2)).round_up(table.values).tolist()
    [[3, 9], [9, 3], [3, 9]]
    """

    def __init__(self, plan: ShapePlan) -> None:
        self.plan, self.modalities = plan, plan.modalities

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """The cheapest planned shape that holds each row."""
        lengths = np.asarray(lengths)
        places = self.plan.place(lengths)
        self._check_rows(lengths, places >= 0)
        return self.plan.shapes[places]

    def shapes(self) -> np.ndarray:
        """The plan's shapes, cheapest first."""
        return self.plan.shapes

    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths that fit; what does not is cut to the shape that keeps most of its positions."""
        lengths = np.asarray(lengths)
        cut = lengths.copy()
        for row in np.flatnonzero(self.plan.place(lengths) < 0):
            kept = np.minimum(lengths[row], self.plan.shapes)
            cut[row] = kept[np.argmax(kept.sum(axis=1))]
        return cut

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Bool ``(n,)``: which rows fit a planned shape."""
        return self.plan.place(lengths) >= 0

    def batch_sizes(self, padded: np.ndarray) -> np.ndarray:
        """The plan's rows per batch at each of its shapes."""
        return self.plan.batch_sizes[self.plan.place(padded)]

    def why_not(self, lengths: np.ndarray) -> str:
        """Names the shape that would keep most of the row, and what of the row is too long for it."""
        nearest = self.plan.shapes[np.argmax(np.minimum(lengths, self.plan.shapes).sum(axis=1))]
        column = int(np.argmax(lengths > nearest))
        listed = ", ".join(f"{name} {length}" for name, length in zip(self.modalities, nearest, strict=True))
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the nearest planned shape is ({listed})"
        )

    def __repr__(self) -> str:
        return f"Planned({len(self.plan)} shapes, {self.plan.shapes_fingerprint[:12]})"


def _check_edges(name: str, column: Any) -> np.ndarray:
    try:
        edges = np.asarray(list(column))
    except TypeError:
        raise LengthError(f"{name!r}: got the edges {column!r}; give a list of bucket lengths") from None
    if edges.ndim != 1 or not edges.size:
        raise LengthError(f"{name!r}: got the edges {column!r}; give at least one bucket length")
    whole = edges.dtype.kind in "iu"
    if not whole or edges[0] < 1 or (np.diff(edges.astype(np.int64)) <= 0).any():
        raise LengthError(
            f"{name!r}: got the edges {edges.tolist()}; they must be whole numbers of positions, at least 1, "
            "each larger than the one before"
        )
    return edges.astype(np.int64)


def check_long_samples(long_samples: str) -> None:
    """Raise a PaddingError unless it says what becomes of samples that no bucket holds."""
    if long_samples not in get_args(LongSamples):
        raise PaddingError(f"got long_samples={long_samples!r}; choose one of {list(get_args(LongSamples))}")


def choose_cost(policy: Policy, cost: Cost | None) -> Cost:
    """The cost given, or that of the policy's plan, or positions.

    Raises:
        PaddingError: it is a cost of other modalities than the policy's.
    """
    planned = policy.plan.cost if isinstance(policy, Planned) else None
    chosen = cost or planned or position_count
    check_priced(chosen, policy.modalities)
    return chosen


def check_covered(lengths: LengthTable, policy: Policy, keep: np.ndarray | None = None) -> None:
    """Raise an UncoveredLengthError that names the first sample (of those kept) that no bucket holds."""
    for start, block in lengths.select(policy.modalities).blocks():
        long = ~policy.covers(block)
        if keep is not None:
            long &= keep[start : start + len(block)]
        if long.any():
            row = int(np.argmax(long))
            raise UncoveredLengthError(
                f"sample {start + row}: {policy.why_not(block[row])}; add a longer bucket, or pass "
                'long_samples="truncate" or "drop" to the batcher'
            )


def _check_steps(lengths: LengthTable, steps: Mapping[str, int]) -> None:
    if set(steps) != set(lengths.modalities):
        raise LengthError(f"got multiples for {sorted(steps)}; give one for each of {sorted(lengths.modalities)}")
    for name, step in steps.items():
        check_whole(f"multiple[{name!r}]", step, 1, LengthError)
