"""The pickles of MAG-BERT and MISA: CMU-MOSI and CMU-MOSEI as lists of examples, aligned to words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import check_unpacked, some
from multimodal_pad.sources.corpus import Corpus, NonFinite, Progress, as_float32, check_distinct, float_targets
from multimodal_pad.sources.ids import NumberedIds
from multimodal_pad.sources.label_columns import (
    ALL_COLUMNS,
    LabelColumns,
    check_label_columns,
    describe_label_columns,
    select_labels,
)
from multimodal_pad.sources.pickled import choose_keys
from multimodal_pad.sources.pickled_splits import id_texts, read_splits
from multimodal_pad.sources.pickles import FileMapping
from multimodal_pad.sources.words import number_words, word_ids

FIELDS = {"text": 0, "audio": 2, "visual": 1}
"""The place of each modality in an example."""

TRAIN = "train"
"""The split that the vocabulary is made of."""


class MagBert(Corpus):
    """One split of a pickle of MAG-BERT (Rahman et al., ACL 2020) or MISA: ``mosi.pkl``, ``mosei.pkl``.

    A dict of ``train``, ``dev`` and ``test``, each a list of ``((words, visual, acoustic), label, segment)``.
    Visual and acoustic are arrays ``(words, F)``, nothing is padded. Other parts of an example are not read.

    - ``text``: int32 ``(length,)``. Words are numbered by falling frequency in the train split, as they are spelt
      there: 0 is padding, 1 an unknown word. Numbers in place of words are kept.
    - ``audio``, ``visual``: float32 ``(length, F)``; None or an array without positions is a missing modality.
    - ``targets``: float32 scalars, or ``(K,)`` of several columns.
    - ``ids``: the segments; ``train[0]`` and so on where they are None.

    Args:
        path: the pickle, which is read as data alone: nothing in it is run.
        split: ``"train"``, ``"dev"`` or ``"test"``, or another split of the file.
        modalities: which, in which order.
        label_column: columns of the labels, as
            :func:`~multimodal_pad.sources.label_columns.select_labels` takes them; None for no targets.
        min_count: words that are rarer in the train split are unknown words.
        nonfinite: what to do with NaN and inf (COVAREP holds -inf): ``"error"``, or ``"zero"`` puts 0 there and counts
            them.
        progress: progress callback while the corpus is opened.

    Raises:
        PaddingError: a modality or an option that there is not.
        SourceError: not such a file, or one that is damaged, no such split, an example that is none, arrays that differ
            in their width, labels that are NaN, an id that two samples have; and, when a sample is read, NaN and inf.
            The file, the split and the sample are named.
        OSError: the file cannot be read.

    >>> import pickle, tempfile
    >>> example = (["so", "good"], np.ones((2, 47)), np.ones((2, 74))), np.array([[2.4]]), "03bSnISJMiM[0]"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "mosi.pkl").write_bytes(pickle.dumps({"train": [example]}))
    ...     source = MagBert(folder + "/mosi.pkl", "train")
    >>> source.ids, source.lengths.maxima, source[0]["text"].tolist(), source.vocabularies
    (['03bSnISJMiM[0]'], {'text': 2, 'audio': 2, 'visual': 2}, [2, 3], {'text': {'so': 2, 'good': 3}})
    """

    kind = "mag_bert"

    def __init__(
        self,
        path: str | Path,
        split: str = TRAIN,
        *,
        modalities: Sequence[str] = tuple(FIELDS),
        label_column: LabelColumns = ALL_COLUMNS,
        min_count: int = 1,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        choose_keys(nonfinite, modalities, dict.fromkeys(FIELDS, ""))
        check_label_columns(label_column)
        path = Path(path)
        splits, self._mapping = read_splits(path, list, "examples")
        if split not in splits:
            raise SourceError(f"{path}: has no split {split!r}, only {some(splits)}")
        self._where = f"{path}, split {split!r}"
        examples = _examples(splits[split], self._where)
        self._columns: dict[str, list[np.ndarray]] = {}
        vocabularies = {}
        for name in modalities:
            values = [example.fields[FIELDS[name]] for example in examples]
            if name == "text" and (words := _words(values, self._where)) is not None:
                known = _examples(splits.get(TRAIN, splits[split]), f"{path}, split {TRAIN!r}")
                train = _words([example.fields[0] for example in known], f"{path}, split {TRAIN!r}")
                _check_size([*words, *(train or [])], self._mapping, self._where)
                numbers = vocabularies["text"] = number_words(train or [], min_count)
                values = [word_ids(item, numbers) for item in words]
            self._columns[name] = _arrays(values, name, self._where)
            _check_size(self._columns[name], self._mapping, self._where)
            if progress is not None:
                progress(f"looking through {split}, {name}", len(examples), len(examples))
        segments = [example.segment for example in examples]
        ids: Sequence[str] = NumberedIds(split, len(examples))
        if any(segment is not None for segment in segments):
            ids = id_texts(segments, len(self._mapping.bytes), f"{self._where}, segments")
            check_distinct(ids, f"{self._where}, segments")
        targets = None
        if label_column is not None:
            chosen = select_labels(
                _labels(examples, self._mapping, self._where), label_column, f"{self._where}, labels"
            )
            targets = None if chosen is None else float_targets(chosen, ids, f"{self._where}, labels")
        super().__init__(
            split,
            lengths=LengthTable.from_columns(
                {name: [len(a) for a in arrays] for name, arrays in self._columns.items()}
            ),
            targets=targets,
            ids=ids,
            inputs=[path],
            rules={
                "min_count": min_count,
                "label_column": describe_label_columns(label_column),
                "nonfinite": nonfinite,
            },
            nonfinite=nonfinite,
            vocabularies=vocabularies,
        )

    @staticmethod
    def split_names(path: str | Path) -> list[str]:
        """Return the splits of a pickle, in its order."""
        return list(read_splits(Path(path), list, "examples")[0])

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample = {}
        for name, arrays in self._columns.items():
            array = arrays[index]
            sample[name] = array if array.ndim == 1 else as_float32(array)
            self._mapping.looked_at(array.nbytes)
        return sample

    def _place(self, index: int, modality: str) -> str:
        return f"{self._where}, example {index}, {modality}"


class _Example(NamedTuple):
    fields: Sequence[Any]
    label: Any
    segment: Any


def _examples(found: list[Any], where: str) -> list[_Example]:
    """Return the examples of a split, checked to have the three parts."""
    if not found:
        raise SourceError(f"{where}: has no samples")
    examples = []
    for index, item in enumerate(found):
        fields, label, segment = item if isinstance(item, tuple | list) and len(item) == 3 else (None, None, None)
        if not isinstance(fields, tuple | list) or len(fields) < len(FIELDS):
            raise SourceError(
                f"{where}: sample {index} is a {type(item).__name__} of something else; it must be ((words, visual, "
                "acoustic), label, segment)"
            )
        examples.append(_Example(fields, label, segment))
    return examples


def _words(values: Sequence[Any], where: str) -> list[list[str]] | None:
    """Return the words of each sample; None where the samples hold numbers instead."""
    first = next((value for value in values if _is_sequence(value) and len(value)), [""])
    if (isinstance(first, np.ndarray) and first.dtype.kind in "biuf") or isinstance(first[0], int | np.integer):
        return None
    utterances = []
    for index, value in enumerate(values):
        found = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else [] if value is None else value
        items = found if isinstance(found, list | tuple) else [None]
        words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in items]
        if not all(isinstance(word, str) for word in words):
            raise SourceError(
                f"{where}: sample {index} has words that are no list of text; give words, or the number of each"
            )
        utterances.append(words)
    return utterances


def _arrays(values: Sequence[Any], name: str, where: str) -> list[np.ndarray]:
    """Return the features of each sample: of one width, or whole numbers for text; missing ones without positions."""
    arrays: list[np.ndarray | None] = []
    first: tuple[int, np.ndarray] | None = None
    for index, value in enumerate(values):
        array = value
        if value is None or (_is_sequence(value) and not len(value)):
            arrays.append(None)
            continue
        if name == "text" and (isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)):
            array = _numbers_of_words(value, f"{where}: sample {index}")
        elif not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim < 2 or not value.size:
            what = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise SourceError(
                f"{where}: sample {index} has {name} of {what}; it must be an array of numbers (words, features)"
            )
        first = (index, array) if first is None else first
        if array.shape[1:] != first[1].shape[1:]:
            raise SourceError(
                f"{where}: sample {index} has {name} of shape {array.shape}, and sample {first[0]} of "
                f"{first[1].shape}; give all the same width"
            )
        arrays.append(array)
    none = np.zeros(0, np.float32) if first is None else np.zeros_like(first[1][:0])
    return [none if array is None else array for array in arrays]


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _numbers_of_words(values: Any, where: str) -> np.ndarray:
    """Return the numbers of words, as int32."""
    if isinstance(values, list | tuple) and not all(isinstance(value, int | np.integer) for value in values):
        values = np.zeros((1, 1))
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= 2**31:
        raise SourceError(f"{where} has words that are neither text nor numbers from 0 to 2^31 - 1")
    return array.astype(np.int32)


def _labels(examples: Sequence[_Example], mapping: FileMapping, where: str) -> np.ndarray:
    """Return the labels of all samples ``(N, K)``."""
    labels = []
    for index, example in enumerate(examples):
        label = np.asarray(example.label) if isinstance(example.label, int | float | np.number) else example.label
        if not isinstance(label, np.ndarray) or label.dtype.kind not in "biuf" or not label.size:
            raise SourceError(
                f"{where}: sample {index} has the label of {type(example.label).__name__}; it must be a number, or an "
                "array of them (label_column=None reads a split without labels)"
            )
        if labels and label.size != labels[0].size:
            raise SourceError(
                f"{where}: sample {index} has {label.size} labels and sample 0 {labels[0].size}; give each all of them"
            )
        labels.append(label.reshape(-1))
    _check_size(labels, mapping, where)
    return np.stack(labels)


def _check_size(parts: Sequence[Any], mapping: FileMapping, where: str) -> None:
    """Raise where reading all samples, which may share arrays, would take more than the file could hold."""
    size = sum(part.nbytes if isinstance(part, np.ndarray) else 8 * len(part) for part in parts)
    check_unpacked(size, len(mapping.bytes), where)
