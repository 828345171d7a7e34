"""One split of a corpus on disk: the common part of all corpora, and what they do with NaN and inf."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.lengths.table import LengthTable

NonFinite = Literal["error", "zero"]

Progress = Callable[[str, int, int], None]
"""Progress callback ``(description, done, total)``."""


class LeftOut(NamedTuple):
    """A sample that was left out, and the reason."""

    file: str
    line: int | None
    utterance: str
    reason: str


class Corpus(ABC):
    """One split of a corpus on disk, as a source of samples.

    Samples are dicts of float32 features ``(length, *feature_shape)`` or whole numbers, such as token ids
    ``(length,)``, with ``"targets"``, as :class:`~multimodal_pad.BucketBatcher` takes them. What is padding in the file
    is gone: a sample begins at its first real position and ends at its last. A modality that is missing has length 0.

    Args:
        nonfinite: what to do with NaN and inf in float features: ``"error"``, or ``"zero"`` puts 0 there and counts
            them; None where the file holds none.
        replaced: of each modality, NaN and inf that were replaced by 0 before.

    The other arguments are the attributes of their names.

    Attributes:
        split: the name of the split, as the corpus has it.
        lengths: the length table.
        targets: ``(N, ...)`` float32 or int32, never NaN; or None where samples have none.
        ids: N distinct names of samples.
        inputs: the files that it is read from.
        rules: what was chosen where there was a choice, for the record.
        padded_to: the length that each modality is padded to in the file, or None where it is not.
        left_out: samples that are faulty, and left out.
        vocabularies: token to id, of each modality that is token ids.

    >>> import tempfile
    >>> from multimodal_pad.sources import NumpyDir
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/audio.npy", [[1.0], [np.inf], [3.0]])
    ...     np.save(folder + "/audio.offsets.npy", [0, 2, 3])
    ...     corpus: Corpus = NumpyDir(folder, nonfinite="zero")
    >>> corpus.lengths.maxima, corpus[0]["audio"].tolist(), corpus.nonfinite
    ({'audio': 2}, [[1.0], [0.0]], {'audio': 1})
    """

    kind: ClassVar[str]
    _path_options: ClassVar[tuple[str, ...]] = ("path", "folder", "root", "data_dir", "folds")
    """Options that are paths, or hold some; the first argument is one, too."""
    _opened_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Keep the arguments for :meth:`__reduce__`, with absolute paths, which hold in other folders, too."""
        self = super().__new__(cls)
        kept = {name: _absolute(value) if name in cls._path_options else value for name, value in options.items()}
        if "progress" in kept:
            kept["progress"] = None  # often a closure
        self._opened_with = (*map(_absolute, arguments[:1]), *arguments[1:]), kept
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a corpus by its arguments: another process opens it again, and its data are not copied."""
        return _open, (type(self), *self._opened_with)

    def __init__(
        self,
        split: str,
        *,
        lengths: LengthTable,
        targets: np.ndarray | None,
        ids: Sequence[str],
        inputs: Sequence[Path],
        rules: Mapping[str, Any],
        nonfinite: NonFinite | None = "error",
        replaced: Mapping[str, int] | None = None,
        padded_to: Mapping[str, int] | None = None,
        left_out: Sequence[LeftOut] = (),
        vocabularies: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        if targets is not None:
            targets = targets.view()
            targets.flags.writeable = False  # samples hold views of it
        self.split, self.lengths, self.targets, self.ids = split, lengths, targets, ids
        self.inputs, self.rules = tuple(inputs), dict(rules)
        self.padded_to = None if padded_to is None else dict(padded_to)
        self.left_out = list(left_out)
        self.vocabularies = dict(vocabularies or {})
        self._rule: NonFinite | None = nonfinite  # None: all values are finite
        self._replaced: dict[str, dict[int, int]] = {name: {} for name in lengths.modalities}
        self._replaced_before = dict(replaced or {})

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample number ``index``.

        Raises:
            IndexError: there is no such sample.
            SourceError: NaN or inf in its features, and they are not to be replaced.
        """
        return self.read(index)

    def read(self, index: int, modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """Return sample number ``index`` with some of its modalities; NaN and inf in the others don't matter.

        Raises:
            IndexError: there is no such sample.
            SourceError: NaN or inf in its features, and they are not to be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample: dict[str, Any] = self._read(index)
        if modalities is not None:
            sample = {name: sample[name] for name in modalities}
        if self._rule is not None:
            for name, array in sample.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    sample[name] = self._finite(index, name, array)
        if self.targets is not None:
            sample[TARGETS] = self.targets[index]
        return sample

    @property
    def nonfinite(self) -> dict[str, int]:
        """NaN and inf that were replaced by 0, of each modality: in the samples read so far, and when converted."""
        return {
            name: sum(found.values()) + self._replaced_before.get(name, 0) for name, found in self._replaced.items()
        }

    @abstractmethod
    def _read(self, index: int) -> dict[str, np.ndarray]:
        """Return the features of a sample, in the order of the table's modalities."""

    @abstractmethod
    def _place(self, index: int, modality: str) -> str:
        """Return the place of a sample's features, for errors: the file, and the key in it."""

    def _finite(self, index: int, name: str, array: np.ndarray) -> np.ndarray:
        bad = ~np.isfinite(array)
        if self._rule == "error":
            position = np.argwhere(bad)[0].tolist()
            raise SourceError(
                f"{self._place(index, name)}: sample {index} ({self.ids[index]}) holds {array[tuple(position)]} at "
                f"position {position[0]}{f', feature {position[1]}' if len(position) > 1 else ''}, and "
                f"{int(bad.sum())} such values in all; clean the file, or put zeros there with nonfinite='zero' "
                "(--nonfinite zero), which are counted"
            )
        self._replaced[name][index] = int(bad.sum())  # by sample, so that one that is read again is counted once
        return np.where(bad, 0, array)


def _absolute(path: Any) -> Any:
    """Return a path, or paths by name, so that they are found from another folder; anything else as it is."""
    if isinstance(path, Mapping):
        return {name: _absolute(value) for name, value in path.items()}
    return Path(path).absolute() if isinstance(path, str | Path) and Path(path).exists() else path


def _open(corpus: type[Corpus], arguments: tuple[Any, ...], options: dict[str, Any]) -> Corpus:
    return corpus(*arguments, **options)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return a copy of numbers as float32; one that it can't hold is inf, and treated as such.

    >>> as_float32(np.array([1.5, 1e300])).tolist()
    [1.5, inf]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def float_targets(values: np.ndarray, ids: Sequence[str], where: str) -> np.ndarray:
    """Return targets as float32; raises a SourceError that names the first sample with one that is not finite."""
    targets = as_float32(values)
    check_finite_targets(targets, ids, where)
    return targets


def whole_targets(values: np.ndarray, ids: Sequence[str], where: str, least: int = -(2**31)) -> np.ndarray:
    """Return targets as int32; raises a SourceError that names the first sample with one that is no whole number."""
    with np.errstate(invalid="ignore"):
        targets = values.astype(np.int32)
    odd = ((targets != values) | (targets < least)).reshape(len(values), -1).any(axis=1)
    if odd.any():
        index = int(np.argmax(odd))
        raise SourceError(
            f"{where}: sample {index} ({ids[index]}) has the target {values[index]}; it must be a whole number, at "
            f"least {least} and below 2^31"
        )
    return targets


def check_finite_targets(targets: np.ndarray, ids: Sequence[str], where: str) -> None:
    """Raise a SourceError that names the first sample whose targets are NaN or inf."""
    bad = ~np.isfinite(targets.reshape(len(targets), -1)).all(axis=1)
    if bad.any():
        index = int(np.argmax(bad))
        raise SourceError(
            f"{where}: sample {index} ({ids[index]}) is labelled {targets[index]}; mend the label, or take the sample "
            f"out of the file ({int(bad.sum())} of {len(targets)} have no finite label)"
        )


def check_distinct(ids: Sequence[str], where: str, lines: Sequence[int] | None = None) -> None:
    """Raise a SourceError that names the first id that two samples (or lines of the file) have."""
    if len(set(ids)) == len(ids):
        return
    seen: dict[str, int] = {}
    for index, name in enumerate(ids):
        if seen.setdefault(name, index) != index:
            what, places = ("samples", range(len(ids))) if lines is None else ("lines", lines)
            raise SourceError(
                f"{where}: {what} {places[seen[name]]} and {places[index]} are both called {name!r:.100}; give each "
                "sample a different id"
            )
