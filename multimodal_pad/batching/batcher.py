"""Schedule and source to a stream of batches of few shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.batching.assembly import Assembly
from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.batching.long_samples import cover
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.batching.scheduled import ScheduledEpochs
from multimodal_pad.errors import LengthError, PaddingError
from multimodal_pad.layouts.layout import BatchOfLayout, BatchShape, BatchSpec
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import EMPTY, Source, check_indexable, check_whole
from multimodal_pad.lengths.table import LengthTable, as_lengths
from multimodal_pad.planning.plan_policy import PolicyLike, as_policy
from multimodal_pad.scheduling.checks import LongSamples, choose_batch_size, choose_cost
from multimodal_pad.scheduling.groupings import choose_grouping
from multimodal_pad.scheduling.policy import Grouping
from multimodal_pad.scheduling.resuming import check_state, describe_run
from multimodal_pad.scheduling.schedule import WINDOW
from multimodal_pad.scheduling.steps import Steps


class Position(NamedTuple):
    """A place in a run: the epoch, and the step of it that comes next."""

    epoch: int
    step: int


class BucketBatcher(ScheduledEpochs):
    """Batches of a small set of shapes from any indexable source of samples.

    A ``for`` loop over it runs the next epoch: 0, then 1, and so on. After :meth:`restore` the first one runs what is
    left of the epoch that the state was taken in; an epoch that a loop has left early is over. ``len(batcher)`` is how
    many batches the loop gives. :meth:`epoch` runs any epoch by its number.

    Args:
        source: ``len(source)`` and ``source[i] -> {modality: (length, *feature_shape),
            "targets": ...}``; a list of dicts is enough. Read in a background thread.
        policy: rounds lengths up to buckets; its modalities are the ones that are padded. Or a
            :class:`~multimodal_pad.ShapePlan` or :class:`~multimodal_pad.PackingPlan`, or the path of a plan's file.
        batch_size: samples of every batch, where the policy leaves it open (a plan does not). A short last batch is
            filled up with empty ones.
        lengths: the length table of the source, or its columns, ``{"text": [3, 5, ...]}``; by default the source's own
            ``lengths``, or else every sample is read once to be measured.
        grouping: ``"length"`` puts samples of like shape together, ``"random"`` draws the batch
            first (see :func:`~multimodal_pad.scheduling.schedule.make_schedule`); by default the one that the plan
            was made for, or ``"length"``.
        window: batches per shuffle window of ``"length"``, see :data:`~multimodal_pad.scheduling.schedule.WINDOW`.
        seed: of the order.
        long_samples: what to do with samples that no bucket holds: ``"error"``, ``"truncate"``
            (keep the front) or ``"drop"``; both are counted in :attr:`stats`.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        cost: cost per sample, for ``"length"`` grouping and the statistics; by default the plan's, or
            positions.
        with_ids: whether batches hold the numbers of their samples, as ``batch.ids``.
        prefetch: batches made ahead; 0 makes them in the consumer's thread.

    Attributes:
        lengths: the length table, truncated where asked for.
        resumes: whether it was restored, and the next epoch asked for begins where the state says.

    Raises:
        PaddingError: an option out of range, a cost of other modalities than the policy's, or another batch size,
            grouping or cost than the policy's plan was made for (both are named).
        LengthError: a source without samples, without ``len()`` and ``[i]`` or without end, or a table that does not
            match it.
        UncoveredLengthError: a sample is longer than every bucket and ``long_samples="error"``, or a
            random batch might be.
        SampleError: a sample that does not fit the others, or is not as long as the table says
            (raised where the batch is consumed).

    Warns:
        PlanWarning: the plan was made for other lengths, and these are padded over 10 % less efficiently.

    >>> from multimodal_pad import Ladder
    >>> samples = [{"text": np.arange(n), "targets": n % 2} for n in (3, 5, 12)]
    >>> batcher = BucketBatcher(samples, Ladder({"text": [8, 16]}), batch_size=2)
    >>> sorted(str(batch.shape) for batch in batcher)
    ['2 x (text 16)', '2 x (text 8)']
    >>> len(batcher), batcher.position
    (2, Position(epoch=0, step=2))
    """

    def __init__(
        self,
        source: Source,
        policy: PolicyLike,
        *,
        batch_size: int | None = None,
        lengths: LengthTable | Mapping[str, Any] | None = None,
        grouping: Grouping | str | None = None,
        window: int = WINDOW,
        seed: int = 0,
        long_samples: LongSamples = "error",
        pad_value: float | Mapping[str, float] = 0,
        check_finite: bool = False,
        cost: Cost | None = None,
        with_ids: bool = False,
        prefetch: int = 2,
    ) -> None:
        policy = as_policy(policy)
        grouping = choose_grouping(policy, grouping)
        check_whole("seed", seed, 0, most=None)
        for name, value, least in (("window", window, 1), ("prefetch", prefetch, 0)):
            check_whole(name, value, least)
        cost, batch_size = choose_cost(policy, cost), choose_batch_size(policy, batch_size)
        count = check_indexable(source)
        table = LengthTable.measure(source, policy.modalities) if lengths is None else as_lengths(lengths)
        if len(table) != count:
            raise LengthError(
                f"got a length table of {len(table)} rows for a source of {count} samples; give one row per sample"
            )
        super().__init__(
            cover(table.select(policy.modalities), policy, long_samples),
            policy,
            batch_size=batch_size,
            grouping=grouping,
            window=window,
            seed=seed,
            cost=cost,
        )
        self.source, self.prefetch = source, prefetch
        self.long_samples: LongSamples = long_samples
        self.shard_index, self.shard_count, self.devices = 0, 1, 1
        self._assembly = Assembly(source, self._covered, pad_value, check_finite, with_ids=with_ids)
        self._position, self._counted, self.resumes = Position(0, 0), 0, False
        self._begun, self._running = False, None
        self._stats = self._new_stats()

    def shard(self, index: int, count: int, *, devices: int = 1) -> BucketBatcher:
        """Return the same run for one of ``count`` hosts: its share of the rows of every batch.

        All shards have the same shapes in the same order and as many steps, and shard ``index`` has run number
        ``index`` of as many equal runs of a batch's rows. So the rows of all shards together, in order, are the batch
        that one host would have, whatever the count. :meth:`schedule`, :meth:`forecast` and :meth:`batch_shapes` are
        still those of whole batches. With several ``devices`` of the host, each takes an equal run of all arrays.

        Raises:
            PaddingError: an index that is not below the count, a number of devices that does not divide every batch,
                or a batcher that is a shard already.

        >>> from multimodal_pad import Fixed
        >>> samples = [{"text": np.arange(n)} for n in (3, 5, 7)]
        >>> batcher = BucketBatcher(samples, Fixed({"text": 8}), batch_size=4)
        >>> [next(batcher.shard(index, 2).epoch(0)).sample_mask.tolist() for index in range(2)]
        [[True, True], [True, False]]
        """
        check_whole("shard_count", count, 1)
        check_whole("shard_index", index, 0)
        check_whole("devices", devices, 1)
        if self.shard_count * self.devices > 1:
            raise PaddingError(
                f"got shard {self.shard_index} of {self.shard_count} with devices={self.devices}, which is not shared "
                "out again; take the shard of the whole batcher"
            )
        if index >= count:
            raise PaddingError(f"got shard_index={index} of shard_count={count}; the index goes from 0 to {count - 1}")
        self.check_shares(count * devices)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.shard_index, other.shard_count, other.devices = index, count, devices
        other._stats, other._counted = other._new_stats(), self._position.step
        return other

    @property
    def position(self) -> Position:
        """The epoch, and the step of it that comes next: batches that were only made ahead don't count."""
        return self._position

    def state(self) -> dict[str, Any]:
        """Return the position of the run, and what it is a run of, as a small JSON value for :meth:`restore`.

        The batch that was consumed last counts as done. Shards and prefetch are no part of it.

        >>> from multimodal_pad import Fixed
        >>> batcher = BucketBatcher([{"text": np.arange(3)}] * 5, Fixed({"text": 4}), batch_size=2)
        >>> first = next(batcher.epoch(0))
        >>> [batcher.state()[key] for key in ("epoch", "step", "batch_size", "seed")]
        [0, 1, 2, 0]
        """
        run = describe_run(
            self._covered.measured,
            self.policy,
            self.grouping,
            cost=self.cost,
            batch_size=self.batch_size,
            window=self.window,
            seed=self.seed,
            long_samples=self.long_samples,
        )
        return {**self._position._asdict(), **run}

    def restore(self, state: Mapping[str, Any]) -> Position:
        """Go on where :meth:`state` was taken: the next call of :meth:`epoch` for that epoch begins at its next step.

        No sample is read and no step repeated, and the number of shards may be another one. The statistics begin anew.

        Returns:
            The position: go on with ``for epoch in range(position.epoch, epochs): for batch in batcher.epoch(epoch)``.

        Raises:
            PaddingError: the state is of other lengths, another policy, plan, batch size, seed or version (all that
                differ are named), or no state at all.
        """
        self._begin(self.position_of(state))
        self._stats, self.resumes = self._new_stats(), True
        return self._position

    def position_of(self, state: Mapping[str, Any]) -> Position:
        """Return the position that a state was taken at; raises as :meth:`restore`."""
        epoch, step = check_state(state, self.state())
        steps = len(self.schedule(epoch))
        if step > steps:
            raise PaddingError(
                f"got the state of step {step}, and epoch {epoch} has {steps}; give a state that is whole"
            )
        return Position(epoch, step)

    @property
    def stats(self) -> PaddingStats:
        """The ledger of the batches consumed so far."""
        # Counted on access: step by step it would take a tenth of the time of a small batch.
        if self._counted < self._position.step:
            for part in self.schedule(self._position.epoch).parts(self._counted, self._position.step):
                self._stats.record(part.shard(self.shard_index, self.shard_count), self.lengths)
            self._counted = self._position.step
        return self._stats

    def _begin(self, position: Position) -> None:
        """Move to another position, once what was consumed before is counted."""
        self._stats = self.stats
        self._position, self._counted, self.resumes = position, position.step, False

    def spec(self, epochs: int = 1) -> BatchSpec:
        """Return the spec that a step is compiled for: :meth:`batch_shapes` and :meth:`example`.

        Raises:
            PaddingError: every sample was dropped.
        """
        self.schedule(0)  # raises where every sample was dropped
        fingerprint = self.policy.fingerprint if self.policy.compile_all else None
        return BatchSpec(self.batch_shapes(epochs), self.example(), fingerprint)

    def example(self) -> BatchOfLayout:
        """Return a batch of one sample: what a step is warmed up with, for its feature widths, dtypes and targets.

        Of a shard it is one of all shards, for all devices, as the shapes are.

        Raises:
            PaddingError: every sample was dropped.
        """
        if not self._covered.keep.any():
            self.schedule(0)  # raises as documented
        index = int(np.argmax(self._covered.keep))
        count, shape = self.shard_count * self.devices, self._shape(1, np.maximum(self.lengths.values[index], 1))
        sizes = [1] + [0] * (count - 1) if count > 1 else None
        one = shape._replace(layout=self.policy.layout.divided(count))
        return self._assembly.make([index], one.layout.joined(one, count), share_sizes=sizes)

    def epoch(self, epoch: int) -> Iterator[BatchOfLayout]:
        """Return the batches of an epoch, in the order of its schedule; after :meth:`restore`, those that are left.

        Leaving the loop early stops the background thread; an exception that the source raises
        reaches the consumer at the batch that it spoilt, with a note that names the sample.
        """
        check_whole("epoch", epoch, 0)
        start = self._position.step if self.resumes and epoch == self._position.epoch else 0
        self._begin(Position(epoch, start))
        self._begun, self._running = True, Position(epoch, start)
        return self._batches(self._running)

    def __iter__(self) -> Iterator[BatchOfLayout]:
        """Return the batches of the next epoch; after :meth:`restore`, those that are left."""
        return self.epoch(self._next().epoch)

    def __len__(self) -> int:
        """Return how many batches the loop that runs gives in all, or else the one that comes next."""
        epoch, start = self._running or self._next()
        return len(self.schedule(epoch)) - start

    def __bool__(self) -> bool:
        return True  # and no schedule is made to find out

    def _next(self) -> Position:
        """Return where the next loop begins."""
        epoch, step = self._position
        if self.resumes and step < len(self.schedule(epoch)):
            return Position(epoch, step)
        return Position(epoch + 1 if self._begun or self.resumes else 0, 0)

    def batch(self, epoch: int, step: int) -> BatchOfLayout:
        """Make one batch by itself, from any thread; :attr:`position` and :attr:`stats` stay as they are.

        Raises:
            IndexError: the epoch has no such step.
            SampleError: as :meth:`epoch`.
        """
        shape, ids = self.schedule(epoch)[step]
        return self._make(Steps(shape[None], np.array([0, len(ids)]), ids))

    def _batches(self, begin: Position) -> Iterator[BatchOfLayout]:
        epoch, start = begin
        steps = (part.part(i, i + 1) for part in self.schedule(epoch).parts(start) for i in range(len(part)))
        made = (self._make(step) for step in steps)
        try:
            with Prefetch(made, self.prefetch) if self.prefetch else nullcontext(made) as ahead:
                for number, batch in enumerate(ahead, start=start):
                    if self._position != (epoch, number):  # another loop over the batcher is under way too
                        self._begin(Position(epoch, number))
                    self._position = Position(epoch, number + 1)
                    yield batch
        finally:
            if self._running is begin:
                self._running = None

    def _make(self, step: Steps) -> BatchOfLayout:
        """Make this shard's rows of one step."""
        rows = step.shard(self.shard_index, self.shard_count).ids
        real = rows[rows != EMPTY].tolist()
        shape, sizes = self._shape(len(step.ids), step.lengths[0]), None
        if self.shard_count * self.devices > 1:
            shape = self.policy.layout.share(shape, self.shard_count)
            sizes = (rows.reshape(self.devices, -1) != EMPTY).sum(axis=1).tolist()
        # Where all of this shard's rows only fill up, a sample of another shard says what arrays they are.
        return self._assembly.make(real or step.ids[:1].tolist(), shape, empty=not real, share_sizes=sizes)

    def _shape(self, batch_size: int, lengths: np.ndarray) -> BatchShape:
        names = self.policy.modalities
        return BatchShape.of(batch_size, dict(zip(names, lengths.tolist(), strict=True)), self.policy.layout)

    def __repr__(self) -> str:
        size = "" if self.batch_size is None else f", batches of {self.batch_size}"
        share = f", shard {self.shard_index} of {self.shard_count}" if self.shard_count > 1 else ""
        devices = f", {self.devices} devices" if self.devices > 1 else ""
        return (
            f"{type(self).__name__}({len(self.lengths):,} samples, {self.policy!r}{size}, {self.grouping} "
            f"grouping{share}{devices})"
        )
