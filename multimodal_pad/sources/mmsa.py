"""The pickles of MMSA: CMU-MOSI, CMU-MOSEI and CH-SIMS with BERT features, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import check_choice
from multimodal_pad.sources.corpus import NonFinite, Progress, float_targets, whole_targets
from multimodal_pad.sources.label_columns import (
    ALL_COLUMNS,
    LabelColumns,
    as_columns,
    check_label_columns,
    describe_label_columns,
    select_labels,
)
from multimodal_pad.sources.pickled import PickledCorpus, PickledSplit, choose_keys, nonzero_span, split_names

KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
"""The key of each modality in the file."""

Lengths = Literal["declared", "last_nonzero"]


class Mmsa(PickledCorpus):
    """One split of a pickle of MMSA: ``unaligned_50.pkl``, ``aligned_50.pkl``, and those of CH-SIMS.

    A dict of ``train``, ``valid`` and ``test``, each with arrays ``text``, ``audio`` and ``vision`` ``(N, T, F)``
    padded on the right, ``text_bert`` ``(N, 3, T)`` (token ids, mask, segments), ``id`` and labels. The length of
    ``text`` is that of the mask in ``text_bert``, since BERT's features of padding are not zero. The lengths of audio
    and visual in the file are 1 where there is nothing: one row that is all zero is a missing
    modality, and is counted in ``rules``.

    - ``text``, ``audio``, ``visual``: float32 ``(length, F)``.
    - ``targets``: scalars, or ``(K,)`` of several columns; float32, or int32 of ``classification_labels``.

    Opening with ``"declared"`` lengths reads the first and last rows only; samples are read from the file on
    access.

    Args:
        path: the pickle, which is read as data alone: nothing in it is run.
        split: ``"train"``, ``"valid"`` or ``"test"``, or another split of the file.
        lengths: of audio and visual. ``"declared"``: those of the file under ``audio_lengths`` and
            ``vision_lengths``. ``"last_nonzero"``: up to the last row that is not all zero, which is further where the
            declared length ends at the first frame without a face, and the only one for aligned files, which declare
            none. Text is then measured in the same way, where the file has no ``text_bert``.
        labels: the key of the targets: ``"regression_labels"``, ``"classification_labels"``, or of CH-SIMS
            ``"regression_labels_T"``, ``"_A"`` and ``"_V"``, which are those of one modality. Of several, in a list,
            each is a column of its name.
        label_column: which columns of the labels, by number, name or range, or a list of these, as
            :func:`~multimodal_pad.sources.label_columns.select_labels` takes them (all by default); None where there
            are no labels, as in a blind test set.
        modalities: which, in which order.
        nonfinite: what to do with NaN and inf (COVAREP holds -inf): ``"error"``, or ``"zero"`` puts 0 there and counts
            them.
        progress: progress callback while the corpus is opened.

    Raises:
        PaddingError: a modality or an option that there is not.
        SourceError: not such a file, or one that is damaged, a split or key that is missing, numbers of samples that
            differ, lengths that the arrays don't have, padding on the left, labels of another shape or NaN, an id that
            two samples have; and, when a sample is read, NaN and inf. The file, the split, the key and the sample are
            named.
        OSError: the file cannot be read.

    >>> import pickle, tempfile
    >>> audio = np.array([[[1.0], [2.0], [0.0]], [[3.0], [0.0], [0.0]]])
    >>> split = {"id": ["a", "b"], "audio": audio, "audio_lengths": [2, 1], "regression_labels": np.array([0.5, -1.0])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "small.pkl").write_bytes(pickle.dumps({"train": split}))
    ...     corpus = Mmsa(folder + "/small.pkl", "train", modalities=["audio"])
    >>> corpus.lengths.values.tolist(), corpus[0]["audio"].tolist()
    ([[2], [1]], [[1.0], [2.0]])
    """

    kind = "mmsa"

    def __init__(
        self,
        path: str | Path,
        split: str,
        *,
        lengths: Lengths = "declared",
        labels: str | Sequence[str] = "regression_labels",
        label_column: LabelColumns = ALL_COLUMNS,
        modalities: Sequence[str] = tuple(KEYS),
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        check_choice("lengths", lengths, Lengths)
        keys = choose_keys(nonfinite, modalities, KEYS)
        file = PickledSplit(path, split)
        arrays = {name: (key, file.features(key)) for name, key in keys.items()}
        check_label_columns(label_column)
        names = [labels] if isinstance(labels, str) else list(labels)
        values = {} if label_column is None else {name: file.labels(name) for name in names}
        found_keys = [*arrays.values(), *values.items()]
        count = file.check_count({key: len(array) for key, array in found_keys})
        ids = file.ids("id", count)
        found: dict[str, np.ndarray] = {}
        missing: dict[str, int] = {}
        for name, (key, array) in arrays.items():
            if name == "text" and (lengths == "declared" or "text_bert" in file.entries):
                found[name] = _mask_lengths(file, array, ids)
                continue
            if lengths == "declared":
                found[name], missing[name] = _declared_lengths(file, key, array, ids)
            else:
                _, found[name] = nonzero_span(array, file.mapping, progress, f"looking through {split}, {key}")
            _check_side(array, found[name], file.key(key))
        super().__init__(
            file,
            arrays,
            {name: np.zeros(count, np.int64) for name in arrays},
            found,
            targets=_targets(file, values, label_column, ids),
            ids=ids,
            nonfinite=nonfinite,
            rules={
                "lengths": lengths,
                "labels": labels if isinstance(labels, str) else names,
                "label_column": describe_label_columns(label_column),
                "declared 1, all zero, so missing": missing,
            },
        )

    split_names = staticmethod(split_names)


def _mask_lengths(file: PickledSplit, text: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    tokens = file.numbers("text_bert")
    if tokens.shape != (len(text), 3, text.shape[1]):
        raise SourceError(
            f"{file.key('text_bert')}: has the shape {tokens.shape}; with text of shape {text.shape} it must be "
            f"({len(text)}, 3, {text.shape[1]}): token ids, mask and segments"
        )
    mask = tokens[:, 1]
    lengths = (mask == 1).sum(axis=1)
    odd = (mask != (np.arange(text.shape[1]) < lengths[:, None])).any(axis=1)
    if odd.any():
        index = int(np.argmax(odd))
        raise SourceError(
            f"{file.key('text_bert')}: sample {index} ({ids[index]}) has the mask {mask[index].astype(int).tolist()}; "
            "a mask is ones, and then zeros (padding on the right)"
        )
    return lengths


def _declared_lengths(file: PickledSplit, key: str, array: np.ndarray, ids: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the file's lengths, and how many of 1 are all zero, which is how MMSA writes a missing modality."""
    name = f"{key}_lengths"
    if name not in file.entries:
        raise SourceError(
            f"{file.where}: has no key {name!r}, as aligned files; take lengths='last_nonzero' (--lengths last_nonzero)"
        )
    lengths = file.numbers(name)
    if lengths.size != len(array):
        raise SourceError(
            f"{file.key(name)}: has the shape {lengths.shape} for {len(array)} samples; give one for each"
        )
    lengths = lengths.reshape(-1)
    odd = ~((lengths >= 0) & (lengths <= array.shape[1]) & (lengths == np.trunc(lengths)))
    if odd.any():
        index = int(np.argmax(odd))
        raise SourceError(
            f"{file.key(name)}: sample {index} ({ids[index]}) has the length {lengths[index]}, and {key!r} is padded "
            f"to {array.shape[1]}; a length is a whole number from 0 to that (lengths='last_nonzero' does without)"
        )
    lengths = lengths.astype(np.int64)
    single = np.flatnonzero(lengths == 1)
    nothing = single[(array[single, 0] == 0).all(axis=1)]
    lengths[nothing] = 0
    return lengths, len(nothing)


