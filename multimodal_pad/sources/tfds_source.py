"""Any TFDS dataset with ragged features as a source, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths.samples import check_choice, check_names
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.reading import file_size, reading
from multimodal_pad.sources.corpus import (
    Corpus,
    NonFinite,
    Progress,
    check_distinct,
    float_targets,
    whole_targets,
)
from multimodal_pad.sources.row_columns import stack_columns
from multimodal_pad.sources.tfds_features import RaggedFeature, check_key, top_features, value_of


def tfds(
    name: str | Path,
    split: str,
    *,
    features: Mapping[str, str] | None = None,
    targets: str | Sequence[str] | None = None,
    ids: str | None = None,
    data_dir: str | Path | None = None,
    nonfinite: NonFinite = "error",
    progress: Progress | None = None,
) -> TfdsCorpus:
    """Open a split of a dataset that TensorFlow Datasets has prepared, in a format with random access.

    Opening reads every example once, for its lengths; later each read decodes one, so that for training a
    flat cache is faster (``multimodal-pad convert tfds``). TensorFlow is not needed, as long as the dataset
    was prepared with ``file_format="array_record"``.

    Args:
        name: as ``tfds.builder`` takes it, such as ``"unaligned_emotion/mosi"``, or the folder of a prepared dataset.
        split: as ``tfds.data_source`` takes it, ``"train[:10%]"`` included.
        features: the feature of each modality, ``"audio/frames"`` in nested ones, those of a ``Sequence`` or
            ``Dataset`` of dicts included. By default every feature at the top that is ragged, by the alphabet: a
            ``Tensor`` whose first dimension is None, or a ``Sequence`` or ``Dataset`` of tensors of one shape.
        targets: the feature of the targets, or several in a list, whose numbers become one array ``(K,)``; samples have
            none by default.
        ids: the feature of the ids; by default the split and the number of the example.
        data_dir: of TFDS.
        nonfinite: what to do with NaN and inf: ``"error"``, or ``"zero"`` puts 0 there and counts them.
        progress: progress callback while the corpus is opened.

    Returns:
        The corpus: floats as float32 ``(length, *feature_shape)``, whole numbers as they are; targets float32 or int32.

    Raises:
        PaddingError: tensorflow-datasets is not installed (``pip install 'multimodal-pad[tfds]'``).
        SourceError: no such dataset or split, one that is not prepared, or is in a format without random access; a
            feature that is not there or is not ragged; NaN targets, or an id that two examples have.

    >>> source = tfds("unaligned_emotion/mosi", "train", targets="targets", ids="id")  # doctest: +SKIP
    """
    return TfdsCorpus(
        name,
        split,
        features=features,
        targets=targets,
        ids=ids,
        data_dir=data_dir,
        nonfinite=nonfinite,
        progress=progress,
    )


class TfdsCorpus(Corpus):
    """The corpus that :func:`tfds` opens."""

    kind = "tfds"

    def __init__(
        self,
        name: str | Path,
        split: str,
        *,
        features: Mapping[str, str] | None,
        targets: str | Sequence[str] | None,
        ids: str | None,
        data_dir: str | Path | None,
        nonfinite: NonFinite,
        progress: Progress | None,
    ) -> None:
        check_choice("nonfinite", nonfinite, NonFinite)
        builder = open_builder(name, data_dir)
        self._where = f"{builder.info.full_name}, split {split!r}"
        try:
            files = [Path(path) for path in builder.info.splits[split].filepaths]
            for path in files:
                file_size(path)  # refuses a pipe, which would be waited for
            self._examples = builder.as_data_source(split=split)
        except SourceError:
            raise
        except (ValueError, NotImplementedError) as error:
            raise SourceError(
                f"{self._where}: {' '.join(str(error).split())[:300]} (splits: {list(builder.info.splits)}; random "
                "access needs a dataset that was prepared with file_format='array_record')"
            ) from None
        self._folder = files[0].parent if files else builder.data_path
        known = builder.info.features
        chosen = top_features(known, self._where) if features is None else dict(features)
        self._features = {modality: RaggedFeature(known, key, self._where) for modality, key in chosen.items()}
        target_keys = [targets] if isinstance(targets, str) else list(targets or ())
        for key in [*target_keys, *([] if ids is None else [ids])]:
            check_key(known, key, self._where)
        names = check_names(tuple(self._features))
        lengths = np.zeros((len(self._examples), len(names)), np.int64)
        found_targets, found_ids = [], []
        for index in range(len(self._examples)):
            with self._reading(index):
                example = self._examples[index]
                lengths[index] = [feature.length(example) for feature in self._features.values()]
                if target_keys:
                    values = [np.asarray(value_of(example, key)) for key in target_keys]
                    found_targets.append(values[0] if isinstance(targets, str) else stack_columns(values, target_keys))
                identity = f"{split}[{index}]" if ids is None else value_of(example, ids)
                found_ids.append(identity.decode("utf-8") if isinstance(identity, bytes) else str(identity))
            if progress is not None:
                progress(f"looking through {split}", index + 1, len(self._examples))
        check_distinct(found_ids, self._where)
        super().__init__(
            split,
            lengths=LengthTable(names, lengths),
            targets=_targets(found_targets, found_ids, f"{self._where}, {targets!r}"),
            ids=found_ids,
            inputs=files,
            rules={"dataset": builder.info.full_name, "features": chosen, "targets": targets, "nonfinite": nonfinite},
            nonfinite=nonfinite,
        )

    @staticmethod
    def split_names(name: str | Path, data_dir: str | Path | None = None) -> list[str]:
        """Return the splits of a prepared dataset."""
        return list(open_builder(name, data_dir).info.splits)

    def _reading(self, index: int) -> AbstractContextManager[None]:
        return reading(f"{self._where}, example {index}, in {self._folder}", "prepare the dataset again")

    def _read(self, index: int) -> dict[str, np.ndarray]:
        with self._reading(index), np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become inf
            example = self._examples[index]
            seen: dict[str, Any] = {}
            return {name: feature.array(example, seen) for name, feature in self._features.items()}

    def _place(self, index: int, modality: str) -> str:  # noqa: ARG002 - examples have no place of their own
        return f"{self._where}, {self._features[modality].key!r}"


def open_builder(name: str | Path, data_dir: str | Path | None) -> Any:
    """Return the TFDS builder of a prepared dataset."""
    tensorflow_datasets = require_tfds()
    try:
        if Path(name, "dataset_info.json").is_file():
            return tensorflow_datasets.builder_from_directory(name)
        builder = tensorflow_datasets.builder(str(name), data_dir=data_dir)
    except Exception as error:  # not there, or its description is damaged
        raise SourceError(f"no TFDS dataset {str(name)!r}: {' '.join(str(error).split())[:300]}") from error
    if not builder.info.splits:
        raise SourceError(
            f"the TFDS dataset {str(name)!r} is not prepared in {builder.data_path}; run download_and_prepare on its "
            "builder, made with file_format='array_record'"
        )
    return builder


def require_tfds() -> Any:
    """Return TensorFlow Datasets; raise a PaddingError that says how to install it where it is absent."""
    try:
        import array_record  # noqa: F401 - TFDS misses it only when it reads
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise PaddingError(
            f"TFDS datasets need {error.name}; install it with pip install 'multimodal-pad[tfds]'"
        ) from None
    return tensorflow_datasets


def _targets(found: list[np.ndarray], ids: list[str], where: str) -> np.ndarray | None:
    if not found:
        return None
    shapes = {target.shape for target in found}
    if len(shapes) > 1 or found[0].dtype.kind not in "biuf":
        raise SourceError(
            f"{where}: got targets of {found[0].dtype} and the shapes {shapes}; targets are numbers of one shape"
        )
    targets = np.stack(found)
    return (float_targets if targets.dtype.kind == "f" else whole_targets)(targets, ids, where)
