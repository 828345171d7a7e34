"""Pieces that wait for a batch, and the choice of those that share one: in the cheapest shape that holds them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.serving.pieces import Piece

Taken = tuple[BatchShape, list[Piece]]
"""A batch to be: its shape, and the pieces in it."""

_Entry = tuple[int, Piece]
"""A piece, and its number by order of arrival."""

_Picked = tuple[int, _Entry]
"""An entry, and the queue that it was taken from."""


class Waiting:
    """Queues of pieces, one for each planned shape: a piece waits at the cheapest that holds it alone.

    A batch is taken for one of the queues, in the order of arrival. Rows, or positions, that it has left take
    pieces of cheaper shapes, since they are paid for.

    Args:
        shapes: the planned shapes, of one layout.
        smaller: further shapes for batches that hold less.
        modalities: names, in the order of the pieces' lengths.
        cost: of a sample, by which shapes are ordered.

    >>> from multimodal_pad import BatchShape, position_count
    >>> shapes = [BatchShape.of(2, {"text": n}) for n in (4, 8)]
    >>> waiting = Waiting(shapes, [], ("text",), position_count)
    >>> waiting.add([Piece({}, (n,), owner=n) for n in (3, 7, 2, 1)])
    >>> waiting.full(), len(waiting)
    (0, 4)
    >>> [(str(shape), [piece.owner for piece in pieces]) for shape, pieces in waiting.batches()]
    [('2 x (text 4)', [3, 2]), ('2 x (text 8)', [7, 1])]
    """

    def __init__(
        self, shapes: Sequence[BatchShape], smaller: Sequence[BatchShape], modalities: Sequence[str], cost: Cost
    ) -> None:
        def cheapest_first(some: Iterable[BatchShape]) -> list[BatchShape]:
            return sorted(some, key=lambda shape: shape.price(cost, modalities))

        self._names = tuple(modalities)
        self._order = [self._names.index(name) for name, _ in shapes[0].lengths]
        self._shapes, self._all = cheapest_first(shapes), cheapest_first([*shapes, *smaller])
        self._limits = {shape: [dict(shape.lengths)[name] for name in modalities] for shape in self._all}
        self._end_to_end = shapes[0].layout.end_to_end
        self._queues: list[deque[_Entry]] = [deque() for _ in self._shapes]
        self._sums = np.zeros((len(self._shapes), len(self._names)), np.int64)
        self._arrived = self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, pieces: Iterable[Piece]) -> None:
        """Add pieces behind those that wait; each fits a planned shape."""
        for piece in pieces:
            place = next(i for i, shape in enumerate(self._shapes) if _fits(piece.lengths, self._limits[shape]))
            self._put(place, (self._arrived, piece))
            self._arrived += 1

    def oldest(self) -> int | None:
        """Return the queue of the piece that has waited longest, or None."""
        places = [place for place, queue in enumerate(self._queues) if queue]
        return min(places, key=lambda place: self._queues[place][0][0], default=None)

    def first(self) -> Piece | None:
        """Return the piece that has waited longest."""
        place = self.oldest()
        return None if place is None else self._queues[place][0][1]

    def full(self) -> int | None:
        """Return a queue that fills a batch, or None."""
        if self._end_to_end:
            capacity, size = self._limits[self._shapes[0]], self._shapes[0].batch_size
            return self.oldest() if self._count >= size or (self._sums.sum(axis=0) >= capacity).any() else None
        for place, shape in enumerate(self._shapes):
            if len(self._queues[place]) >= shape.batch_size:
                return place
        return None

    def batches(self) -> Iterator[Taken]:
        """Yield all batches: full ones first, and then the most expensive shapes, so that the rest is cheap."""
        while self._count:
            place = self.full()
            if place is None:
                place = max(place for place, queue in enumerate(self._queues) if queue)
            taken = self.take(place)
            if taken is not None:
                yield taken

    def take_best(self) -> Taken | None:
        """Take a full batch, or else the oldest piece's; None where no piece waits."""
        place = self.full()
        return self.take_oldest() if place is None else self.take(place)

    def take_oldest(self) -> Taken | None:
        """Take a batch for the piece that has waited longest; None where no piece waits."""
        place = self.oldest()
        return None if place is None else self.take(place)

    def take(self, place: int, claim: Callable[[Piece], bool] = lambda _: True) -> Taken | None:
        """Take a batch for a queue.

        Args:
            place: of the queue, which is not empty.
            claim: called for each piece that is taken, for some of them twice; where it is False, the piece is dropped.

        Returns:
            The batch, or None where all of its pieces were dropped.
        """
        picked: list[_Picked] = []
        shape = self._shapes[place]
        self._pick(place, shape, picked, claim)
        if not picked:
            return None
        self._put_back(shape, picked)
        shape = next((shape for shape in self._all if self._holds(shape, picked)), shape)
        for other in reversed(range(len(self._queues))):
            if other != place and self._queues[other]:
                self._pick(other, shape, picked, claim)
        self._put_back(shape, picked)
        return shape, [piece for _, (_, piece) in picked]

    def _pick(
        self,
        place: int,
        shape: BatchShape,
        picked: list[_Picked],
        claim: Callable[[Piece], bool],
    ) -> None:
        """Move pieces that a batch of the shape can also hold to ``picked``, in order of arrival."""
        limits, queue, passed, misses = self._limits[shape], self._queues[place], [], 0
        left = limits
        if self._end_to_end:
            left = (limits - np.sum([piece.lengths for _, (_, piece) in picked], axis=0, dtype=int)).tolist()
        while queue and len(picked) < shape.batch_size and misses < shape.batch_size:
            entry = queue.popleft()
            lengths = entry[1].lengths
            if not _fits(lengths, left):
                passed.append(entry)
                misses += 1
                continue
            self._count -= 1
            self._sums[place] -= lengths
            if claim(entry[1]):
                picked.append((place, entry))
                if self._end_to_end:
                    left = [room - length for room, length in zip(left, lengths, strict=True)]
        queue.extendleft(reversed(passed))

    def _holds(self, shape: BatchShape, picked: Sequence[_Picked]) -> bool:
        lengths = np.array([piece.lengths for _, (_, piece) in picked])[:, self._order]
        return shape.layout.holds(shape, lengths)

    def _put_back(self, shape: BatchShape, picked: list[_Picked]) -> None:
        """Leave the pieces that a batch holds, which are all picked ones, unless pairs of tiles are listed."""
        while len(picked) > 1 and not self._holds(shape, picked):
            kept = len(picked) * 7 // 8
            for place, entry in picked[kept:]:
                self._put(place, entry)
                self._queues[place] = deque(sorted(self._queues[place], key=lambda entry: entry[0]))
            del picked[kept:]

    def _put(self, place: int, entry: _Entry) -> None:
        self._queues[place].append(entry)
        self._count += 1
        self._sums[place] += entry[1].lengths


def _fits(lengths: Sequence[int], limits: Sequence[int]) -> bool:
    return all(length <= limit for length, limit in zip(lengths, limits, strict=True))
