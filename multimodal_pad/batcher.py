"""Schedule + source -> a stream of padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np

from multimodal_pad.cost import Cost, position_count
from multimodal_pad.errors import PaddingError, UncoveredLengthError
from multimodal_pad.lengths import TARGETS, LengthTable, Source
from multimodal_pad.padding import PaddedBatch, pad_samples
from multimodal_pad.policies import Policy
from multimodal_pad.prefetch import Prefetch
from multimodal_pad.schedule import EMPTY, Grouping, Schedule, check_batching, make_schedule
from multimodal_pad.stats import PaddingStats

LongSamples = Literal["error", "truncate", "drop"]


class BucketBatcher:
    """Batches of a small set of shapes from any indexable source of samples.

    Args:
        source: ``len(source)`` and ``source[i] -> {modality: (length, *feature_shape),
            "targets": ...}``; a list of dicts is enough. Read in a background thread.
        policy: rounds lengths up to buckets; its modalities are the ones that are padded.
        batch_size: rows of every batch; a short last batch is filled up with empty rows.
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
        cost: cost per sample, for ``"length"`` grouping and the statistics.
        prefetch: batches made ahead; 0 makes them in the consumer's thread.

    Attributes:
        lengths: the length table, truncated where asked for.
        stats: the ledger of the batches consumed so far.

    Raises:
        PaddingError: an option out of range.
        LengthError: a source without samples, or a table that does not match it.
        UncoveredLengthError: a sample is longer than every bucket and ``long_samples="error"``.
        SampleError: a sample that does not fit the others (raised where the batch is consumed).

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
        batch_size: int,
        lengths: LengthTable | None = None,
        grouping: Grouping = "length",
        window: int = 1024,
        seed: int = 0,
        long_samples: LongSamples = "error",
        pad_value: float | Mapping[str, float] = 0,
        check_finite: bool = False,
        cost: Cost = position_count,
        prefetch: int = 2,
    ) -> None:
        check_batching(batch_size, grouping, window)
        if prefetch < 0:
            raise PaddingError(f"got prefetch={prefetch}; give the number of batches made ahead, 0 for none")
        if long_samples not in get_args(LongSamples):
            raise PaddingError(f"got long_samples={long_samples!r}; choose one of {list(get_args(LongSamples))}")
        self.source, self.policy, self.batch_size = source, policy, batch_size
        self.grouping: Grouping = grouping
        self.window, self.seed, self.cost, self.prefetch = window, seed, cost, prefetch
        self.pad_value, self.check_finite = pad_value, check_finite
        table = LengthTable.measure(source, policy.modalities) if lengths is None else lengths
        if len(table) != len(source):
            raise PaddingError(
                f"got a length table of {len(table)} rows for a source of {len(source)} samples; "
                "give one row per sample"
            )
        table = table.select(policy.modalities)
        short = policy.covers(table.values)
        if long_samples == "error" and not short.all():
            _raise_uncovered(table, policy, int(np.argmin(short)))
        self._keep = short if long_samples == "drop" else np.ones(len(table), bool)
        self.lengths = table
        if long_samples == "truncate":
            self.lengths = LengthTable(table.modalities, policy.truncate(table.values))
        self._lost = {"dropped": int((~self._keep).sum())}
        self._lost["truncated"] = 0 if long_samples != "truncate" else int((~short).sum())
        self.stats = self._new_stats()

    def schedule(self, epoch: int) -> Schedule:
        """The steps of an epoch: padded lengths and sample numbers. Reads no sample."""
        return make_schedule(
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

    def forecast(self, epoch: int = 0) -> PaddingStats:
        """The ledger that the epoch will leave, from the lengths alone."""
        stats = self._new_stats()
        stats.record(self.schedule(epoch), self.lengths)
        return stats

    def epoch(self, epoch: int) -> Iterator[PaddedBatch]:
        """The batches of an epoch, in the order of its schedule.

        Leaving the loop early stops the background thread; an exception that the source raises
        reaches the consumer at the batch that it spoilt.
        """
        steps = self.schedule(epoch)
        batches = (self._pad(row, ids) for row, ids in zip(*steps, strict=True))
        if not self.prefetch:
            yield from self._recorded(batches, steps)
            return
        with Prefetch(batches, self.prefetch) as ahead:
            yield from self._recorded(ahead, steps)

    def _recorded(self, batches: Iterator[PaddedBatch], steps: Schedule) -> Iterator[PaddedBatch]:
        for step, batch in enumerate(batches):
            self.stats.record(Schedule(*(x[step : step + 1] for x in steps)), self.lengths)
            yield batch

    def _pad(self, padded: np.ndarray, ids: np.ndarray) -> PaddedBatch:
        names = self.policy.modalities
        real = ids[ids != EMPTY]
        return pad_samples(
            [self._sample(int(index)) for index in real],
            pad_to=dict(zip(names, padded.tolist(), strict=True)),
            batch_size=self.batch_size,
            modalities=names,
            pad_value=self.pad_value,
            check_finite=self.check_finite,
            ids=real.tolist(),
        )

    def _sample(self, index: int) -> Mapping[str, Any]:
        sample = self.source[index]
        if not self._lost["truncated"]:
            return sample
        limits = zip(self.lengths.modalities, self.lengths.values[index].tolist(), strict=True)
        cut = {name: sample[name][:limit] for name, limit in limits}
        return {**cut, TARGETS: sample[TARGETS]} if TARGETS in sample else cut

    def _new_stats(self) -> PaddingStats:
        return PaddingStats(self.policy.modalities, self.cost, **self._lost)


def _raise_uncovered(table: LengthTable, policy: Policy, row: int) -> None:
    got = table.values[row]
    limits = policy.truncate(got[None])[0]
    column = int(np.argmax(got > limits))
    raise UncoveredLengthError(
        f"sample {row}: {table.modalities[column]!r} has {got[column]} positions and the longest bucket that "
        f'holds it has {limits[column]}; add a longer bucket, or pass long_samples="truncate" or "drop"'
    )
