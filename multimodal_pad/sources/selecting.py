"""A source with some of its modalities; the others are not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_pad.lengths.samples import RESERVED, Source, read_sample
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import Corpus


class Selected:
    """Samples with the modalities named, in the order named, and their targets; other keys are not read.

    Args:
        source: of the samples.
        modalities: which; None for all.

    Attributes:
        lengths: the length table.

    Raises:
        LengthError: a modality that the source does not have.
        SampleError: a sample that does not have it, or does not fit the others.

    >>> source = Selected([{"text": [7, 8], "speaker": "Ross", "targets": 1}], ["text"])
    >>> source[0], source.lengths.maxima
    ({'text': [7, 8], 'targets': 1}, {'text': 2})
    """

    def __init__(self, source: Source, modalities: Sequence[str] | None) -> None:
        self._source = source
        self.lengths = LengthTable.measure(source, modalities)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        names = self.lengths.modalities
        if isinstance(self._source, Corpus) and type(self._source).__getitem__ is Corpus.__getitem__:
            return self._source.read(index, names)
        sample = read_sample(self._source, index)
        return {name: sample[name] for name in (*names, *RESERVED) if name in sample}
