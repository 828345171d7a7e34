"""Feature files in folders, and a table of samples: the usual form on disk, such as that of MERTools and MERBench."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.samples import check_choice, check_names
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import some
from multimodal_pad.sources.corpus import (
    Corpus,
    NonFinite,
    Progress,
    check_distinct,
    float_targets,
    whole_targets,
)
from multimodal_pad.sources.feature_files import Absent, FeatureFiles, Vectors, told_with
from multimodal_pad.sources.folds import ALL, Folds, folds_of, read_folds
from multimodal_pad.sources.sample_tables import SPLIT, Row, find_ids, read_rows, targets_of

logger = logging.getLogger(__name__)


class Files(Corpus):
    """One split of a corpus of feature files: a table of ids, targets and splits, and a folder for each modality.

    MERTools' and MERBench's folders are so (IEMOCAP, MELD, CMU-MOSI, CMU-MOSEI, CH-SIMS, MER2023 and later)::

        iemocap-process/label_6way.npz                              targets by id, and by split where there are several
        iemocap-process/features/chinese-hubert-large-FRA/Ses01F_impro01_F000.npy       (frames, features)
        iemocap-process/features/manet_FRA/Ses01F_impro01_F000/0001.npy ...             or a file for each frame

    and many others have a CSV or JSON lines instead of the ``.npz``. Opening reads the table and the headers of the
    files, and no features. Features are float32, or whole numbers such as token ids as they are.

    Args:
        root: the folder.
        split: which split; ``"all"`` where the table has none.
        table: the file of the samples in it, as :func:`~multimodal_pad.sources.sample_tables.read_rows` reads it. With
            ``{split}`` in its name there is one for each split.
        features: of each modality the folder in ``root``, ``{id}.npy`` and so on in it, as
            :class:`~multimodal_pad.sources.feature_files.FeatureFiles` reads them; ``{split}`` in it stands for the
            split.
        paths: of each modality the field of the table with the path of its file, from ``root`` on, where it has one.
        ids: the field of the ids, or a form such as ``"dia{Dialogue_ID}_utt{Utterance_ID}"``; by default ``id`` or
            ``name``.
        targets: the field of the targets, or several, whose targets are ``(K,)``; None for none.
        classes: the names of the classes in order, where the targets are classes; by default in that of the alphabet,
            over all splits.
        split_field: the field of the split; by default ``split``, where there is one.
        folds: in place of such a field, ids by split, or patterns such as ``"Ses05*"``, or a JSON file of them; samples
            that are in none are left out.
        absent: what to do with a sample without a file: ``"error"``, or ``"missing"``: it lacks the modality (length
            0), which is logged as a warning and counted.
        vectors: the meaning of an array of one axis, where all of a modality have one: ``"frame"``, features of the
            whole sample; or ``"sequence"``, positions of one number.
        nonfinite: what to do with NaN and inf: ``"error"``, or ``"zero"`` puts 0 there and counts them.
        progress: progress callback while the corpus is opened.

    Attributes:
        classes: names of the classes, by number; None where targets are none.

    Raises:
        PaddingError: no modality, one twice, an unknown choice, or classes that are no names of classes.
        SourceError: a file or folder that is not there, damaged, or not of the kind of its name; a field that is not
            there; a sample twice, or without an id, a target or a file. File, line and sample are named.
        OSError: a file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     Path(root, "audio").mkdir()
    ...     for name, length in (("a", 3), ("b", 5)):
    ...         np.save(f"{root}/audio/{name}.npy", np.ones((length, 2), np.float32))
    ...     _ = Path(root, "labels.csv").write_text("name,emotion,split\\na,sad,train\\nb,angry,train\\n")
    ...     corpus = Files(root, "train", table="labels.csv", features={"audio": "audio"}, targets="emotion")
    >>> corpus.ids, corpus.lengths.values.tolist(), corpus.targets.tolist(), corpus.classes
    (['a', 'b'], [[3], [5]], [1, 0], ['angry', 'sad'])
    """

    kind = "files"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        table: str,
        features: Mapping[str, str | Path] | None = None,
        paths: Mapping[str, str] | None = None,
        ids: str | None = None,
        targets: str | Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        split_field: str | None = None,
        folds: Folds | None = None,
        absent: Absent = "error",
        vectors: Vectors | None = None,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        for name, value, allowed in (("absent", absent, Absent), ("nonfinite", nonfinite, NonFinite)):
            check_choice(name, value, allowed)
        if vectors is not None:
            check_choice("vectors", vectors, Vectors)
        root, features, paths = Path(root), dict(features or {}), dict(paths or {})
        modalities = check_names((*features, *paths))
        names = [] if targets is None else [targets] if isinstance(targets, str) else list(targets)
        if targets is not None and not names:
            raise PaddingError("got targets=[]; name at least one field, or give None for no targets")
        if classes is not None and (isinstance(classes, str) or not names or len(set(classes)) < len(classes)):
            raise PaddingError(
                f"got classes={classes!r} and targets={targets!r}; give names of the classes of the targets, each once"
            )
        rows = read_rows(root, table)
        found = find_ids(rows, ids)
        splits = _splits(rows, found, split_field, folds, str(root / table))
        if split not in splits:
            raise SourceError(f"{root / table}: has no split {split!r}, only {some(splits)}")
        chosen = splits[split]
        own = [found[index] for index in chosen]
        check_distinct(own, f"{root / table}, split {split!r}")
        self.classes: list[str] | None = None
        values = None
        if names:
            values, self.classes = targets_of(rows, chosen, names, classes)
            check = float_targets if values.dtype.kind == "f" else whole_targets
            values = check(values, own, f"{root / table}, {', '.join(map(repr, names))}")
        rules: dict[str, Any] = {"table": table, "ids": ids, "targets": names, "classes": self.classes}
        self._files: dict[str, FeatureFiles] = {}
        for name in modalities:
            options: dict[str, Any] = {"absent": absent, "vectors": vectors, "progress": told_with(progress, split)}
            if name in features:
                folder = root / _folder_of(str(features[name]), split)
                files = FeatureFiles.in_folder(folder, name, own, **options)
            else:
                files = FeatureFiles(
                    [_place(root, rows[index], paths[name]) for index in chosen],
                    name,
                    own,
                    where=f"{root / table}, {paths[name]!r}",
                    **options,
                )
            self._files[name] = files
            place = {"folder": str(features[name])} if name in features else {"field": paths[name]}
            rules[f"{name} of"] = {**place, "samples without a file": files.absent}
        if folds is not None:
            rules["in no fold"] = len(rows) - sum(map(len, splits.values()))
        super().__init__(
            split,
            lengths=LengthTable.from_columns({name: files.lengths for name, files in self._files.items()}),
            targets=values,
            ids=own,
            inputs=[
                *dict.fromkeys(row.path for row in rows),
                *(path for files in self._files.values() for path in files.paths),
            ],
            rules={**rules, "absent": absent, "vectors": vectors, "nonfinite": nonfinite},
            nonfinite=nonfinite,
        )

    @staticmethod
    def split_names(
        root: str | Path,
        *,
        table: str,
        ids: str | None = None,
        split_field: str | None = None,
        folds: Folds | None = None,
    ) -> list[str]:
        """Return the splits of a table, in the order in which they appear; see :class:`Files` for the arguments."""
        rows = read_rows(Path(root), table)
        return list(_splits(rows, find_ids(rows, ids), split_field, folds, str(Path(root) / table)))

    def _read(self, index: int) -> dict[str, np.ndarray]:
        return {name: files.read(index) for name, files in self._files.items()}

    def _place(self, index: int, modality: str) -> str:
        return str(self._files[modality].path(index))


def _splits(
    rows: Sequence[Row], ids: list[str], split_field: str | None, folds: Folds | None, where: str
) -> dict[str, list[int]]:
    """Return the rows of each split."""
    if folds is not None and split_field is not None:
        raise PaddingError("got split_field and folds; give one of them")
    if folds is not None:
        names = folds_of(ids, read_folds(folds, "ids"), where)
        left = names.count(None)
        if left:
            logger.warning("%s: %d of %d samples are in no fold", where, left, len(names))
    elif split_field is not None or SPLIT in rows[0].values:
        names = [row.text(split_field or SPLIT) for row in rows]
    else:
        names = [ALL] * len(rows)
    splits: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if name is not None:
            splits.setdefault(name, []).append(index)
    return splits


def _place(root: Path, row: Row, field: str) -> Path | None:
    """Return the path of features that a field holds; None where the field is empty, or no file is there."""
    value = row.value(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        raise SourceError(f"{row.where}, {field!r}: got {value!r:.80}; it must be the path of a file")
    path = root / value
    try:
        return path if path.exists() else None
    except OSError:  # such as a name that is too long
        return None


def _folder_of(folder: str, split: str) -> str:
    """Return the folder's name with the split in it."""
    if f"{{{SPLIT}}}" in folder and (split in (".", "..") or set(split) & set("/\\\0")):
        raise SourceError(f"{folder}: got the split {split!r}, which is no name of a folder; give it another name")
    return folder.replace(f"{{{SPLIT}}}", split)
