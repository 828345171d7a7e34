"""The task of a plan: the lengths to hold, how often each occurs, and the cost of holding them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from multimodal_pad.errors import LengthError, PaddingError, PlanError
from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.lengths.cost import BatchBudget, Cost, check_priced, costs_of
from multimodal_pad.lengths.samples import EMPTY, check_whole
from multimodal_pad.lengths.table import LONGEST, LengthTable
from multimodal_pad.planning.plan import place
from multimodal_pad.scheduling.groupings import as_grouping
from multimodal_pad.scheduling.policy import Grouping
from multimodal_pad.scheduling.steps import Steps

DRAWN_BATCHES = 2048
"""Least batches that ``"random"`` grouping plans for, drawn in whole epochs."""

MOST_EPOCHS = 64
"""Most epochs that ``"random"`` grouping draws."""

CHUNK = 2**20  # samples priced at a time


class Tally(NamedTuple):
    """The samples of each of k shapes, and their costs, over the epochs of a task."""

    samples: np.ndarray  # (k,)
    real_costs: np.ndarray  # (k,), of the samples at their own lengths


class Settled(NamedTuple):
    """Shapes of a task, cheapest first."""

    price: float  # by which shapes are compared, of what is padded
    cost: float  # the same in the user's unit
    lengths: np.ndarray  # (k, M)
    fits: bool  # whether the batch budget holds rows of each


class PlanningTask:
    """Rows to hold, with weights and a price.

    Inside, the modalities are sorted by name and the samples by length, so that a plan does not depend on
    their order in the table.

    Args:
        lengths, cost, alignment, grouping, batch_size, batch_overhead, seed: as
            :func:`~multimodal_pad.planning.planner.plan_shapes` takes them.

    Attributes:
        lengths: the length table, as it is given.
        given: the modalities in the table's order.
        names: the modalities in this task's order.
        rows: int64 ``(n, M)``: the distinct aligned lengths that shapes must hold.
        weights: ``(n,)``: how many samples pay for each, over the epochs.
        epochs: how many epochs that is: 1 for ``"length"``, the number drawn for ``"random"``.
        samples: their number in an epoch.
        budget: the batch budget, or None.
        overhead: what a batch costs beside its rows.
        real_positions: ``(M,)``, over the epochs.
        real_cost: of the samples at their own lengths, over the epochs.
    """

    def __init__(
        self,
        lengths: LengthTable,
        cost: Cost,
        *,
        alignment: int | Mapping[str, int],
        grouping: Grouping | str,
        batch_size: int | BatchBudget,
        batch_overhead: float,
        seed: int,
    ) -> None:
        check_whole("seed", seed, 0, most=None)
        grouping = as_grouping(grouping)
        if not 0 <= batch_overhead < np.inf:
            raise PaddingError(f"got batch_overhead={batch_overhead!r}; it must be a finite number, 0 or more")
        self.lengths = lengths
        self.given, self.names = lengths.modalities, tuple(sorted(lengths.modalities))
        self._columns = np.array([self.names.index(name) for name in self.given])
        self.fingerprint, self.cost, self.grouping, self.seed = lengths.fingerprint, cost, grouping, seed
        self.alignment = check_alignment(lengths.modalities, alignment)
        check_aligned(lengths, self.alignment)
        self._steps = np.array([self.alignment[name] for name in self.names])
        self.overhead, self._penalty = batch_overhead, 0.0
        distinct, counts = distinct_rows(lengths.select(self.names).values, np.ones(len(lengths)))
        self._table = LengthTable(self.names, np.repeat(distinct, counts.astype(np.int64), axis=0))
        self.samples, self.epochs, self._batch_size, self.budget = len(lengths), 1, 1, None
        check_priced(cost, lengths.modalities)
        if isinstance(batch_size, BatchBudget):
            check_priced(batch_size.measure, lengths.modalities)
            self.budget = batch_size
            if grouping.draws_first:
                raise PaddingError(
                    f"got a BatchBudget with grouping={grouping.name!r}; a random batch is drawn before its shape is "
                    "known: use grouping='length' or a whole number"
                )
        else:
            check_whole("batch_size", batch_size, 1)
            self._batch_size = batch_size
            if grouping.draws_first:
                self.epochs = min(MOST_EPOCHS, -(-DRAWN_BATCHES * batch_size // len(lengths)))
        values = self._table.values
        self._unit = 1.0
        self.rows, self.weights = self._distinct(values, np.ones(len(values)))
        self._check_grows()
        if not np.isfinite(1e3 * float(self._cost(self.rows.max(axis=0)[None])[0]) * float(self.weights.sum())):
            raise PaddingError(
                "the cost is so large that the samples together cost more than a float holds; scale it down"
            )
        self._check_budget(lengths)
        self.real_positions = self.epochs * values.sum(axis=0)
        chunks = (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
        self.real_cost = self.epochs * sum(float(self._cost(chunk).sum()) for chunk in chunks)
        self._unit = float(self.costs(self.rows.max(axis=0)[None])[0]) or 1.0

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """Return the cost of a row of a batch at each of the padded lengths, its share of the overhead included."""
        costs = self._cost(rows)
        if self.overhead or self.budget:
            sizes = self.batch_sizes(rows)
            costs = costs + self.overhead / np.maximum(sizes, 1) + np.where(sizes < 1, self._penalty, 0)
        return costs

    def price(self, rows: np.ndarray) -> np.ndarray:
        """Return the cost in a unit of its own and to 32 bits, by which shapes are ordered and chosen.

        So equals are not decided by the user's unit, or by the order in which a cost adds up its modalities.
        """
        scaled = self.costs(rows) / self._unit
        shifted = scaled * (2**21 + 1)  # Veltkamp's splitting: 53 bits less 21
        return shifted - (shifted - scaled)

    def batch_sizes(self, shapes: np.ndarray) -> np.ndarray:
        """Return rows per batch of each shape; 0 where the budget holds none."""
        if self.budget:
            return self.budget.batch_sizes(self.restore(shapes))
        return np.full(len(shapes), self._batch_size)

    def restore(self, rows: np.ndarray) -> np.ndarray:
        """Return columns in the order of the table that was given."""
        return rows.take(self._columns, axis=1)

    def settle(self, shapes: np.ndarray, kept: np.ndarray | None = None) -> Settled:
        """Cut shapes to what they take, sort them cheapest first, and price what is padded at them.

        Those in ``kept (p, M)`` are added, and stay as they are.
        """
        kept = shapes[:0] if kept is None else kept
        shapes = self._sorted(np.unique(np.concatenate([shapes, kept]), axis=0) if len(kept) else shapes)
        places = place(shapes, self.rows)
        stays = is_among(shapes, kept)
        tight = [self.rows[places == number].max(axis=0) for number in np.unique(places) if not stays[number]]
        shapes = self._sorted(np.unique([*tight, *kept], axis=0))
        taken = np.bincount(place(shapes, self.rows), self.weights, minlength=len(shapes))
        fits = bool((self.batch_sizes(shapes) >= 1).all())
        return Settled(float(self.price(shapes) @ taken), float(self.costs(shapes) @ taken), shapes, fits)

    def kept_shapes(self, batch_shapes: Sequence[BatchShape]) -> np.ndarray:
        """Return the distinct lengths ``(p, M)`` of batch shapes that a plan is to have as they are.

        Raises:
            PaddingError: one has other modalities or rows than the plan's shapes, or lengths that are not aligned.
        """
        rows = np.zeros((0, len(self.names)), np.int64)
        for shape in batch_shapes:
            lengths = dict(shape.lengths)
            if set(lengths) != set(self.names):
                raise PaddingError(f"got the compiled shape {shape}; give shapes of {list(self.given)}")
            row = np.array([[lengths[name] for name in self.names]])
            if (row % self._steps).any() or row.min() < 1:
                raise PaddingError(f"got the compiled shape {shape}; its lengths must be multiples of {self.alignment}")
            size = int(self.batch_sizes(row)[0])
            if size != shape.batch_size:
                raise PaddingError(f"got the compiled shape {shape}; with these lengths the plan has {size} rows")
            rows = np.concatenate([rows, row])
        return np.unique(rows, axis=0)

    def tally(self, shapes: np.ndarray) -> Tally:
        """Count the samples that each shape takes, and their costs."""
        count = len(shapes)
        samples, real = np.zeros(count), np.zeros(count)
        values = self._table.values
        for steps in self._paid(values):
            kept = steps.ids != EMPTY
            places = np.repeat(place(shapes, steps.lengths), steps.batch_sizes)[kept]
            samples += np.bincount(places, minlength=count)
            real += np.bincount(places, self._cost(values[steps.ids[kept]]), minlength=count)
        return Tally(samples, real)

    def without_tail(self, count: int, *, truncate: bool) -> PlanningTask:
        """Return the same task with so many of the most expensive samples left out, or cut to the rest."""
        if self.grouping.draws_first:
            rows, weights = self._table.values, np.ones(len(self._table))
        else:  # samples are rounded up one by one, so those of equal lengths are one row
            rows, weights = self.rows, self.weights
        order = np.argsort(-self.price(self._aligned(rows)), kind="stable")
        kept = np.empty(len(rows))
        kept[order] = np.diff(np.maximum(np.cumsum(weights[order]) - count, 0), prepend=0.0)
        if truncate:
            limits = rows[kept > 0].max(axis=0)
            kept, rows = weights, np.where((kept < weights)[:, None], np.minimum(rows, limits), rows)
        other = copy.copy(self)
        other.rows, other.weights = self._distinct(rows[kept > 0], kept[kept > 0])
        return other

    def _cost(self, rows: np.ndarray) -> np.ndarray:
        """Return the user's cost of each row, checked."""
        return costs_of(self.cost, self.restore(rows), self.given)

    def _sorted(self, shapes: np.ndarray) -> np.ndarray:
        """Sort shapes cheapest first, then by length."""
        return shapes[np.lexsort((*shapes.T[::-1], self.price(shapes)))]

    def _aligned(self, values: np.ndarray) -> np.ndarray:
        return -(-np.maximum(values, 1) // self._steps) * self._steps

    def _distinct(self, values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that shapes must hold, and their weights, for samples of these lengths."""
        if not self.grouping.draws_first:
            return distinct_rows(self._aligned(values), weights)
        paid = list(self._paid(values))
        rows = np.concatenate([*(steps.lengths for steps in paid), values.max(axis=0)[None]])
        return distinct_rows(self._aligned(rows), np.concatenate([*(steps.samples for steps in paid), [0]]))

    def _paid(self, values: np.ndarray) -> Iterator[Steps]:
        """Yield the lengths that samples of these lengths are rounded up from, over the epochs."""
        table = LengthTable(self.names, values)
        for epoch in range(self.epochs):
            yield from self.grouping.paid(table, batch_size=self._batch_size, seed=self.seed, epoch=epoch)

    def _check_grows(self) -> None:
        """Raise a PaddingError that names two shapes where a cost, or a budget's measure, falls as a length grows."""
        budget = self.budget
        functions = {"cost": self._cost}
        if budget:
            functions["batch budget's measure"] = lambda rows: budget.measured(self.restore(rows))
        low, high = self.rows.min(axis=0), self.rows.max(axis=0)
        middle = np.sort(self.rows, axis=0)[len(self.rows) // 2]
        for base in (low, middle, high):
            for m, name in enumerate(self.names):
                lengths = np.unique(self.rows[:, m])
                line = np.repeat(base[None], len(lengths), axis=0)
                line[:, m] = lengths
                for what, function in functions.items():
                    values = function(line)
                    falls = np.flatnonzero(np.diff(values) < -1e-9 * np.abs(values[:-1]))
                    if len(falls):
                        a, b = falls[0], falls[0] + 1
                        raise PaddingError(
                            f"the {what} falls from {values[a]:g} to {values[b]:g} as {name!r} grows, from "
                            f"{self._tell(line[a])} to {self._tell(line[b])}; it must never fall as lengths grow"
                        )

    def _check_budget(self, lengths: LengthTable) -> None:
        """Raise a PlanError where one sample exceeds the batch budget; else set the penalty of shapes that do."""
        if not self.budget:
            return
        sizes = self.batch_sizes(self.rows)
        if (sizes < 1).any():
            measured = self.budget.measured(self.restore(self.rows))
            row = self.rows[int(np.argmax(measured))]
            aligned = self._aligned(lengths.select(self.names).values)
            sample, multiple = int(np.argmax((aligned == row).all(axis=1))), self.budget.multiple
            many = int(self.weights[sizes < 1].sum())
            few = 2 * many <= self.weights.sum()
            instead = "truncate or drop long samples before planning" if few else "let a batch have fewer (multiple)"
            raise PlanError(
                f"sample {sample}, padded to {self._tell(row)}: {multiple} of it measure {multiple * measured.max():g} "
                f"and exceed the batch budget of {self.budget.limit:g}, which {many:,} of {len(aligned):,} samples do; "
                f"raise the budget, or {instead}"
            )
        self._penalty = 1e3 * float(self._cost(self.rows.max(axis=0)[None])[0] * self.weights.sum())

    def _tell(self, row: np.ndarray) -> str:
        lengths = self.restore(row[None])[0].tolist()
        return "(" + ", ".join(f"{name} {length}" for name, length in zip(self.given, lengths, strict=True)) + ")"


def is_among(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which rows of ``(n, M)`` are also in ``others (p, M)``: bool ``(n,)``.

    >>> is_among(np.array([[2, 5], [1, 7]]), np.array([[1, 7]])).tolist()
    [False, True]
    """
    return (rows[:, None] == others[None]).all(axis=2).any(axis=1)


def distinct_rows(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of ``(n, M)``, sorted, and the sum of the weights of each.

    >>> distinct_rows(np.array([[2, 5], [1, 7], [2, 5]]), np.array([1.0, 1, 2]))
    (array([[1, 7],
           [2, 5]]), array([1., 3.]))
    """
    sizes = (rows.max(axis=0) + 1).tolist()
    if np.prod([float(size) for size in sizes]) < 2**62:  # one integer per row sorts several times faster
        keys = np.ravel_multi_index(tuple(rows.T), sizes)
        distinct, kind = np.unique(keys, return_inverse=True)
        distinct = np.stack(np.unravel_index(distinct, sizes), axis=1)
    else:
        distinct, kind = np.unique(rows, axis=0, return_inverse=True)
    return distinct, np.bincount(kind.ravel(), weights, minlength=len(distinct))


def check_aligned(lengths: LengthTable, alignment: Mapping[str, int]) -> None:
    """Raise a LengthError where a length rounds up to more than any may be."""
    for name, longest in lengths.maxima.items():
        if -(-max(longest, 1) // alignment[name]) * alignment[name] > LONGEST:
            raise LengthError(
                f"{name!r}: got a length of {longest:,} and an alignment of {alignment[name]:,}; padded lengths are at "
                f"most {LONGEST:,}: give a smaller alignment, or truncate the sample"
            )


def check_alignment(names: tuple[str, ...], alignment: int | Mapping[str, int]) -> dict[str, int]:
    """Return the alignment of each modality; 1 where a mapping doesn't name it."""
    if not isinstance(alignment, Mapping):
        alignment = dict.fromkeys(names, alignment)
    unknown = [name for name in alignment if name not in names]
    if unknown:
        raise LengthError(f"got an alignment for {unknown}; the lengths have {list(names)}")
    for name, step in alignment.items():
        check_whole(f"alignment[{name!r}]", step, 1, LengthError)
    return {name: int(alignment.get(name, 1)) for name in names}
