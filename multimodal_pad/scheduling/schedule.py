"""An epoch as a pure function: which samples are in which batch, and at which batch shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost, position_count
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.bias import BiasReport, measure_bias
from multimodal_pad.scheduling.checks import check_covered, choose_batch_size, choose_cost
from multimodal_pad.scheduling.dealing import shuffled
from multimodal_pad.scheduling.groupings import choose_grouping
from multimodal_pad.scheduling.policy import Deal, Grouping, Policy
from multimodal_pad.scheduling.steps import Steps

WINDOW = 1024
"""Default of batches per shuffle window.

Measured (``docs/scale.md``): a window of fewer batches than there are shapes adds padding, and a longer one saves
none. But with some tens of batches the mean lengths of neighbouring batches are still correlated, by -0.01; with so
many they are not, and a window takes neither memory nor time.
"""


class Schedule:
    """The steps of one epoch, worked out window by window on demand.

    ``len(schedule)`` is the number of steps, ``schedule[step]`` the padded lengths ``(M,)`` and the sample numbers
    ``(B,)`` of one of them, and iterating gives all in turn. :attr:`lengths`, :attr:`starts` and :attr:`ids` are those
    of all steps together (see :class:`Steps`): 8 bytes a sample, kept once asked for. :func:`make_schedule` makes one.

    Args:
        deal: gives the steps of each window.
        lengths: the length table that is dealt.

    >>> from multimodal_pad import Ladder
    >>> table = LengthTable(("text",), np.array([[3], [12], [4], [9]]))
    >>> schedule = make_schedule(table, Ladder({"text": [4, 16]}), batch_size=2)
    >>> [(shape.tolist(), ids.tolist()) for shape, ids in schedule]
    [([4], [2, 0]), ([16], [3, 1])]
    """

    def __init__(self, deal: Deal, lengths: LengthTable) -> None:
        self._deal, self._lengths = deal, lengths
        self._last: tuple[int, Steps] | None = None  # the window that was looked up last

    def __len__(self) -> int:
        return int(self._deal.starts[-1])

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        return next(iter(self.steps(step, step + 1)))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in self.parts():
            yield from part

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[Steps]:
        """Yield the steps from ``start`` up to ``stop``, or to the end, a window at a time.

        Raises:
            PaddingError: numbers below 0 or out of order.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop:
            raise PaddingError(f"got the steps from {start} up to {stop}; give 0 <= start <= stop")
        starts = self._deal.starts
        for number in range(int(np.searchsorted(starts, start, side="right")) - 1, len(starts) - 1):
            first, end = starts[number : number + 2].tolist()
            if first >= stop:
                return
            yield self._window(number).part(max(start, first) - first, min(stop, end) - first)

    def steps(self, start: int = 0, stop: int | None = None) -> Steps:
        """Return the steps from ``start`` up to ``stop`` together."""
        parts = list(self.parts(start, stop))
        return Steps.join(parts) if parts else self._window(0).part(0, 0)

    def _window(self, number: int) -> Steps:
        last = self._last
        if last is None or last[0] != number:
            last = self._last = (number, self._deal.window(number))
        return last[1]

    @cached_property
    def _all(self) -> Steps:
        return self.steps()

    @property
    def lengths(self) -> np.ndarray:
        """The padded lengths of each step, int64 ``(steps, M)``."""
        return self._all.lengths

    @property
    def starts(self) -> np.ndarray:
        """Where the rows of each step begin in :attr:`ids`, and where they end, int64 ``(steps + 1,)``."""
        return self._all.starts

    @property
    def ids(self) -> np.ndarray:
        """Sample numbers, step after step, int64 ``(rows,)``; EMPTY where a row only fills up."""
        return self._all.ids

    @property
    def batch_sizes(self) -> np.ndarray:
        """Rows of each step, int64 ``(steps,)``."""
        return self._all.batch_sizes

    @property
    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows ``(k,)`` and padded lengths ``(k, M)`` of its steps, each once."""
        return self._deal.used

    def bias_report(self, labels: np.ndarray | None = None, *, seed: int = 0) -> BiasReport:
        """Measure how far the grouping takes the order from a fully random one.

        Args:
            labels: of each sample of the table, ``(N,)``: classes (whole numbers) or values (floats); None leaves
                labels out of the report.
            seed: of the random order that is compared with.

        Raises:
            PaddingError: labels of another number than the samples, or neither classes nor values.
        """
        return measure_bias(self._all, self._lengths, labels, seed)


class Schedules:
    """The epochs of one length table and policy; what they share is worked out once.

    The arguments are those of :func:`make_schedule`, and so are the errors; the lengths are covered.
    """

    def __init__(
        self,
        lengths: LengthTable,
        policy: Policy,
        *,
        batch_size: int | None = None,
        grouping: Grouping | str | None = None,
        window: int = WINDOW,
        seed: int = 0,
        cost: Cost = position_count,
        keep: np.ndarray | None = None,
    ) -> None:
        batch_size, grouping = choose_batch_size(policy, batch_size), choose_grouping(policy, grouping)
        check_whole("window", window, 1)
        check_whole("seed", seed, 0, most=None)
        self._lengths, self._seed = lengths.select(policy.modalities), seed
        # None stands for all: an array of numbers would take as much memory as a column of the table.
        kept = None if keep is None or keep.all() else np.flatnonzero(keep)
        self._count = len(lengths) if kept is None else len(kept)
        if not self._count:
            raise PaddingError(
                "no samples are left to deal: every one of them is longer than every bucket; add a longer one"
            )
        self._prepare = partial(
            grouping.prepare,
            self._lengths,
            policy,
            batch_size=batch_size,
            window=window,
            seed=seed,
            cost=cost,
            keep=kept,
        )

    @cached_property
    def _deal(self) -> Callable[[np.ndarray, int], Deal]:
        return self._prepare()

    def epoch(self, epoch: int) -> Schedule:
        """Return the schedule of one epoch."""
        check_whole("epoch", epoch, 0)
        return Schedule(self._deal(shuffled(self._count, self._seed, epoch), epoch), self._lengths)


def make_schedule(
    lengths: LengthTable,
    policy: Policy,
    *,
    batch_size: int | None = None,
    grouping: Grouping | str | None = None,
    window: int = WINDOW,
    seed: int = 0,
    epoch: int = 0,
    cost: Cost | None = None,
    keep: np.ndarray | None = None,
) -> Schedule:
    """Deal the samples of an epoch to batches.

    ``random``: batches are drawn from a random order and then rounded up, as Algorithm 1 draws
    them. ``length``: within each window of the random order, samples are dealt to the cheapest
    shape that holds them, and what does not fill a batch waits for the next window. In the last window
    (and in one where over half would wait) the batches of larger shapes are filled up with samples of
    smaller ones, and only what is left then, at the end, with empty rows. The steps of a window are in
    random order. Each sample appears once.

    The result depends on the arguments and NumPy's generator alone, so every host computes the same.

    Args:
        lengths: the length table, in the column order of ``policy.modalities``.
        policy: rounds lengths up to buckets.
        batch_size: samples per batch, where the policy leaves it open (a plan does not).
        grouping: ``"random"``, ``"length"`` or a :class:`~multimodal_pad.scheduling.policy.Grouping`; by default the
            one that the policy's plan was made for, or ``"length"``.
        window: batches per shuffle window of ``"length"``: below the number of shapes, fewer of them make batches more
            random and leave more padding.
        seed: of the random order.
        epoch: number of the epoch, which changes the order.
        cost: by which ``"length"`` orders shapes, cheapest first; by default the plan's, or positions.
        keep: bool ``(N,)``, the samples to deal; by default all.

    Raises:
        PaddingError: a batch size or window below 1, no batch size and a policy that leaves it open; another batch
            size, grouping or cost than the policy's plan was made for; a negative seed or epoch, an unknown
            grouping, no samples kept, or too many shapes to group by length.
        UncoveredLengthError: a sample is longer than every bucket, or ``"random"`` could draw a batch
            that is.

    >>> from multimodal_pad import Ladder
    >>> table = LengthTable(("text",), np.array([[3], [12], [4], [9]]))
    >>> schedule = make_schedule(table, Ladder({"text": [4, 16]}), batch_size=2)
    >>> sorted((int(length), sorted(ids.tolist())) for (length,), ids in schedule)
    [(4, [0, 2]), (16, [1, 3])]
    """
    options = {"batch_size": batch_size, "grouping": grouping, "window": window, "seed": seed, "keep": keep}
    schedules = Schedules(lengths, policy, cost=choose_cost(policy, cost), **options)
    check_covered(lengths, policy, keep)
    return schedules.epoch(epoch)
