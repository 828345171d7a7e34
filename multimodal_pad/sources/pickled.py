"""The common part of the field's pickles: splits of padded arrays ``(N, T, F)``, one per modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.samples import check_choice
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import check_unpacked, some
from multimodal_pad.sources.corpus import Corpus, NonFinite, Progress, as_float32, check_distinct
from multimodal_pad.sources.ids import NumberedIds
from multimodal_pad.sources.label_columns import WITHOUT_LABELS
from multimodal_pad.sources.pickled_splits import id_texts, read_splits, with_text_keys
from multimodal_pad.sources.pickles import FileMapping

_BLOCK = 2**25  # bytes of an array to scan at once


class PickledSplit:
    """One split of a pickle, and the checks of the values under its keys.

    Args:
        path: the pickle.
        split: which split of it.

    Raises:
        SourceError: as :func:`~multimodal_pad.sources.pickles.read_pickle`, or no such split.
    """

    def __init__(self, path: str | Path, split: str) -> None:
        self.path, self.split = Path(path), split
        splits, self.mapping = _splits(self.path)
        if split not in splits:
            raise SourceError(f"{path}: has no split {split!r}, only {some(splits)}")
        self.where = f"{path}, split {split!r}"
        self.entries = with_text_keys(splits[split], self.where)

    def key(self, key: str) -> str:
        """Return the name of a key in errors."""
        return f"{self.where}, key {key!r}"

    def value(self, key: str) -> Any:
        """Return the value of a key, which must be there."""
        if key not in self.entries:
            raise SourceError(f"{self.where}: has no key {key!r}, only {some(sorted(self.entries))}")
        return self.entries[key]

    def numbers(self, key: str) -> np.ndarray:
        """Return a numeric array of at least one axis, also from a list or an array of objects that are numbers."""
        value = self.value(key)
        if isinstance(value, np.ndarray) and value.dtype.hasobject and value.ndim == 1:
            value = value.tolist()
        array = _array_of_numbers(value) if isinstance(value, list | tuple) else value
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.ndim:
            what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise SourceError(f"{self.key(key)}: is {what}; it must be an array of numbers, some for each sample")
        return array

    def labels(self, key: str) -> np.ndarray:
        """Return the numbers under a key of labels, which a blind test set doesn't have."""
        if key not in self.entries:
            raise SourceError(
                f"{self.where}: has no key {key!r}, only {some(sorted(self.entries))}; a split without labels is read "
                f"with {WITHOUT_LABELS}"
            )
        return self.numbers(key)

    def features(self, key: str) -> np.ndarray:
        """Return padded features ``(N, T, F)``."""
        array = self.numbers(key)
        if array.ndim != 3 or 0 in array.shape[1:]:
            raise SourceError(
                f"{self.key(key)}: has the shape {array.shape}; it must be (samples, positions, features)"
            )
        return array

    def check_count(self, counts: Mapping[str, int]) -> int:
        """Return the number of samples, at least one, on which all keys must agree."""
        (first, count), *others = counts.items()
        for key, other in others:
            if other != count:
                raise SourceError(
                    f"{self.where}: key {first!r} has {count} samples and {key!r} has {other}; give all as many"
                )
        if not count:
            raise SourceError(f"{self.where}: has no samples")
        return count

    def ids(self, key: str, count: int) -> Sequence[str]:
        """Return the ids under a key, or, where there is none, names made of the split and the sample's number.

        An id of several parts (video, start, end) becomes ``video[start,end]``; parts that the file shares are copied
        for each, which is bounded.
        """
        if key not in self.entries:
            return NumberedIds(self.split, count)
        value = self.value(key)
        if not isinstance(value, list | tuple) and not (isinstance(value, np.ndarray) and value.ndim):
            raise SourceError(f"{self.key(key)}: is a {type(value).__name__}; it must be a list or an array of ids")
        if len(value) != count:
            raise SourceError(f"{self.key(key)}: has {len(value)} ids for {count} samples; give one for each")
        found = value.tolist() if isinstance(value, np.ndarray) else value
        ids = id_texts(found, len(self.mapping.bytes), self.key(key))
        check_distinct(ids, self.key(key))
        return ids


