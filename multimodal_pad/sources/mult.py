"""The pickles of MulT: CMU-MOSI, CMU-MOSEI and IEMOCAP, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.corpus import NonFinite, Progress, float_targets
from multimodal_pad.sources.label_columns import (
    ALL_COLUMNS,
    LabelColumns,
    check_label_columns,
    describe_label_columns,
    select_labels,
)
from multimodal_pad.sources.pickled import PickledCorpus, PickledSplit, choose_keys, nonzero_span, split_names

KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
"""The key of each modality in the file."""

EMOTIONS = ("neutral", "happy", "sad", "angry")
"""IEMOCAP's four binary tasks, in the order of its labels."""


class Mult(PickledCorpus):
    """One split of a pickle of MulT (Tsai et al., ACL 2019): ``mosi_data_noalign.pkl`` and the like.

    A dict of ``train``, ``valid`` and ``test``, each with arrays ``text``, ``audio`` and ``vision`` ``(N, T, F)``,
    ``labels`` and ``id``. Samples are padded on the left with rows of zeros, and the file doesn't hold their lengths:
    a sample begins at its first row that is not all zero. Rows of zeros further on are data, as where a face was not
    found; a modality whose rows are all zero is missing (length 0).

    - ``text``, ``audio``, ``visual``: float32 ``(length, F)``.
    - ``targets``: float32 scalars of labels ``(N, 1, 1)``, or ``(K,)`` of several columns, ``(N, K)`` or ``(N, 1, K)``;
      of IEMOCAP's one-hot labels ``(N, 4, 2)`` int32 ``(4,)``, 1 where the emotion is there, for the four
      :data:`EMOTIONS`, which are the names of its columns.
    - ``ids``: ``video[start,end]`` of MulT's three parts; ``train[0]`` and so on in files without ids.

    Opening reads through the arrays once. Samples are read from the file on access, in the precision that they
    have there, so that a file may be larger than the memory (but see
    :func:`~multimodal_pad.sources.pickles.read_pickle` on old protocols of Python 3).

    Args:
        path: the pickle, which is read as data alone: nothing in it is run.
        split: ``"train"``, ``"valid"`` or ``"test"``, or another split of the file.
        modalities: which, in which order.
        label_column: which columns of the labels, by number, name or range, or a list of these, as
            :func:`~multimodal_pad.sources.label_columns.select_labels` takes them (all by default); None where there
            are no labels, as in a blind test set.
        nonfinite: what to do with NaN and inf: ``"error"``, or ``"zero"`` puts 0 there and counts them.
        progress: progress callback while the corpus is opened.

    Raises:
        PaddingError: a modality or an option that there is not.
        SourceError: not such a file, or one that is damaged, a split or key that is missing, numbers of samples that
            differ, labels of another shape or NaN, an id that two samples have; and, when a sample is read, NaN and
            inf. The file, the split, the key and the sample are named.
        OSError: the file cannot be read.

    >>> import pickle, tempfile
    >>> text = np.zeros((1, 5, 2)); text[0, 3:] = 1
    >>> split = {"text": text, "audio": text, "vision": 0 * text, "labels": np.full((1, 1, 1), 0.4)}
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(pickle.dumps({"train": split})), file.flush()
    ...     source = Mult(file.name, "train")
    >>> source.lengths.values.tolist(), source.padded_to
    ([[2, 2, 0]], {'text': 5, 'audio': 5, 'visual': 5})
    """

    kind = "mult"

    def __init__(
        self,
        path: str | Path,
        split: str,
        *,
        modalities: Sequence[str] = tuple(KEYS),
        label_column: LabelColumns = ALL_COLUMNS,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        keys = choose_keys(nonfinite, modalities, KEYS)
        file = PickledSplit(path, split)
        arrays = {name: (key, file.features(key)) for name, key in keys.items()}
        check_label_columns(label_column)
        labels = None if label_column is None else file.labels("labels")
        counts = {key: len(array) for key, array in arrays.values()}
        count = file.check_count({**counts, **({} if labels is None else {"labels": len(labels)})})
        ids = file.ids("id", count)
        targets = None if labels is None else _targets(labels, label_column, ids, file.key("labels"))
        starts, lengths = {}, {}
        for name, (key, array) in arrays.items():
            starts[name], _ = nonzero_span(array, file.mapping, progress, f"looking through {split}, {key}")
            lengths[name] = array.shape[1] - starts[name]
        super().__init__(
            file,
            arrays,
            starts,
            lengths,
            targets=targets,
            ids=ids,
            nonfinite=nonfinite,
            rules={
                "lengths": "from the first row that is not all zero",
                "label_column": describe_label_columns(label_column),
            },
        )

    split_names = staticmethod(split_names)


def _targets(labels: np.ndarray, columns: LabelColumns, ids: Sequence[str], where: str) -> np.ndarray | None:
    if labels.shape[1:] == (len(EMOTIONS), 2):
        odd = ~(np.isin(labels, (0, 1)) & (labels.sum(axis=2, keepdims=True) == 1)).all(axis=(1, 2))
        if odd.any():
            index = int(np.argmax(odd))
            raise SourceError(
                f"{where}: sample {index} ({ids[index]}) has the labels {labels[index].tolist()}; each of the "
                f"{len(EMOTIONS)} emotions must be one-hot"
            )
        return select_labels(labels.argmax(axis=2).astype(np.int32), columns, where, EMOTIONS)
    found = select_labels(labels, columns, where)
    return None if found is None else float_targets(found, ids, where)
