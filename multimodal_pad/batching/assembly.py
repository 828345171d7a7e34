"""The samples of one batch: read, checked against the length table and against each other, and laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal_pad.batching.alike import AlikeSamples
from multimodal_pad.batching.held import held_sample, share_memory
from multimodal_pad.batching.long_samples import CoveredLengths
from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.arrays import array_lengths, pad_values
from multimodal_pad.layouts.layout import BatchOfLayout, BatchShape
from multimodal_pad.lengths.samples import EMPTY, POSITION_TARGETS, Sample, Source, read_sample
from multimodal_pad.lengths.trees import leaves_of
from multimodal_pad.spans import LAY_OUT, READ, span


class Assembly:
    """A maker of batches from a source's samples, for any number of threads.

    Args:
        source: of the samples.
        lengths: their lengths, whose modalities are those that are laid out, and what to cut them to.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        with_ids: whether batches hold the numbers of their samples.
    """

    def __init__(
        self,
        source: Source,
        lengths: CoveredLengths,
        pad_value: float | Mapping[str, float],
        check_finite: bool,
        *,
        with_ids: bool,
    ) -> None:
        self._source, self._measured = source, lengths.measured
        self._limits = lengths.table if lengths.truncated else None
        self._options = {"pad_value": pad_value, "check_finite": check_finite, "with_ids": with_ids}
        pad_values(pad_value, self._measured.modalities)  # an error here comes before the first batch
        self._alike, self._copies, self._learnt = AlikeSamples(), False, set[int]()

    def make(
        self, ids: list[int], shape: BatchShape, *, empty: bool = False, share_sizes: Sequence[int] | None = None
    ) -> BatchOfLayout:
        """Make the batch of these samples.

        Args:
            ids: sample numbers, at least one.
            shape: of the batch, which empty samples fill up.
            empty: whether all rows are empty; the samples then only show what arrays there are.
            share_sizes: how many of them each share of the batch has; None where it is not shared out.

        Raises:
            SampleError: a sample that does not fit the others, or is not as long as the length table says.
        """
        samples = self._read(ids)
        measured = self._measured.values[ids]
        for column in np.flatnonzero(~measured.any(axis=0)).tolist():
            self._learn(column)
        arrays = self._alike.arrays(samples, self._measured.modalities, ids)
        for column, (name, found) in enumerate(arrays.items()):
            _check_measured(name, found, measured[:, column], ids)
            if empty:
                arrays[name] = [array[:0] for array in found]
            elif self._limits is not None:
                limits = self._limits.values[ids, column].tolist()
                arrays[name] = [array[:limit] for array, limit in zip(found, limits, strict=True)]
        with span(LAY_OUT):
            batch = shape.layout.lay_out(arrays, samples, shape, numbers=ids, share_sizes=share_sizes, **self._options)
        if empty:
            batch.sample_mask[:] = False
            for targets in leaves_of(batch.targets):
                targets[:] = 0
            if batch.ids is not None:
                batch.ids[:] = EMPTY
        return batch

    def _read(self, ids: list[int]) -> list[Sample]:
        """Read the samples, each as it is at that moment.

        Arrays are taken as they are until two samples are found to share memory, as with a source that reads all into
        one buffer; these samples are then read again, and from then on all are copied as they are read.
        """
        with span(READ):
            if type(self._source) in (list, tuple):  # which never write over what they have given
                plain = [read_sample(self._source, index) for index in ids]
                if not any(POSITION_TARGETS in sample for sample in plain):
                    return plain
            samples: list[Sample] = [self._read_one(index) for index in ids]
            if not self._copies and len(samples) > 1 and share_memory(samples):
                self._copies = True
                samples = [self._read_one(index) for index in ids]
        return samples

    def _read_one(self, index: int) -> dict[str, Any]:
        return held_sample(read_sample(self._source, index), self._measured.modalities, index, copy=self._copies)

    def _learn(self, column: int) -> None:
        """Read a sample that has a modality, once, for batches none of whose samples has it."""
        name = self._measured.modalities[column]
        if column in self._learnt:
            return
        if self._alike.kind(name) is None:
            index = int(np.argmax(self._measured.values[:, column] > 0))  # sample 0, where none has it
            self._alike.arrays([self._read_one(index)], [name], [index])
        self._learnt.add(column)


def _check_measured(name: str, arrays: list[np.ndarray], measured: np.ndarray, ids: list[int]) -> None:
    """Raise a SampleError that names the first sample that is not as long as the length table says."""
    found = array_lengths(arrays)
    if (found != measured).any():
        row = int(np.argmax(found != measured))
        raise SampleError(
            f"sample {ids[row]}, {name!r}: got {found[row]} positions and the length table says {measured[row]}; "
            "measure the source again (LengthTable.measure)"
        )
