"""Local search for k shapes over several length axes, for k = 1, 2, 3, ...

Each k starts from the shapes of k - 1 and one more, so more shapes are never worse. A shape moves by
line searches: along one modality, two that vary together, or all, every position is priced at once from a histogram of
what the samples would pay elsewhere. To get out of local minima there are other starts, small random shakes of
neighbouring shapes, and swaps of one shape for another, each kept where the line searches end lower, for as long as
the effort allows. Everything follows from the rows, the cost, the seed and the effort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from multimodal_pad.lengths.cost import Cost
from multimodal_pad.planning.lines import Line, make_lines
from multimodal_pad.planning.partition import joint_runs

FEW = 8  # shapes: up to so many, the search is thorough
TOLERANCE = 1e-9  # of the total; a smaller gain is rounding
STARTS = 7  # other starts to descend from, for each number of shapes
SHARES = (0.3, 0.6, 0.85)  # of a shape's rows, where it may be cut
CUTS = 2048  # most cuts that an insertion tries

WORK = 2**24
"""Rows to look at for each number of shapes, at effort 0; as many more for each unit of effort.

At effort 1 that is one to two seconds on one core. Plans for up to three modalities end before it. Work is counted
and not timed, so that a plan is the same everywhere.
"""

CALL = 2048  # rows: the work of looking at a line, beside its rows


class _State(NamedTuple):
    """Shapes, cheapest first, and what they hold."""

    shapes: np.ndarray  # (k, M)
    costs: np.ndarray  # (k,)
    holds: np.ndarray  # (k, n) bool
    ranks: np.ndarray  # (k, n): k's own number where it holds the row, else the number of shapes
    best: np.ndarray  # (n,): the cheapest shape that holds the row
    total: float


class ShapeSearch:
    """The search over one set of rows.

    Args:
        rows: ``(n, M)`` distinct lengths, at least 1.
        weights: ``(n,)`` samples at each row; 0 for a row that must be held all the same.
        cost: per sample, of lengths ``(n, M)``; never falls as lengths grow.
        seed: of the shakes and swaps.
        effort: how many times as many of them as usual; the rows that may be looked at, see :data:`WORK`, grow with it.
    """

    def __init__(self, rows: np.ndarray, weights: np.ndarray, cost: Cost, *, seed: int = 0, effort: float = 1) -> None:
        self._rows = np.ascontiguousarray(rows.T)
        self._weights = np.asarray(weights, np.float64)
        self._levels = [np.unique(lengths) for lengths in self._rows]
        self._cost, self._effort = cost, effort
        self._rng = np.random.default_rng(seed)
        self._lines = make_lines(self._rows, self._weights, cost)
        self._left = self._allowance = WORK * (1.0 + effort)
        self.reset(rows.max(axis=0)[None])

    @property
    def shapes(self) -> np.ndarray:
        """The shapes now, int64 ``(k, M)``, cheapest first."""
        return self._now.shapes

    @property
    def total(self) -> float:
        """The cost of the weights at these shapes."""
        return self._now.total

    def reset(self, shapes: np.ndarray) -> None:
        """Go on from these shapes, which hold every row."""
        self._now, self._stale = self._from(shapes), np.ones(len(shapes), bool)

    def complete(self, count: int) -> None:
        """Descend, and add shapes until there are so many or one more would gain nothing; no shakes or swaps."""
        self._left = self._allowance
        self.descend()
        while len(self.shapes) < count and self._insert():
            self.descend()

    def grow(self) -> Iterator[np.ndarray]:
        """Yield the shapes for k = 1, 2, ...; ends where one more shape would gain nothing."""
        yield self.shapes.copy()
        runs = [joint_runs(self._rows[:, line.order], line.weights, self._cost) for line in self._lines]
        for starts in runs:
            next(starts)
        self._left = self._allowance
        while self._insert():
            self.descend()
            if len(self.shapes) <= FEW:
                for start in self._best([next(starts) for starts in runs]):
                    self._attempt(partial(self._take, start), within=1.1)
            for _ in range(round(self._effort * (4 if len(self.shapes) <= FEW else 1))):
                if self._left <= 0:
                    break
                self._attempt(self._shake)
                if len(self.shapes) <= FEW:
                    self._attempt(self._swap)
            yield self.shapes.copy()
            self._left = self._allowance

    def descend(self) -> None:
        """Move one shape at a time, until no line search lowers the total, or the work is done."""
        while self._stale.any() and self._left > 0:
            k = int(np.argmax(self._stale))
            self._stale[k] = False
            others = self._others(k)
            shape = self._better(self.shapes[k], others)
            if shape is None:
                continue
            now = self._now
            # Shapes that pay for a row which this shape gains or loses, before or now, are looked at again.
            takes = self._within(shape) & (now.costs[now.best] > self._cost(shape[None])[0])
            near = np.union1d(others[now.best == k], now.best[takes])
            self._stale[near[near < len(self.shapes)]] = True
            self._stale[k] = True
            self._replace(k, shape)

    def _attempt(self, change: Callable[[], None], within: float = np.inf) -> None:
        """Change the shapes and descend; restore them if that is no better, or no work is left for it.

        A change that alone makes them worse than ``within`` times the total is not worth the descent.
        """
        if self._left <= 0:
            return
        now, stale = self._now, self._stale
        change()
        if self.total < within * now.total:
            self.descend()
        if not self.total < now.total * (1 - TOLERANCE):
            self._now, self._stale = now, stale

    def _within(self, shape: np.ndarray) -> np.ndarray:
        """Return the rows that a shape holds: bool ``(n,)``."""
        inside = self._rows[0] <= shape[0]
        for rows, length in zip(self._rows[1:], shape[1:], strict=True):
            inside &= rows <= length
        return inside

    def _from(self, shapes: np.ndarray) -> _State:
        """Return the state of these shapes."""
        self._left -= len(shapes) * self._rows.size / 8
        return self._state(shapes, self._cost(shapes), np.stack([self._within(shape) for shape in shapes]))[0]

    def _take(self, state: _State) -> None:
        self._now, self._stale = state, np.ones(len(state.shapes), bool)

    def _best(self, starts: list[np.ndarray]) -> list[_State]:
        """Return the cheapest of other shapes to start from, in the order in which they come."""
        states = [self._from(shapes) for shapes in starts]
        cheapest = np.argsort([state.total for state in states], kind="stable")[:STARTS]
        return [states[number] for number in np.sort(cheapest)]

    def _settle(self, shapes: np.ndarray, costs: np.ndarray, holds: np.ndarray, stale: np.ndarray) -> None:
        """Take shapes with their costs, their rows, and which are to be looked at."""
        self._now, order = self._state(shapes, costs, holds)
        self._stale = stale[order]

    def _state(self, shapes: np.ndarray, costs: np.ndarray, holds: np.ndarray) -> tuple[_State, np.ndarray]:
        """Return the state of shapes sorted by cost, and the order of these."""
        order = np.argsort(costs, kind="stable")
        shapes, costs, holds = shapes[order], costs[order], holds[order]
        dtype = np.min_scalar_type(len(shapes))
        ranks = np.where(holds, np.arange(len(shapes), dtype=dtype)[:, None], dtype.type(len(shapes)))
        best = ranks.min(axis=0)
        return _State(shapes, costs, holds, ranks, best, float(costs[best] @ self._weights)), order

    def _replace(self, k: int, shape: np.ndarray) -> None:
        shapes, costs, holds = self._now.shapes.copy(), self._now.costs.copy(), self._now.holds.copy()
        shapes[k], costs[k], holds[k] = shape, self._cost(shape[None])[0], self._within(shape)
        self._settle(shapes, costs, holds, self._stale)

    def _others(self, k: int) -> np.ndarray:
        """Return the cheapest shape but k that holds each row, ``(n,)``; the number of shapes where none does."""
        ranks = self._now.ranks
        own = ranks[k].copy()
        ranks[k] = len(ranks)
        others = ranks.min(axis=0)
        ranks[k] = own
        return others

    def _gain(self, shape: np.ndarray, others: np.ndarray) -> float:
        """Return the saving by a shape against the other ones; rows that only it holds count as its cost."""
        inside, price = self._within(shape), self._cost(shape[None])[0]
        saved = np.append(np.maximum(self._now.costs - price, 0), -price)
        return float(saved[others[inside]] @ self._weights[inside])

    def _better(self, shape: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """Return a better place for a shape on one of the lines through it, or None where there is none."""
        least = self._gain(shape, others) + TOLERANCE * self.total
        longer = self._rows > shape[:, None]
        ways = longer.sum(axis=0, dtype=np.min_scalar_type(len(shape)))  # in how many modalities a row is longer
        self._left -= self._rows.size / 8
        for line in self._lines:
            if self._left <= 0:
                break
            inside = ways == longer[list(line.free)].sum(axis=0, dtype=ways.dtype)  # only where the shape may grow
            gain, moved = self._search_line(line, shape, others, inside)
            if gain > least:
                return self._tighten(moved, others)
        return None

    def _search_line(
        self, line: Line, shape: np.ndarray, others: np.ndarray, inside: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return the gain (or less) of the best position on a line, and the shape there.

        ``inside (n,)`` are the rows that the shape holds if it is long enough along the line.
        """
        costs, count = self._now.costs, len(self._now.costs)
        self._left -= len(others) * (len(line.free) + 3) / 4 + len(line.starts) * (count + 1 + len(shape)) / 4 + CALL
        others, inside = others[line.order], inside[line.order]
        held = np.bincount(
            line.position * (count + 1) + others,
            weights=line.weights * inside,
            minlength=len(line.starts) * (count + 1),
        )
        held = held.reshape(-1, count + 1).cumsum(axis=0)  # at each position, by what the rows pay elsewhere
        shapes = np.empty((len(line.starts), len(shape)), np.int64)
        shapes[:] = shape
        if line.lengths is not None:
            shapes[:, line.free[0]] = line.lengths
        else:
            for m in line.free:
                longest = np.maximum.reduceat(self._rows[m, line.order] * inside, line.starts)
                shapes[:, m] = np.maximum.accumulate(np.maximum(longest, 1))
        prices = self._cost(shapes)
        saved = np.maximum(costs - prices[:, None], 0)
        gains = np.einsum("pk,pk->p", saved, held[:, :count]) - prices * held[:, count]
        forced = inside & (others == count)
        if forced.any():
            gains[: line.position[np.flatnonzero(forced)[-1]]] = -np.inf
        place = np.argmax(gains)
        return float(gains[place]), shapes[place]

    def _tighten(self, shape: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the shape cut to the rows that would pay more elsewhere."""
        pays = np.append(self._now.costs, np.inf)[others]
        members = self._within(shape) & (pays > self._cost(shape[None])[0])
        return self._rows[:, members].max(axis=1) if members.any() else shape

    def _insert(self) -> bool:
        """Add the shape that saves most, of cuts through the present shapes and of rows; False if none does."""
        now = self._now
        if now.total <= self._cost(self._rows.T) @ self._weights * (1 + TOLERANCE):
            return False
        candidates = np.unique(np.array([*self._cuts(), *self._wasteful_rows()]), axis=0)
        self._left -= len(candidates) * self._rows.size / 8
        paid, prices = now.costs[now.best], self._cost(candidates)
        gains = [
            np.maximum(paid - price, 0) @ (self._weights * self._within(candidate))
            for candidate, price in zip(candidates, prices, strict=True)
        ]
        grown = []
        for start in np.argsort(-np.array(gains), kind="stable")[:3]:
            shape = candidates[start]
            for _ in range(3):
                moved = self._better(shape, now.best)
                if moved is None:
                    break
                shape = moved
            grown.append(shape)
        gains = np.array([self._gain(shape, now.best) for shape in grown])
        shape = self._tighten(grown[np.argmax(gains)], now.best)
        if gains.max() <= TOLERANCE * now.total:
            return False
        held = self._within(shape)
        self._settle(
            np.vstack([now.shapes, shape]),
            np.append(now.costs, self._cost(shape[None])),
            np.vstack([now.holds, held]),
            np.append(np.isin(np.arange(len(now.shapes)), now.best[held]), True),
        )
        return True

    def _cuts(self) -> Iterator[np.ndarray]:
        """Yield for each shape and modality what holds the shorter part of the shape's rows.

        Where there are too many, they are of the shapes whose rows pay most.
        """
        now = self._now
        most = max(1, CUTS // (len(SHARES) * len(self._rows)))
        chosen = np.arange(len(now.shapes))
        if len(chosen) > most:
            paid = np.bincount(now.best, now.costs[now.best] * self._weights, minlength=len(chosen))
            chosen = np.sort(np.argsort(-paid, kind="stable")[:most])
        for k in chosen:
            rows = self._rows[:, self._now.best == k]
            if not rows.size:
                continue
            for lengths in rows:
                ordered = np.sort(lengths)
                for share in SHARES:
                    limit = ordered[int(share * (len(ordered) - 1))]
                    yield rows[:, lengths <= limit].max(axis=1)

    def _wasteful_rows(self) -> Iterator[np.ndarray]:
        """Yield rows drawn by their costs."""
        pays = self._now.costs[self._now.best] * self._weights
        drawn = self._rng.choice(len(pays), 24, p=pays / pays.sum())
        yield from self._rows[:, drawn].T

    def _shake(self) -> None:
        """Move up to 8 neighbouring shapes at random by some 6 %, or to the next length."""
        now = self._now
        logs = np.log(now.shapes)
        distance = ((logs - logs[self._rng.integers(len(logs))]) ** 2).sum(axis=1)
        chosen = np.argsort(distance, kind="stable")[:8]
        shapes, holds = now.shapes.copy(), now.holds.copy()
        factors = np.exp(self._rng.normal(0, 0.06, (len(chosen), shapes.shape[1])))
        nudges = self._rng.choice([-1, 0, 0, 0, 0, 0, 1], factors.shape)
        for m, levels in enumerate(self._levels):
            here = np.searchsorted(levels, shapes[chosen, m])
            there = np.searchsorted(levels, shapes[chosen, m] * factors[:, m])
            there = np.where(there == here, here + nudges[:, m], there)
            shapes[chosen, m] = levels[np.clip(there, 0, len(levels) - 1)]
        for k in chosen:
            holds[k] = self._within(shapes[k])
        self._hold_all(shapes, holds, np.isin(np.arange(len(shapes)), chosen), chosen[np.argmax(now.costs[chosen])])

    def _swap(self) -> None:
        """Take a shape away at random, and add the one that then saves most."""
        away = self._rng.integers(len(self.shapes))
        shapes, holds = np.delete(self._now.shapes, away, axis=0), np.delete(self._now.holds, away, axis=0)
        self._hold_all(shapes, holds, np.ones(len(shapes), bool), len(shapes) - 1)
        self.descend()
        self._insert()

    def _hold_all(self, shapes: np.ndarray, holds: np.ndarray, stale: np.ndarray, k: int) -> None:
        """Go on from these shapes, number k lengthened to hold the rows that none holds."""
        lost = ~holds.any(axis=0)
        if lost.any():
            shapes[k] = np.maximum(shapes[k], self._rows[:, lost].max(axis=1))
            holds[k] = self._within(shapes[k])
        self._settle(shapes, self._cost(shapes), holds, stale)
