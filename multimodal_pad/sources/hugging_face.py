"""Datasets of Hugging Face's ``datasets``: tables as sources, and iterable ones as streams of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.arrow_columns import ArrowColumn, column_of
from multimodal_pad.sources.row_columns import Named, Rows, check_there, choose_columns, columns_of, length_of


class HuggingFace:
    """A ``datasets.Dataset`` as a source of samples, whose lengths are known without reading it.

    Columns are read from the Arrow table itself, whatever format the dataset has (``with_format``). A dataset with a
    transform (``set_transform``) is read through it, each row once to be measured.

    Args:
        dataset: a split, such as ``load_dataset(...)["train"]``.
        modalities: the column of each modality, ``{"text": "input_ids", "audio": "features"}``; or names of columns
            that are modalities by the same names. Rows hold lists of numbers, or lists of vectors of one width; None is
            a modality that is missing.
        targets: the column of the targets, numbers or lists of them; several in a list, ``["happy", "sad"]``, whose
            numbers become one array ``(K,)``; or several by name, ``{"emotion": "label"}``, which become a dict of
            arrays. Samples have none by default.
        position_targets: of a modality, the column that holds a target for each of its positions,
            ``{"text": "ner_tags"}``; or several by name.

    Attributes:
        lengths: the length table, from the offsets of the lists.
        dataset: the dataset.

    Raises:
        PaddingError: ``datasets`` is not installed, or it is another thing than a ``datasets.Dataset`` (the error names
            the class that takes it).
        SourceError: a column that is not there, one of text, which is to be tokenised first, or one of neither numbers
            nor lists of numbers; position targets of another number than the positions.
        SampleError: from ``source[i]``: None within a list, vectors of unequal widths, or a whole number beyond int32;
            row and column are named.

    >>> import datasets
    >>> from multimodal_pad import batches
    >>> rows = {"input_ids": [[5, 6, 7], [8], None], "audio": [[[0.5, 1.0]], [], [[2.0, 3.0]] * 4], "label": [0, 1, 1]}
    >>> source = HuggingFace(datasets.Dataset.from_dict(rows), {"text": "input_ids", "audio": "audio"}, targets="label")
    >>> source.lengths.values.tolist(), source[2]["audio"].shape, source[2]["text"].dtype
    ([[3, 1], [1, 0], [0, 4]], (4, 2), dtype('int32'))
    >>> [str(batch.shape) for batch in batches(source, max_shapes=1, batch_size=3)]
    ['3 x (audio 4, text 3)']
    """

    def __init__(
        self,
        dataset: Any,
        modalities: Mapping[str, str] | Sequence[str],
        *,
        targets: Named | None = None,
        position_targets: Mapping[str, Named] | None = None,
    ) -> None:
        library = require_datasets()
        if not isinstance(dataset, library.Dataset):
            raise PaddingError(_not_a_dataset(dataset, library))
        self.dataset, self._parts = dataset, choose_columns(modalities, targets, position_targets)
        self._rows, self._inner = Rows(self._parts), {}
        self._columns: dict[str, ArrowColumn] = {}
        self._places: np.ndarray | None = None
        if dataset.format["type"] == "custom":
            self.lengths = self._measure_rows()
            return
        check_there(self._parts.names, dataset.column_names)
        self._open()
        found = {name: self._lengths_of(one) for name, one in self._columns.items() if one.column.depth}
        for modality, name in self._parts.modalities.items():
            if name not in found:
                raise SourceError(f"the column {name!r} has a number in each row; {modality!r} is a list of positions")
        self._check_positions(found)
        names = self._parts.modalities
        self.lengths = LengthTable(tuple(names), np.stack([found[name] for name in names.values()], axis=1))
        for name, one in self._columns.items():
            if one.column.depth > 1 and one.column.inner is None and found[name].any():
                self._inner[name] = self._read(one, int(np.argmax(found[name] > 0))).shape[1:]
                one.column = one.column._replace(inner=self._inner[name])

    def _open(self) -> None:
        """Find the columns in the table, and the places of the rows in it."""
        dataset = self.dataset
        if not hasattr(dataset, "_indices"):  # of another version: without them the table is the dataset
            dataset = dataset.flatten_indices()
        indices = getattr(dataset, "_indices", None)
        self._places = None if indices is None else indices.column(0).to_numpy()
        for name in self._parts.names:
            chunks = dataset.data.column(name)
            column = column_of(name, chunks.type)
            self._columns[name] = ArrowColumn(chunks, column._replace(inner=self._inner.get(name, column.inner)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample number ``index``.

        Raises:
            IndexError: there is no such row.
            SampleError: it does not hold what the columns hold elsewhere.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index = int(index)
        if not self._columns:
            return self._rows.sample(self.dataset[index], index)
        return self._parts.sample(lambda name: self._read(self._columns[name], index))

    def __repr__(self) -> str:
        return f"HuggingFace({len(self):,} samples, {self._parts.modalities}, targets={self._parts.targets!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the columns, which another process finds in the dataset again."""
        return {**self.__dict__, "_columns": {}, "_places": None, "_opened": bool(self._columns)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = state.pop("_opened")
        self.__dict__.update(state)
        if opened:
            self._open()

    def _read(self, column: ArrowColumn, row: int) -> np.ndarray:
        return column.array(row if self._places is None else int(self._places[row]), row)

    def _lengths_of(self, column: ArrowColumn) -> np.ndarray:
        return column.lengths() if self._places is None else column.lengths()[self._places]

    def _check_positions(self, lengths: Mapping[str, np.ndarray]) -> None:
        """Raise a SourceError where position targets are not as many as the positions."""
        for modality, part in self._parts.position_targets.items():
            own = lengths[self._parts.modalities[modality]]
            for name in columns_of(part):
                if name not in lengths:
                    raise SourceError(
                        f"the column {name!r} has a number in each row; targets for each position of {modality!r} are "
                        "a list"
                    )
                other = lengths[name]
                if (own != other).any():
                    row = int(np.argmax(own != other))
                    raise SourceError(
                        f"row {row}: {name!r} has {other[row]} targets, and {modality!r} has {own[row]} positions; "
                        "give one for each (where words are split into tokens, one for each token)"
                    )

    def _measure_rows(self) -> LengthTable:
        """Measure a dataset with a transform, by reading each row."""
        names = self._parts.modalities
        lengths = np.zeros((len(self.dataset), len(names)), np.int64)
        for number in range(len(self.dataset)):
            row = self.dataset[number]
            self._rows.look(row, number)
            lengths[number] = [length_of(row[column]) for column in names.values()]
        return LengthTable(tuple(names), lengths)


class HuggingFaceStream:
    """A ``datasets.IterableDataset`` as an iterable of samples, for :class:`~multimodal_pad.StreamBatcher`.

    Each ``for`` loop begins the dataset anew, with ``set_epoch`` of the number of the loop, so that a shuffled one has
    another order. Rows whose modality is None wait until another row has shown its width.

    Args:
        dataset: such as ``load_dataset(..., streaming=True)["train"]``.
        modalities: as for :class:`HuggingFace`.
        targets: as for :class:`HuggingFace`.
        position_targets: as for :class:`HuggingFace`.

    Raises:
        PaddingError: ``datasets`` is not installed, or it is neither an ``IterableDataset`` nor a ``Dataset``.
        SourceError: a column that is not there, or one of text.
        SampleError: from the loop: as :class:`HuggingFace`; and position targets of another number than the positions.

    >>> import datasets
    >>> from multimodal_pad import StreamBatcher
    >>> rows = datasets.Dataset.from_dict({"input_ids": [[5, 6, 7], [8], [9, 9]], "label": [0, 1, 1]})
    >>> stream = HuggingFaceStream(rows.to_iterable_dataset(), {"text": "input_ids"}, targets="label")
    >>> [sample["text"].tolist() for sample in stream]
    [[5, 6, 7], [8], [9, 9]]
    >>> batcher = StreamBatcher.planned(stream, batch_size=3, max_shapes=1)
    >>> [str(batch.shape) for batch in batcher]
    ['3 x (text 3)']
    """

    def __init__(
        self,
        dataset: Any,
        modalities: Mapping[str, str] | Sequence[str],
        *,
        targets: Named | None = None,
        position_targets: Mapping[str, Named] | None = None,
    ) -> None:
        library = require_datasets()
        if not isinstance(dataset, library.IterableDataset | library.Dataset):
            raise PaddingError(_not_a_dataset(dataset, library))
        self.dataset, self._parts = dataset, choose_columns(modalities, targets, position_targets)
        if dataset.column_names is not None:
            check_there(self._parts.names, dataset.column_names)
        self._passes = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, self._passes = self._passes, self._passes + 1
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        return Rows(self._parts).samples(self.dataset)

    def __repr__(self) -> str:
        return f"HuggingFaceStream({self._parts.modalities}, targets={self._parts.targets!r})"


def require_datasets() -> Any:
    """Return Hugging Face's ``datasets``; raise a PaddingError that says how to install it where it is absent."""
    if find_spec("datasets") is None:
        raise PaddingError("Hugging Face datasets need datasets: pip install 'multimodal-pad[huggingface]'")
    import datasets

    return datasets


def _not_a_dataset(dataset: Any, library: Any) -> str:
    if isinstance(dataset, library.DatasetDict | library.IterableDatasetDict):
        return f"got a {type(dataset).__name__} of the splits {list(dataset)}; take one of them, such as dataset[...]"
    if isinstance(dataset, library.IterableDataset):
        return "got an IterableDataset, whose rows have no numbers; HuggingFaceStream(...) takes it, for StreamBatcher"
    return f"got {type(dataset).__name__}; give a datasets.Dataset (Dataset.from_dict and from_list make one)"
