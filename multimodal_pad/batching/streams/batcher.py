"""An iterable of unknown length to a stream of batches, without a length table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, Unpack

import numpy as np

from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.batching.streams.buffer import StreamBuffer, Taken
from multimodal_pad.batching.streams.intake import CHUNK, Waiting
from multimodal_pad.batching.streams.longest import with_longest, within_longest
from multimodal_pad.batching.streams.options import StreamKeywords, StreamOptions
from multimodal_pad.batching.streams.reader import StreamReader
from multimodal_pad.batching.streams.staleness import PlanReport, RecentLengths
from multimodal_pad.errors import PaddingError, PlanWarning
from multimodal_pad.layouts.layout import BatchOfLayout, BatchShape, BatchSpec
from multimodal_pad.lengths.cost import BatchBudget, Cost, position_count
from multimodal_pad.lengths.samples import EMPTY, Sample, check_whole
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.plan_policy import PolicyLike, as_policy
from multimodal_pad.planning.planner import plan_shapes
from multimodal_pad.scheduling.dealing import policy_shapes
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.scheduling.steps import Steps
from multimodal_pad.spans import READ, span


class _Made(NamedTuple):
    """A batch, and what the ledger needs of it."""

    batch: BatchOfLayout
    steps: Steps
    lengths: LengthTable


class StreamBatcher:
    """Batches of a small set of shapes from any iterable of samples, which is read once and never measured first.

    Samples wait in a bounded buffer until enough of like shape are there (see
    :class:`~multimodal_pad.batching.streams.length_buffer.LengthBuffer`), or until as many of any shapes as a packed
    batch has (:class:`~multimodal_pad.batching.streams.balanced_buffer.BalancedBuffer`), so each comes exactly once, at
    a shape that the policy lists; at the end of the stream short batches are filled up with empty rows. Each ``for``
    loop is one pass over the iterable, in another random order. Samples are numbered from 0 in each pass, and errors
    give these numbers.

    At most ``buffer + 2`` samples are held at a time, and ``prefetch + 1`` batches that are made of others. Arrays that
    may still be written to are copied as they come.

    Args:
        samples: gives ``{modality: (length, *feature_shape), "targets": ...}``. Read in a background thread.
        policy: rounds lengths up to buckets, or has capacities; its modalities are the ones that batches hold. Or a
            plan, or the path of its file. The shares of a packing plan play no part, as a stream is not shared out.
        prefetch: batches made ahead.
        timeout: seconds that the iterable may take for one sample; None for as long as it takes.
        recent: samples whose lengths are kept, to find out when a plan has gone stale.
        options: how samples become batches, such as ``batch_size`` and ``buffer``: the fields of
            :class:`~multimodal_pad.batching.streams.StreamOptions` beside the policy.

    Attributes:
        stats: the ledger of the batches consumed so far, and of the samples dropped and truncated while reading ahead.

    Raises:
        PaddingError: an option out of range, samples that are no iterable, a cost of other modalities than the
            policy's; from the loop: no samples, none that is short enough, or an iterator that a loop before has used.
        SampleError: from the loop: a sample that does not fit the others, named by its number.
        UncoveredLengthError: from the loop: a sample is longer than every bucket and ``long_samples="error"``.
        StreamTimeoutError: from the loop: the iterable takes longer than ``timeout`` for a sample.

    Warns:
        PlanWarning: a sample is dropped or truncated for the first time, or a plan is found to have gone stale.
        ResourceWarning: the iterable still blocks seconds after the loop was left.

    >>> from multimodal_pad import Ladder
    >>> samples = ({"text": np.arange(n), "targets": n % 2} for n in (3, 5, 12))
    >>> batcher = StreamBatcher(samples, Ladder({"text": [8, 16]}), batch_size=2)
    >>> sorted(str(batch.shape) for batch in batcher)
    ['2 x (text 16)', '2 x (text 8)']
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        policy: PolicyLike,
        *,
        prefetch: int = 2,
        timeout: float | None = 300.0,
        recent: int = 4096,
        **options: Unpack[StreamKeywords],
    ) -> None:
        check_whole("prefetch", prefetch, 1)
        check_whole("recent", recent, 1)
        _check_stream(samples, timeout)
        policy = as_policy(policy)
        self.samples, self.prefetch, self.timeout = samples, prefetch, timeout
        self.options = StreamOptions(policy, **options)
        self._intake = self.options.new_intake()
        self._recent = RecentLengths(policy, self.options.sample_cost, recent)
        self._rows: int | BatchBudget | None = self.options.batch_size
        self._longest: Mapping[str, int] | None = None
        self._passes, self._epoch, self._begun = 0, 0, None
        self.stats = PaddingStats(policy.modalities, self.options.sample_cost, policy.layout)

    @classmethod
    def planned(
        cls,
        samples: Iterable[Sample],
        *,
        batch_size: int | BatchBudget,
        plan_from: int = 2048,
        buffer: int = 2048,
        max_shapes: int = 8,
        alignment: int | Mapping[str, int] = 1,
        longest: Mapping[str, int] | None = None,
        modalities: Sequence[str] | None = None,
        cost: Cost = position_count,
        timeout: float | None = 300.0,
        **options: Any,
    ) -> StreamBatcher:
        """Plan the shapes from the first samples of the stream, which the first loop then begins with.

        Args:
            samples: as for the class.
            batch_size: samples per batch, or a :class:`~multimodal_pad.lengths.cost.BatchBudget` for each shape.
            plan_from: how many samples to plan from; all, where there are fewer.
            buffer: as for the class; at least ``plan_from``.
            max_shapes: the compile budget.
            alignment: padded lengths are multiples of it; for all modalities, or per modality.
            longest: the longest lengths that may come, per modality: the plan holds a sample that has them all. Where
                a modality is not named, no sample may be longer than the first ones.
            modalities: which ones to pad, in which order; by default those of the first sample.
            cost: per row, as for :func:`~multimodal_pad.planning.planner.plan_shapes`.
            timeout: as for the class.
            options: the other options of the class.

        Raises:
            PaddingError: no samples, a number out of range, or more samples to plan from than the buffer holds.
            UncoveredLengthError: one of the first samples is longer than ``longest``, and ``long_samples`` is
                ``"error"``; cut or left out they are planned for otherwise.
            StreamTimeoutError: one of them does not come in time.

        >>> lengths = np.random.default_rng(0).integers(1, 60, 1000)
        >>> samples = [{"audio": np.zeros((n, 4), np.float32)} for n in lengths]
        >>> batcher = StreamBatcher.planned(
        ...     samples, batch_size=16, plan_from=200, max_shapes=3, alignment=8, longest={"audio": 100}
        ... )
        >>> [str(shape) for shape in batcher.batch_shapes()]
        ['16 x (audio 104)', '16 x (audio 56)', '16 x (audio 32)']
        >>> sum(int(batch.sample_mask.sum()) for batch in batcher)
        1000
        """
        check_whole("plan_from", plan_from, 1)
        check_whole("buffer", buffer, 1)
        if plan_from > buffer:
            raise PaddingError(
                f"got plan_from={plan_from} and buffer={buffer}; the first samples wait in the buffer, so plan from as "
                "many as it holds, or let it hold more"
            )
        _check_stream(samples, timeout)
        reader = StreamReader(samples, timeout, modalities)
        try:
            first = reader.read_ahead(plan_from)
            if not first:
                raise PaddingError("the stream gave no samples; a plan needs at least one")
            table = LengthTable.measure(first, modalities)
            table = within_longest(table, longest, options.get("long_samples", "error"))
            plan = plan_shapes(
                with_longest(table, longest),
                max_shapes=max_shapes,
                cost=cost,
                alignment=alignment,
                batch_size=batch_size,
            )
            batcher = cls(samples, plan, buffer=buffer, cost=cost, timeout=timeout, **options)
        except BaseException:
            with suppress(ValueError):  # it is still being read, in the thread that was left
                reader.close()
            raise
        batcher._begun, batcher._rows, batcher._longest = reader, batch_size, longest
        batcher._intake.whole = modalities is None
        return batcher

    def __iter__(self) -> Iterator[BatchOfLayout]:
        """Return the next pass over the samples, see :meth:`epoch`."""
        return self._batches(None)

    def epoch(self, epoch: int) -> Iterator[BatchOfLayout]:
        """Return one pass over the samples, in the order of pass number ``epoch``, whichever ones went before.

        Leaving the loop early stops the background thread and closes the iterator of the samples. An exception that
        it raises reaches the consumer after the batches that were made before it, with a note that names the sample.
        Either way the samples that still waited for their batch are given up.

        Raises:
            PaddingError: an epoch that is no whole number, or as the class says.

        >>> from multimodal_pad import Fixed
        >>> batcher = StreamBatcher([{"text": np.arange(n)} for n in range(1, 9)], Fixed({"text": 8}), batch_size=4)
        >>> first, again = ([batch.lengths["text"].tolist() for batch in batcher.epoch(3)] for _ in range(2))
        >>> first == again
        True
        """
        check_whole("epoch", epoch, 0)
        return self._batches(epoch)

    def _batches(self, epoch: int | None) -> Iterator[BatchOfLayout]:
        """Yield the pass of an epoch; by default of the one after the last."""
        reader = self._begin()
        self._passes += 1
        number = self._epoch if epoch is None else epoch
        self._epoch = number + 1
        with Prefetch(self._make(reader, number), self.prefetch, watch=reader.watch) as ahead, reader:
            try:
                for made in ahead:
                    self._tell()
                    self.stats.record(made.steps, made.lengths)
                    yield made.batch
            except GeneratorExit:
                self._count_lost()  # a warning would have no loop to appear in
                raise
            except BaseException as error:
                self._count_lost()
                for notice in self._intake.notices:
                    error.add_note(notice)
                raise
        self._tell()

    def __repr__(self) -> str:
        size = "" if self.options.batch_size is None else f", batches of {self.options.batch_size}"
        return (
            f"{type(self).__name__}({type(self.samples).__name__}, {self.policy!r}{size}, buffer of "
            f"{self.options.buffer:,})"
        )

    @property
    def policy(self) -> Policy:
        """The policy in use."""
        return self.options.policy

    def batch_shapes(self) -> list[BatchShape]:
        """Return every batch shape that may come: what a step is to be compiled for.

        Raises:
            PaddingError: the policy has infinitely many shapes.

        >>> from multimodal_pad import Fixed
        >>> [str(shape) for shape in StreamBatcher([], Fixed({"text": 8}), batch_size=2).batch_shapes()]
        ['2 x (text 8)']
        """
        return policy_shapes(self.policy, self.options.batch_size)

    def spec(self, epochs: int = 1) -> BatchSpec:
        """Return the spec that a step is compiled for: :meth:`batch_shapes`, whatever ``epochs``, and :meth:`example`.

        Raises:
            PaddingError: the policy has infinitely many shapes, or there are no samples.
        """
        del epochs
        return BatchSpec(self.batch_shapes(), self.example(), self.policy.fingerprint)

    def example(self) -> BatchOfLayout:
        """Return a batch of the first sample: a step is warmed up with its feature widths, dtypes and targets.

        Before the first loop this reads as many samples as it takes for each modality to be there in one, most often
        one; the loop then begins with them.

        Raises:
            PaddingError: there are no samples.
        """
        if self._intake.first is None:
            reader = self._begin()
            try:
                self._intake.look_ahead(reader.read_ahead, self.options.buffer)
            except BaseException:
                self._passes += 1  # an iterator has lost what was read
                raise
            self._begun = reader
        if self._intake.first is None:
            raise PaddingError("the stream gave no samples; there is none to make an example of")
        return self.options.example(self._intake.first, self._intake)

    def plan_report(self, batch_size: int | BatchBudget | None = None) -> PlanReport:
        """Compare the policy on the last samples with a new plan for them, which takes a while to make.

        Args:
            batch_size: of the new plan; by default as now. A plan does not hold the measure of its batch budget, so it
                is needed where such a plan was handed over.

        Raises:
            PaddingError: no sample has been read yet, or a ``batch_size`` is needed.
            PlanError: a sample exceeds the batch budget.

        >>> batcher = StreamBatcher.planned([{"text": np.arange(n)} for n in (2, 3, 4)] * 9, batch_size=3, max_shapes=2)
        >>> for batch in batcher:
        ...     pass
        >>> print(batcher.plan_report())
        0 of the last 27 samples are longer than every bucket, and 0.900 of the padded cost of the others is real \
(promised: 0.900)
        a new plan of 2 shapes holds all of them and keeps 0.900
        """
        rows = self._rows if batch_size is None else batch_size
        rows = self.policy.plan_options.get("batch_size") if rows is None else rows
        if rows is None:
            raise PaddingError(
                "the plan has a batch budget; give plan_report(batch_size=BatchBudget(...)) for the new one"
            )
        return self._recent.report(rows, self._longest)

    def _begin(self) -> StreamReader:
        """Return the pass that planning or an example has begun, or a new one."""
        reader, self._begun = self._begun, None
        if reader is not None:
            return reader
        if self._passes and isinstance(self.samples, Iterator):
            raise PaddingError(
                "the samples are an iterator, and a loop before has used it; give something that begins anew each time "
                "(a list, or an object whose __iter__ does), or make a new batcher"
            )
        return StreamReader(self.samples, self.timeout, None if self._intake.whole else self.policy.modalities)

    def _make(self, reader: StreamReader, number: int) -> Iterator[_Made]:
        """Yield the batches of a pass, made in the background thread."""
        buffer, added = self.options.new_buffer(number), None
        try:
            while (count := self._fill(buffer, reader, added or 0)) is not None:
                added = count
                if buffer.ready:
                    yield self._pad(buffer.take())
            if not added:
                raise PaddingError(
                    "the stream gave no samples; give at least one"
                    if added is None
                    else "no samples of the stream are left: every one of them is longer than every bucket"
                )
            buffer.finish()
            while buffer.ready:
                yield self._pad(buffer.take())
        finally:
            reader.close()

    def _fill(self, buffer: StreamBuffer[Waiting], reader: StreamReader, added: int) -> int | None:
        """Read a chunk, or until the buffer is full; return how many samples have gone in so far, None at the end."""
        with span(READ):
            chunk = list(islice(reader, min(buffer.room, CHUNK)))
        if not chunk:
            return None
        lengths, covered, waiting = self._intake.admit(chunk)
        buffer.add(covered, range(added, added + len(waiting)), waiting)
        stale = self._recent.add(lengths)
        if stale is not None:
            self._intake.notices.append(f"the shape plan has gone stale: {stale}; plan_report() compares a new one")
        return added + len(waiting)

    def _pad(self, taken: Taken[Waiting]) -> _Made:
        names = self.policy.modalities
        lengths = np.array([[len(sample[name]) for name in names] for _, sample in taken.samples])
        ids = np.where(np.arange(taken.batch_size) < len(lengths), np.arange(taken.batch_size), EMPTY)
        steps = Steps(np.array([taken.padded]), np.array([0, taken.batch_size]), ids)
        return _Made(self.options.lay_out(taken, self._intake), steps, LengthTable(names, lengths))

    def _tell(self) -> None:
        """Warn of what the background thread has found, and count what it has left out."""
        self._count_lost()
        while self._intake.notices:
            warnings.warn(self._intake.notices.popleft(), PlanWarning, stacklevel=3)

    def _count_lost(self) -> None:
        self.stats.dropped, self.stats.truncated = self._intake.dropped, self._intake.truncated


def _check_stream(samples: Iterable[Sample], timeout: float | None) -> None:
    if not hasattr(samples, "__iter__") and not hasattr(samples, "__getitem__"):
        raise PaddingError(f"got samples of type {type(samples).__name__}; give an iterable of samples")
    if timeout is not None and not timeout > 0:
        raise PaddingError(f"got timeout={timeout!r}; it is seconds above 0, or None for as long as it takes")
