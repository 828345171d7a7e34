"""Policies and groupings: the two things that make samples into batches of few shapes."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from multimodal_pad.errors import LengthError, UncoveredLengthError
from multimodal_pad.layouts.fitting import check_rows, check_together
from multimodal_pad.layouts.layout import BatchShape, Layout
from multimodal_pad.layouts.padded import PADDED
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.table import LONGEST, LengthTable
from multimodal_pad.scheduling.steps import Steps

_PROBES = 32  # rows of lengths at which policies are compared, since functions can't be


class Deal(Protocol):
    """The batches of one epoch, window by window.

    Attributes:
        starts: int64 ``(windows + 1,)``: the number of the first step of each window, and of the steps.
        used: the batch sizes ``(k,)`` and lengths ``(k, M)`` of the shapes that the epoch has.
    """

    starts: np.ndarray

    @property
    def used(self) -> tuple[np.ndarray, np.ndarray]: ...  # noqa: D102  described above

    def window(self, number: int) -> Steps:
        """Return the steps of one window."""
        ...


class Grouping(ABC):
    """Which samples share a batch: a value, which the API takes by its name too.

    A new grouping begins here: :meth:`prepare` deals an epoch's samples to batches, and :meth:`paid` says
    what a plan is made for.

    Attributes:
        name: what files and options call it.
        draws_first: whether a batch is drawn before its shape is known. Then any samples may meet in a batch, and all
            batches have one size.

    >>> from multimodal_pad import Ladder, make_schedule
    >>> from multimodal_pad.scheduling.groupings import LENGTH, RANDOM
    >>> table, ladder = LengthTable(("text",), np.array([[3], [12], [4], [9]])), Ladder({"text": [4, 16]})
    >>> for grouping in (LENGTH, RANDOM):
    ...     print(grouping, make_schedule(table, ladder, batch_size=2, seed=2, grouping=grouping).lengths.tolist())
    length [[16], [4]]
    random [[16], [16]]
    """

    name: str
    draws_first: bool

    @abstractmethod
    def prepare(
        self,
        lengths: LengthTable,
        policy: Policy,
        *,
        batch_size: int | None,
        window: int,
        seed: int,
        cost: Cost,
        keep: np.ndarray | None,
    ) -> Callable[[np.ndarray, int], Deal]:
        """Prepare what all epochs share.

        Args:
            lengths: the length table, covered by the policy.
            policy: rounds up.
            batch_size: of every batch; None where the policy has its own.
            window: batches per shuffle window.
            seed: of the order.
            cost: by which shapes are ordered, cheapest first.
            keep: numbers of the samples to deal; None for all.

        Returns:
            ``(order, epoch) -> Deal``, where ``order`` is a permutation of the samples that are dealt, by their places
            among those kept.
        """

    @abstractmethod
    def paid(
        self,
        lengths: LengthTable,
        *,
        batch_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        keep: np.ndarray | None = None,
    ) -> Iterator[Steps]:
        """Return what is rounded up in an epoch, every batch full: steps whose shapes are lengths as they come.

        Each sample of a step costs what the shape costs that holds the step's lengths. ``keep`` is bool ``(N,)``.
        """

    def check_shares(self, count: int) -> None:
        """Raise a PaddingError where batches are not dealt so that they can be shared out over so many devices."""
        del count  # any run of a padded batch's rows is a batch

    def __str__(self) -> str:
        return self.name


class Policy(ABC):
    """The rule that takes lengths to batch shapes; all that makes a run what it is.

    A policy works on integer arrays ``(n, M)`` whose columns follow ``policy.modalities``; a row is a sample, or the
    per-modality maxima of a batch. Lengths of shapes are at least 1, so that a modality that is missing in a whole
    batch still has a static shape. A subclass defines :meth:`round_up`, :meth:`lengths` and :meth:`truncate`, and
    serves wherever a built-in policy does.

    Attributes:
        modalities: names of the M columns.
        layout: how the samples of its batches lie.
        grouping: the grouping that its shapes were chosen for; None where any will do.
        cost: the cost per sample that its shapes were chosen by; None where there is none.
        compile_all: whether all of its shapes are compiled ahead, those that no epoch uses too.
        plan: the plan that it follows; None where there is none.
        promised: real / padded cost that its shapes were made for, with length grouping or its own; None where that is
            not known.

    >>> class Halves(Policy):
    ...     modalities = ("text",)
    ...     def lengths(self):
    ...         return np.array([[32], [64]])
    ...     def truncate(self, lengths):
    ...         return np.minimum(lengths, 64)
    ...     def round_up(self, lengths):
    ...         self.check_held(lengths, self.covers(lengths))
    ...         return np.where(lengths > 32, 64, 32)
    >>> Halves().round_up(np.array([[3], [40]])).tolist(), Halves().covers(np.array([[40], [65]])).tolist()
    ([[32], [64]], [True, False])
    """

    modalities: tuple[str, ...]
    layout: Layout = PADDED
    grouping: Grouping | None = None
    cost: Cost | None = None
    compile_all: bool = False
    plan: Any = None
    promised: float | None = None

    @abstractmethod
    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths ``(n, M)`` of the shapes that hold each row of ``lengths (n, M)``.

        Raises:
            UncoveredLengthError: a row is longer than every bucket; names row, modality, limit.
        """

    @abstractmethod
    def lengths(self) -> np.ndarray | None:
        """Return every row that ``round_up`` can give, ``(k, M)``, or None where they are unbounded."""

    @abstractmethod
    def truncate(self, lengths: np.ndarray) -> np.ndarray:
        """Return the longest lengths ``(n, M)``, at most those given, that the policy covers."""

    @property
    def finite(self) -> bool:
        """Whether :meth:`lengths` are finitely many, which may still be very many."""
        return True

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Return which rows fit a bucket, bool ``(n,)``."""
        return (self.truncate(lengths) == lengths).all(axis=1)

    def batch_sizes(self, padded: np.ndarray) -> np.ndarray | None:
        """Return samples per batch ``(n,)`` at each of the shapes' lengths; None where the policy leaves them open."""
        del padded
        return None

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the batch shape that holds samples of ``lengths (n, M)`` together.

        Args:
            lengths: of the samples.
            batch_size: of the batch, where the policy leaves it open; by default as many as there are.
            numbers: of the samples, for errors.

        Raises:
            UncoveredLengthError: none does; the sample is named.
            SampleError: there are more samples than a batch has.
            PaddingError: another batch size than the policy's.
        """
        needed = self.round_up(check_together(self, np.asarray(lengths), numbers)[None])
        own = self.batch_sizes(needed)
        size = batch_size if own is None else check_rows(0, int(own[0]), batch_size)
        size = len(lengths) if size is None else check_rows(len(lengths), size)
        return BatchShape.of(size, dict(zip(self.modalities, needed[0].tolist(), strict=True)), self.layout)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the policy does: equal for policies that give the same shapes.

        By default of its class, its shapes, and what it rounds some lengths up to.
        """
        probes = 1 + np.arange(_PROBES * len(self.modalities)).reshape(_PROBES, -1) * 37 % 401
        rounded = self.round_up(self.truncate(probes))
        shapes, sizes = self.lengths() if self.finite else None, self.batch_sizes(rounded)
        answers = [None if array is None else np.asarray(array).tolist() for array in (shapes, rounded, sizes)]
        kind = [type(self).__module__, type(self).__qualname__, self.modalities, self.layout.name]
        return digest(json.dumps([*kind, None if self.grouping is None else self.grouping.name, *answers]))

    def number_shapes(self, blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct shapes ``(K, M)`` that rows of lengths round up to, and each row's place, ``(n,)``."""
        padded = np.concatenate([self._rounded_up(block) for block in blocks])
        of = np.zeros(len(padded), np.int64)
        for column in padded.T:
            values, codes = compact(column)
            of = compact(of * len(values) + codes)[1]
        one = np.empty(int(of.max()) + 1, np.int64)
        one[of] = np.arange(len(of))
        return padded[one].astype(np.int64), of

    def _rounded_up(self, lengths: np.ndarray) -> np.ndarray:
        """Round up as :meth:`round_up` does, to int32."""
        padded = np.asarray(self.round_up(lengths))
        if padded.max(initial=1) > LONGEST or padded.min(initial=1) < 1:
            row, column = np.argwhere((padded > LONGEST) | (padded < 1))[0].tolist()
            raise LengthError(
                f"{self!r} rounds {lengths[row, column]} positions of {self.modalities[column]!r} up to "
                f"{padded[row, column]}; bucket lengths are 1 to {LONGEST:,}"
            )
        return padded.astype(np.int32)

    def efficiency(self, lengths: LengthTable, cost: Cost) -> float:
        """Return real / padded cost of lengths that are covered, every batch full; 1 where nothing is padded."""
        padded = float(cost(self.round_up(lengths.values)).sum())
        return float(cost(lengths.values).sum()) / padded if padded else 1.0

    def check_lengths(self, lengths: LengthTable, keep: np.ndarray | None = None) -> None:
        """Warn where the policy was made for other lengths, and serves these (those kept) much worse."""
        del lengths, keep  # by default it was made for none

    @property
    def plan_options(self) -> Mapping[str, Any]:
        """The options that its plan was made with, as far as they are known; empty where it follows no plan."""
        return {}

    def plan_anew(self, lengths: LengthTable, options: Mapping[str, Any]) -> Policy | None:
        """Return a policy of its kind with a ``plan`` for other lengths, by :attr:`plan_options` that may differ.

        None where plans of its kind are of padded shapes.
        """
        del lengths, options
        return None

    def why_not(self, lengths: np.ndarray) -> str:
        """Say why a row of lengths ``(M,)``, which is not covered, fits no bucket."""
        limits = self.truncate(lengths[None])[0]
        column = int(np.argmax(lengths > limits))
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the longest bucket has {limits[column]}"
        )

    def check_held(self, lengths: np.ndarray, held: np.ndarray) -> None:
        """Raise an UncoveredLengthError that names the first row that is not held."""
        if not held.all():
            row = int(np.argmin(held))
            raise UncoveredLengthError(
                f"row {row}: {self.why_not(lengths[row])}; add a longer bucket, or truncate or drop long samples on "
                "purpose"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.modalities)})"


def compact(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers, ascending, and the place of each code among them; no sorting where they are small.

    >>> compact(np.array([7, 3, 7]))
    (array([3, 7]), array([1, 0, 1]))
    """
    top = int(codes.max()) + 1
    if top > max(4 * len(codes), 2**16):
        distinct, places = np.unique(codes, return_inverse=True)
        return distinct, places
    seen = np.zeros(top, bool)
    seen[codes] = True
    distinct = np.flatnonzero(seen)
    place = np.empty(top, np.int64)
    place[distinct] = np.arange(len(distinct))
    return distinct, place[codes]


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
