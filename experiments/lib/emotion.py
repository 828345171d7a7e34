"""Corpora of emotion and sentiment: the options of a run, and how splits are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from multimodal_pad import LengthTable, PaddingError
from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import Source
from multimodal_pad.sources import Meld, Mmsa, Mult, NumpyDir, Synthetic
from multimodal_pad.sources.corpus import NonFinite
from multimodal_pad.sources.mult import EMOTIONS
from multimodal_pad.sources.numpy_dir import MANIFEST

Task = Literal["classes", "sentiment", "sims", "emotions"]
Padding = Literal["planned", "fixed", "exact", "packed"]
Grouping = Literal["length", "random"]
PADDINGS: tuple[Padding, ...] = get_args(Padding)
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default; a file under ``experiments/lib/configs`` has those of a corpus.

    Attributes:
        corpus: which reader.
        file: its name in ``data_dir``; empty where the reader takes the folder.
        data_dir: of the corpus' own files, or a flat cache of them.
        splits: for training, for choosing the best epoch, and for the figures.
        task: what is predicted, see :func:`num_outputs`.
        classes: how many, where the task is classes.
        padding: ``"planned"`` shapes, ``"fixed"`` to the longest of any split, ``"exact"``, each training batch to
            its own maxima, or ``"packed"``, samples end to end in planned capacities.
        grouping: of planned shapes; fixed and exact padding have random batches, and packed ones are balanced.
        schedule: of the learning rate.
        monitor: the figure of the second split that chooses the epoch.
    """

    corpus: Literal["synthetic", "meld", "mult", "mmsa"] = "synthetic"
    file: str = ""
    data_dir: str | None = None
    splits: tuple[str, str, str] = ("train", "valid", "test")
    task: Task = "classes"
    classes: int = 3
    modalities: tuple[str, ...] | None = None
    nonfinite: NonFinite = "error"
    min_count: int = 1
    samples: int = 2000
    epochs: int = 5
    batch_size: int = 32
    padding: Padding = "planned"
    max_shapes: int = 4
    grouping: Grouping = "length"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    d_model: int = 40
    num_heads: int = 8
    layers: int = 1
    memory_layers: int = 1
    kernel_sizes: Mapping[str, int] = field(default_factory=lambda: {"audio": 3, "visual": 3})
    dropout: float = 0.1
    monitor: str = "loss"
    patience: int | None = None
    seed: int = 0
    save_every: int | None = None
    checkpoints: str | None = None


QUICK = {
    "samples": 64,
    "epochs": 1,
    "batch_size": 8,
    "max_shapes": 1,
    "d_model": 8,
    "num_heads": 2,
    "layers": 1,
    "memory_layers": 1,
    "warmup_steps": 0,
}
"""Options under ``--quick``, to check that everything works."""


def load_splits(config: Config) -> dict[str, Any]:
    """Open the source of each split, in the order of the configuration.

    Raises:
        PaddingError: no folder for a corpus on disk, or one for the synthetic one.
        SourceError: the file is not there, or is not what it should be.
    """
    if config.corpus == "synthetic":
        if config.data_dir is not None:
            raise PaddingError(
                f"got --data-dir {config.data_dir} for synthetic utterances; name the corpus with --config"
            )
        return _synthetic(config)
    if config.data_dir is None:
        raise PaddingError(
            f"give --data-dir, the folder of {config.file or 'the three tables of MELD'}, or a flat cache"
        )
    folder = Path(config.data_dir)
    if (folder / MANIFEST).exists():
        return {split: NumpyDir(folder, split) for split in config.splits}
    if config.corpus == "meld":
        payload = "none" if config.modalities == ("text",) else "synthetic"
        return {
            split: Meld(folder, split, payload=payload, min_count=config.min_count)  # pyright: ignore[reportArgumentType]
            for split in config.splits
        }
    path = folder / config.file
    if not path.exists():
        raise SourceError(
            f"{folder}: holds neither {config.file} nor {MANIFEST} of a flat cache; give the right folder"
        )
    source = Mult if config.corpus == "mult" else Mmsa
    return {split: source(path, split, nonfinite=config.nonfinite) for split in config.splits}


def num_outputs(config: Config) -> int:
    """Return the number of outputs: a logit per class or per emotion of IEMOCAP, or one value of sentiment."""
    return {"classes": config.classes, "emotions": len(EMOTIONS)}.get(config.task, 1)


def vocabulary_sizes(source: Source) -> dict[str, int]:
    """Return the vocabulary size of each modality of token ids, with padding and unknown ones."""
    return {name: max(ids.values()) + 1 for name, ids in getattr(source, "vocabularies", {}).items()}


def _synthetic(config: Config) -> dict[str, Any]:
    small = max(2, config.samples // 5)
    sizes = [config.samples, small, small]
    # One seed for all splits, since it fixes the features of each class; the splits differ in sample numbers.
    whole, bounds = Synthetic(sum(sizes), num_classes=config.classes), np.cumsum([0, *sizes])
    return {
        split: _Part(whole, start, stop)
        for split, start, stop in zip(config.splits, bounds[:-1], bounds[1:], strict=True)
    }


class _Part:
    """A run of the samples of a source."""

    def __init__(self, source: Synthetic, start: int, stop: int) -> None:
        self._source, self._start = source, int(start)
        self.lengths = LengthTable(source.lengths.modalities, source.lengths.values[start:stop])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._start + index]
