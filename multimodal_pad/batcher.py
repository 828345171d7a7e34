"""Schedule + source -> a stream of padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np

from multimodal_pad.cost import Cost, check_priced, position_count
from multimodal_pad.errors import LengthError, PaddingError, SampleError
from multimodal_pad.lengths import TARGETS, LengthTable, Source, check_whole, modality_array
from multimodal_pad.padding import BatchShape, PaddedBatch, pad_samples
from multimodal_pad.planner import check_served
from multimodal_pad.policies import Fixed, Planned, Policy, check_covered
from multimodal_pad.prefetch import Prefetch
from multimodal_pad.schedule import EMPTY, Grouping, Schedule, batch_rows, check_batching, make_schedule
from multimodal_pad.stats import PaddingStats

LongSamples = Literal["error", "truncate", "drop"]


class BucketBatcher:
    """Batches of a small set of shapes from any indexable source of samples.

    Args:
        source: ``len(source)`` and ``source[i] -> {modality: (length, *feature_shape),
            "targets": ...}``; a list of dicts is enough. Read in a background thread.
        policy: rounds lengths up to buckets; its modalities are the ones that are padded.
        batch_size: rows of every batch; by default what the policy's plan says. A short last batch is
            filled up with empty rows.
        lengths: the length table of the source; by default the source's own ``lengths``, or else
            every sample is read once to be measured.
        grouping: ``"length"`` puts samples of like shape together, ``"random"`` draws the batch
            first (see :func:`~multimodal_pad.schedule.make_schedule`).
        window: batches per shuffle window of ``"length"``.
        seed: of the order.
        long_samples: what becomes of samples that no bucket holds: ``"error"``, ``"truncate"``
            (keep the front) or ``"drop"``; both are counted in :attr:`stats`.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        cost: cost per sample, for ``"length"`` grouping and the statistics; by default the plan's, or
            positions.
        prefetch: batches made ahead; 0 makes them in the consumer's thread.

    Attributes:
        lengths: the length table, truncated where asked for.
        stats: the ledger of the batches consumed so far.

    Raises:
        PaddingError: an option out of range, or a cost of other modalities than the policy's.
        LengthError: a source without samples, or a table that does not match it.
        UncoveredLengthError: a sample is longer than every bucket and ``long_samples="error"``, or a
            random batch might be.
        SampleError: a sample that does not fit the others, or is not as long as the table says
            (raised where the batch is consumed).

    Warns:
        PlanWarning: the plan was made for other lengths, and these are padded over 10 % less efficiently.

    >>> from multimodal_pad import Ladder
    >>> samples = [{"text": np.arange(n), "targets": n % 2} for n in (3, 5, 12)]
    >>> batcher = BucketBatcher(samples, Ladder({"text": [8, 16]}), batch_size=2)
    >>> sorted(str(batch.shape) for batch in batcher.epoch(0))
    ['2 x (text 16)', '2 x (text 8)']
    """

    def __init__(
        self,
        source: Source,
        policy: Policy,
        *,
        batch_size: int | None = None,
        lengths: LengthTable | None = None,
        grouping: Grouping = "length",
        window: int = 1024,
        seed: int = 0,
        long_samples: LongSamples = "error",
        pad_value: float | Mapping[str, float] = 0,
        check_finite: bool = False,
        cost: Cost | None = None,
        prefetch: int = 2,
    ) -> None:
        check_batching(policy, batch_size, grouping, window, seed)
        check_whole("prefetch", prefetch, 0)
        planned = policy.plan.cost if isinstance(policy, Planned) else None
        cost = cost or planned or position_count
        if long_samples not in get_args(LongSamples):
            raise PaddingError(f"got long_samples={long_samples!r}; choose one of {list(get_args(LongSamples))}")
        self.source, self.policy, self.batch_size = source, policy, batch_size
        self.grouping: Grouping = grouping
        self.window, self.seed, self.cost, self.prefetch = window, seed, cost, prefetch
        self.pad_value, self.check_finite = pad_value, check_finite
        check_priced(cost, policy.modalities)
        table = LengthTable.measure(source, policy.modalities) if lengths is None else lengths
        if len(table) != len(source):
            raise LengthError(
                f"got a length table of {len(table)} rows for a source of {len(source)} samples; give one row per "
                "sample"
            )
        self._measured = self.lengths = table.select(policy.modalities)
        short = policy.covers(self.lengths.values)
        self._keep = short if long_samples == "drop" else np.ones(len(table), bool)
        if long_samples == "truncate":
            self.lengths = LengthTable(policy.modalities, policy.truncate(self.lengths.values))
        check_covered(self.lengths, policy, self._keep)
        if isinstance(policy, Planned):
            check_served(policy.plan, self.lengths, self._keep)
        self._lost = {
            "dropped": int((~self._keep).sum()),
            "truncated": int((self.lengths.values < self._measured.values).any(axis=1).sum()),
        }
        self._kinds: dict[str, tuple[int, Any]] = {}
        self._schedule: tuple[int, Schedule] | None = None
        self.stats = self._new_stats()

    def schedule(self, epoch: int) -> Schedule:
        """The steps of an epoch: padded lengths and sample numbers. Reads no sample."""
        if self._schedule is None or self._schedule[0] != epoch:
            steps = make_schedule(
                self.lengths,
                self.policy,
                batch_size=self.batch_size,
                grouping=self.grouping,
                window=self.window,
                seed=self.seed,
                epoch=epoch,
                cost=self.cost,
                keep=self._keep,
            )
            self._schedule = (epoch, steps)
        return self._schedule[1]

    def forecast(self, epoch: int = 0) -> PaddingStats:
        """The ledger that the epoch will leave, from the lengths alone."""
        stats = self._new_stats()
        stats.record(self.schedule(epoch), self.lengths)
        return stats

    def batch_shapes(self, epochs: int) -> list[BatchShape]:
        """The batch shapes of the epochs 0 to ``epochs - 1``: what a step is to be compiled for.

        Of a plan or of fixed padding, every shape, whichever epochs use it; of a ladder, whose shapes are a large
        product, and of exact padding, those that the schedules of these epochs use, each of which is made for it.

        >>> from multimodal_pad import Ladder
        >>> samples = [{"text": np.arange(n)} for n in (3, 5, 12)]
        >>> batcher = BucketBatcher(samples, Ladder({"text": [8, 16, 32]}), batch_size=2)
        >>> [str(shape) for shape in batcher.batch_shapes(epochs=3)]
        ['2 x (text 16)', '2 x (text 8)']
        """
        check_whole("epochs", epochs, 1)
        if isinstance(self.policy, Planned | Fixed):
            padded = self.policy.shapes()
            rows = batch_rows(self.policy, padded, self.batch_size)
            found = {(int(size), *row) for size, row in zip(rows, padded.tolist(), strict=True)}
        else:
            found = set()
            for steps in map(self.schedule, range(epochs)):
                found.update(
                    (size, *row) for size, row in zip(steps.batch_sizes.tolist(), steps.shapes.tolist(), strict=True)
                )
        names = self.policy.modalities
        return [BatchShape.of(size, dict(zip(names, row, strict=True))) for size, *row in sorted(found, reverse=True)]

    def example(self) -> PaddedBatch:
        """A batch of one sample: what a step is warmed up with, for its feature widths, dtypes and targets."""
        index = int(np.argmax(self._keep))
        return self._pad(np.maximum(self.lengths.values[index], 1), np.array([index]))

    def epoch(self, epoch: int) -> Iterator[PaddedBatch]:
        """The batches of an epoch, in the order of its schedule.

        Leaving the loop early stops the background thread; an exception that the source raises
        reaches the consumer at the batch that it spoilt.
        """
        steps = self.schedule(epoch)
        batches = (self._pad(row, ids) for row, ids in steps)
        if not self.prefetch:
            yield from self._recorded(batches, steps)
            return
        with Prefetch(batches, self.prefetch) as ahead:
            yield from self._recorded(ahead, steps)

    def _recorded(self, batches: Iterator[PaddedBatch], steps: Schedule) -> Iterator[PaddedBatch]:
        for step, batch in enumerate(batches):
            self.stats.record(steps.part(step, step + 1), self.lengths)
            yield batch

    def _pad(self, padded: np.ndarray, ids: np.ndarray) -> PaddedBatch:
        names = self.policy.modalities
        real = ids[ids != EMPTY].tolist()
        batch = pad_samples(
            [self._sample(index) for index in real],
            pad_to=dict(zip(names, padded.tolist(), strict=True)),
            batch_size=len(ids),
            modalities=names,
            pad_value=self.pad_value,
            check_finite=self.check_finite,
            ids=real,
        )
        self._check_alike(batch, real[0])
        return batch

    def _sample(self, index: int) -> Mapping[str, Any]:
        """Sample ``index``, as long as the length table says, cut where it is to be truncated."""
        sample = self.source[index]
        cut = {}
        columns = zip(self.policy.modalities, self._measured.values[index], self.lengths.values[index], strict=True)
        for name, measured, limit in columns:
            array = modality_array(sample, name, index)
            if len(array) != measured:
                raise SampleError(
                    f"sample {index}, {name!r}: got {len(array)} positions and the length table says {measured}; "
                    "measure the source again (LengthTable.measure)"
                )
            cut[name] = array[:limit]
        return {**cut, TARGETS: sample[TARGETS]} if TARGETS in sample else cut

    def _check_alike(self, batch: PaddedBatch, index: int) -> None:
        """Within a batch samples are alike; here a batch is held against those before it."""
        for name, features in batch.features.items():
            kind = (features.shape[2:], features.dtype)
            first, wanted = self._kinds.setdefault(name, (index, kind))
            if kind != wanted:
                raise SampleError(
                    f"sample {index}, {name!r}: got feature shape {kind[0]} and dtype {kind[1]}, but sample {first} "
                    f"has {wanted[0]} and {wanted[1]}; give every sample the same"
                )

    def _new_stats(self) -> PaddingStats:
        return PaddingStats(self.policy.modalities, self.cost, **self._lost)