class PickledCorpus(Corpus):
    """A split of padded arrays, in each row of which one run is real."""

    def __init__(
        self,
        file: PickledSplit,
        arrays: Mapping[str, tuple[str, np.ndarray]],
        starts: Mapping[str, np.ndarray],
        lengths: Mapping[str, np.ndarray],
        *,
        targets: np.ndarray | None,
        ids: Sequence[str],
        nonfinite: NonFinite,
        rules: Mapping[str, Any],
    ) -> None:
        self._file = file
        self._columns = [(name, array, starts[name].tolist()) for name, (_, array) in arrays.items()]
        self._keys = {name: key for name, (key, _) in arrays.items()}
        super().__init__(
            file.split,
            lengths=LengthTable.from_columns({name: lengths[name] for name in arrays}),
            targets=targets,
            ids=ids,
            inputs=[file.path],
            rules={**rules, "nonfinite": nonfinite},
            nonfinite=nonfinite,
            padded_to={name: array.shape[1] for name, (_, array) in arrays.items()},
        )

    def _read(self, index: int) -> dict[str, np.ndarray]:
        lengths = self.lengths.values[index].tolist()
        sample = {}
        for (name, array, starts), length in zip(self._columns, lengths, strict=True):
            rows = array[index, starts[index] : starts[index] + length]
            sample[name] = as_float32(rows)
            self._file.mapping.looked_at(max(rows.nbytes, array.strides[0]))  # its padding is mapped with it
        return sample

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - all samples are in one array
        return self._file.key(self._keys[modality])


def split_names(path: str | Path) -> list[str]:
    """Return the splits of a pickle, in its order."""
    return list(_splits(Path(path))[0])


def nonzero_span(
    array: np.ndarray, mapping: FileMapping, tell: Progress | None, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of each sample that is not all zero, and the end of the last; T and 0 where all are.

    Args:
        array: ``(N, T, F)``; NaN is not zero.
        mapping: of the file.
        tell: progress callback.
        what: its description.
    """
    count, positions = array.shape[:2]
    first, end = np.full(count, positions), np.zeros(count, np.int64)
    for start, block in _blocks(array):
        real = (block != 0).any(axis=2)
        some = np.flatnonzero(real.any(axis=1))
        first[start + some] = real[some].argmax(axis=1)
        end[start + some] = positions - real[some, ::-1].argmax(axis=1)
        mapping.looked_at(block.nbytes)
        if tell is not None:
            tell(what, start + len(block), count)
    return first, end


def choose_keys(nonfinite: NonFinite, modalities: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the keys of the modalities asked for, in the order asked for."""
    check_choice("nonfinite", nonfinite, NonFinite)
    unknown = [name for name in modalities if name not in known]
    if unknown or isinstance(modalities, str) or not modalities or len(set(modalities)) < len(modalities):
        raise PaddingError(f"got the modalities {modalities!r}; choose from {list(known)}, each once")
    return {name: known[name] for name in modalities}


def _splits(path: Path) -> tuple[dict[str, dict[Any, Any]], FileMapping]:
    splits, mapping = read_splits(path, dict, "arrays")
    arrays = [array for entries in splits.values() for array in entries.values() if isinstance(array, np.ndarray)]
    check_unpacked(sum(array.nbytes for array in arrays), len(mapping.bytes), path)  # splits can share arrays
    return splits, mapping


def _array_of_numbers(values: Sequence[Any]) -> np.ndarray | None:
    """Return the array of numbers, or of arrays of one number; None where there are other values among them."""
    flat = [value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value for value in values]
    if not all(isinstance(value, int | float | np.number | np.bool_) for value in flat):
        return None
    return np.array(flat)


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield runs of samples, and the number of the first one of each."""
    rows = max(1, _BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