def _check_side(array: np.ndarray, lengths: np.ndarray, where: str) -> None:
    """Raise where most samples begin with zeros and end with data: padding on the left would be taken for data."""
    left = (array[:, 0] == 0).all(axis=1) & (array[:, -1] != 0).any(axis=1)
    if 2 * left.sum() > (lengths > 0).sum():
        raise SourceError(
            f"{where}: {int(left.sum())} of {len(array)} samples begin with a row of zeros and end with one that is "
            "not, as if padded on the left; MMSA pads on the right (pad it there, or read a file of MulT with Mult)"
        )


def _targets(
    file: PickledSplit, labels: dict[str, np.ndarray], chosen: LabelColumns, ids: Sequence[str]
) -> np.ndarray | None:
    """Return the chosen columns under all keys of labels."""
    if not labels:
        return None
    columns = {key: as_columns(values, file.key(key)) for key, values in labels.items()}
    names = list(columns) if all(values.shape[1] == 1 for values in columns.values()) else []
    where = file.key(", ".join(labels))
    found = select_labels(np.concatenate(list(columns.values()), axis=1), chosen, where, names)
    if found is None:
        return None
    if all(key.startswith("classification") for key in labels):
        return whole_targets(found, ids, where, least=0)
    return float_targets(found, ids, where)
