"""What a plan is made for: the lengths to hold, how often each occurs, and what holding them costs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from multimodal_pad.cost import BatchBudget, Cost, check_priced
from multimodal_pad.errors import LengthError, PaddingError, PlanError
from multimodal_pad.lengths import LengthTable, check_whole
from multimodal_pad.plan import place
from multimodal_pad.policies import Exact
from multimodal_pad.schedule import EMPTY, Grouping, Schedule, check_batching, make_schedule

DRAWN_BATCHES = 2048
"""``"random"`` grouping plans for at least so many batches, drawn in whole epochs,"""

MOST_EPOCHS = 64
"""but for no more epochs than these."""

CHUNK = 2**20  # samples priced at a time


class Tally(NamedTuple):
    """What each of k shapes takes, over the epochs of a task."""

    samples: np.ndarray  # (k,)
    rows: np.ndarray  # (k,), empty ones included
    real_costs: np.ndarray  # (k,), of the samples at their own lengths


class PlanningTask:
    """Rows to hold, with weights and a price.

    The modalities are sorted by name inside, so that their order in the table decides nothing.

    Args:
        lengths, cost, alignment, grouping, batch_size, batch_overhead, seed: as
            :func:`~multimodal_pad.planner.plan_shapes` takes them.

    Attributes:
        given: the modalities in the table's order.
        names: the modalities in this task's order.
        rows: int64 ``(n, M)``: the distinct aligned lengths that shapes must hold.
        weights: ``(n,)``: how many rows of batches come with each, over the epochs.
        epochs: how many epochs that is: 1 for ``"length"``, the number drawn for ``"random"``.
        real_positions: ``(M,)``, over the epochs.
        real_cost: of the samples at their own lengths, over the epochs.
    """

    def __init__(
        self,
        lengths: LengthTable,
        cost: Cost,
        *,
        alignment: int | Mapping[str, int],
        grouping: Grouping,
        batch_size: int | BatchBudget,
        batch_overhead: float,
        seed: int,
    ) -> None:
        check_batching(Exact(lengths.modalities), 1, grouping, 1, seed)
        if not 0 <= batch_overhead < np.inf:
            raise PaddingError(f"got batch_overhead={batch_overhead!r}; it must be a finite number, 0 or more")
        self.given, self.names = lengths.modalities, tuple(sorted(lengths.modalities))
        self.fingerprint, self.cost, self.grouping, self.seed = lengths.fingerprint, cost, grouping, seed
        self.alignment = check_alignment(lengths.modalities, alignment)
        self._steps = np.array([self.alignment[name] for name in self.names])
        self._overhead, self._penalty = batch_overhead, 0.0
        self._table = lengths.select(self.names)
        self.epochs, self._batch_size, self._budget = 1, 1, None
        check_priced(cost, lengths.modalities)
        if isinstance(batch_size, BatchBudget):
            check_priced(batch_size.measure, lengths.modalities)
            self._budget = batch_size
            if grouping == "random":
                raise PaddingError(
                    "got a BatchBudget with grouping='random'; a random batch is drawn before its shape is known: use "
                    "grouping='length' or a whole number"
                )
        else:
            check_whole("batch_size", batch_size, 1)
            self._batch_size = batch_size
            if grouping == "random":
                self.epochs = min(MOST_EPOCHS, -(-DRAWN_BATCHES * batch_size // len(lengths)))
        values = self._table.values
        self.real_positions = self.epochs * values.sum(axis=0)
        chunks = (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
        self.real_cost = self.epochs * sum(float(self._cost(chunk).sum()) for chunk in chunks)
        self.rows, self.weights = self._distinct(values, np.ones(len(values)))
        self._check_grows()
        self._check_budget()

    def price(self, rows: np.ndarray) -> np.ndarray:
        """What a row of a batch costs at each of the padded lengths, its share of the overhead included."""
        costs = self._cost(rows)
        if self._overhead or self._budget:
            sizes = self.batch_sizes(rows)
            costs = costs + self._overhead / np.maximum(sizes, 1) + np.where(sizes < 1, self._penalty, 0)
        return costs

    def batch_sizes(self, shapes: np.ndarray) -> np.ndarray:
        """Rows per batch of each shape; 0 where the budget holds none."""
        if self._budget:
            return self._budget.sizes(self.restore(shapes))
        return np.full(len(shapes), self._batch_size)

    def restore(self, rows: np.ndarray) -> np.ndarray:
        """Columns in the order of the table that was given."""
        return rows if self.names == self.given else rows[:, [self.names.index(name) for name in self.given]]

    def settle(self, shapes: np.ndarray) -> tuple[float, np.ndarray]:
        """The padded cost at these shapes, and the shapes cut to what they take, cheapest first."""
        shapes = self._sorted(shapes)
        places = place(shapes, self.rows)
        tight = [self.rows[places == number].max(axis=0) for number in np.unique(places)]
        shapes = self._sorted(np.unique(tight, axis=0))
        total = self.price(shapes)[place(shapes, self.rows)] @ self.weights
        return float(total), shapes

    def tally(self, shapes: np.ndarray) -> Tally:
        """What each shape takes, sample by sample."""
        count = len(shapes)
        samples, rows, real = np.zeros(count), np.zeros(count), np.zeros(count)
        values = self._table.values
        if self.grouping == "length":
            for start in range(0, len(values), CHUNK):
                chunk = values[start : start + CHUNK]
                places = place(shapes, chunk)
                samples += np.bincount(places, minlength=count)
                real += np.bincount(places, self._cost(chunk), minlength=count)
            return Tally(samples, samples, real)
        costs = self._cost(values)
        for steps in self._drawn(values):
            places = np.repeat(place(shapes, steps.shapes), steps.batch_sizes)
            kept = steps.ids != EMPTY
            rows += np.bincount(places, minlength=count)
            samples += np.bincount(places[kept], minlength=count)
            real += np.bincount(places[kept], costs[steps.ids[kept]], minlength=count)
        return Tally(samples, rows, real)

    def without_tail(self, share: float, *, truncate: bool) -> tuple[PlanningTask, int]:
        """The same task with the most expensive samples left out, or cut to the rest; and how many those are."""
        count = int(share * len(self._table))
        if self.grouping == "length":
            rows, weights = self.rows, self.weights
        else:
            rows, weights = self._table.values, np.ones(len(self._table))
        order = np.argsort(-self.price(self._aligned(rows)), kind="stable")
        rows, weights = rows[order], weights[order]
        kept = np.diff(np.maximum(np.cumsum(weights) - count, 0), prepend=0.0)
        if truncate:
            limits = rows[kept > 0].max(axis=0)
            kept, rows = weights, np.where((kept < weights)[:, None], np.minimum(rows, limits), rows)
        other = copy.copy(self)
        other.rows, other.weights = self._distinct(rows[kept > 0], kept[kept > 0])
        return other, count

    def _cost(self, rows: np.ndarray) -> np.ndarray:
        """The user's cost of each row, checked."""
        costs = np.asarray(self.cost(self.restore(rows)), np.float64)
        if costs.shape != (len(rows),):
            raise PaddingError(f"the cost of {len(rows)} rows has shape {costs.shape}; it must be one number per row")
        if not (costs.min(initial=0) >= 0 and costs.max(initial=0) < np.inf):
            bad = int(np.argmin((costs >= 0) & (costs < np.inf)))
            raise PaddingError(f"the cost of {self._tell(rows[bad])} is {costs[bad]}; it must be a finite number, >= 0")
        return costs

    def _sorted(self, shapes: np.ndarray) -> np.ndarray:
        """Cheapest first; rounding doesn't decide between equals."""
        costs = self.price(shapes)
        return shapes[np.lexsort((*shapes.T[::-1], np.round(costs / max(costs.max(), np.finfo(float).tiny), 12)))]

    def _aligned(self, values: np.ndarray) -> np.ndarray:
        return -(-np.maximum(values, 1) // self._steps) * self._steps

    def _distinct(self, values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows that shapes must hold, and their weights, for samples of these lengths."""
        if self.grouping == "length":
            return distinct_rows(self._aligned(values), weights)
        drawn = [steps.shapes for steps in self._drawn(values)]
        rows = np.concatenate([*drawn, values.max(axis=0)[None]])
        return distinct_rows(self._aligned(rows), np.append(np.full(len(rows) - 1, self._batch_size), 0))

    def _drawn(self, values: np.ndarray) -> Iterator[Schedule]:
        """The epochs that the schedule draws."""
        table = LengthTable(self.names, values)
        exact, size = Exact(self.names), self._batch_size
        for epoch in range(self.epochs):
            yield make_schedule(table, exact, batch_size=size, grouping="random", seed=self.seed, epoch=epoch)

    def _check_grows(self) -> None:
        """Raise a PaddingError that names two shapes where the cost falls as a length grows."""
        low, high = self.rows.min(axis=0), self.rows.max(axis=0)
        middle = np.sort(self.rows, axis=0)[len(self.rows) // 2]
        for base in (low, middle, high):
            for m, name in enumerate(self.names):
                lengths = np.unique(self.rows[:, m])
                line = np.repeat(base[None], len(lengths), axis=0)
                line[:, m] = lengths
                costs = self._cost(line)
                falls = np.flatnonzero(np.diff(costs) < -1e-9 * costs[:-1])
                if len(falls):
                    a, b = falls[0], falls[0] + 1
                    raise PaddingError(
                        f"the cost falls from {costs[a]:g} to {costs[b]:g} as {name!r} grows, from "
                        f"{self._tell(line[a])} to {self._tell(line[b])}; a cost must never fall as lengths grow"
                    )

    def _check_budget(self) -> None:
        """Raise a PlanError where a sample alone exceeds the batch budget; else price what exceeds it out."""
        if not self._budget:
            return
        sizes = self.batch_sizes(self.rows)
        if (sizes < 1).any():
            row = self.rows[int(np.argmin(sizes))]
            sample = int(np.flatnonzero((self._aligned(self._table.values) == row).all(axis=1))[0])
            raise PlanError(
                f"sample {sample}, padded to {self._tell(row)}: {self._budget.multiple} of it exceed the batch budget "
                f"of {self._budget.limit:g}; raise the budget, or truncate or drop long samples before planning"
            )
        self._penalty = 1e3 * float(self._cost(self.rows.max(axis=0)[None])[0] * self.weights.sum())

    def _tell(self, row: np.ndarray) -> str:
        lengths = self.restore(row[None])[0].tolist()
        return "(" + ", ".join(f"{name} {length}" for name, length in zip(self.given, lengths, strict=True)) + ")"


def distinct_rows(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of ``(n, M)``, sorted, and the sum of the weights of each.

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


def check_alignment(names: tuple[str, ...], alignment: int | Mapping[str, int]) -> dict[str, int]:
    """The alignment of each modality; 1 where a mapping doesn't name it."""
    if not isinstance(alignment, Mapping):
        alignment = dict.fromkeys(names, alignment)
    unknown = [name for name in alignment if name not in names]
    if unknown:
        raise LengthError(f"got an alignment for {unknown}; the lengths have {list(names)}")
    for name, step in alignment.items():
        check_whole(f"alignment[{name!r}]", step, 1, LengthError)
    return {name: int(alignment.get(name, 1)) for name in names}
