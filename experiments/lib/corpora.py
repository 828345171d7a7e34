"""Samples, their lengths and a model for them, for most experiments: MELD's, or synthetic ones like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import Progress

from multimodal_pad import LengthTable, PaddingError, pad_samples
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.models import ModalityConfig, TransformerConfig
from multimodal_pad.sources import Meld, Synthetic

KERNEL_SIZES = {"audio": 3, "visual": 3}  # those of MulT for features; 1 for other modalities


@dataclass(frozen=True)
class Config:
    """Options of one comparison, with every default."""

    source: str = "synthetic"
    data_dir: str | None = None
    modalities: tuple[str, ...] | None = None
    policies: tuple[str, ...] = (
        "fixed",
        "exact",
        "powers_of_two/length",
        "planned_8/random",
        "planned_8/length",
        "packed",
    )
    samples: int | None = None
    epochs: int = 10
    batch_size: int = 32
    max_minutes: float = 4.0
    seed: int = 0
    d_model: int = 40
    num_heads: int = 8
    layers: int = 1
    learning_rate: float = 1e-3


QUICK = {"modalities": ("text", "audio"), "samples": 64, "epochs": 1, "batch_size": 16, "max_minutes": 0.4}
"""Options under --quick, to check that everything works; its figures say nothing of padding."""


def on_corpus(data_dir: str | None, **given: Any) -> Config:
    """Return options for other experiments on the same samples and model; None means the default."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return Config(source="synthetic" if data_dir is None else "meld", data_dir=data_dir, **chosen)


def load(
    config: Config, progress: Progress
) -> tuple[list[dict[str, Any]], LengthTable, TransformerConfig, list[dict[str, Any]]]:
    """Load the samples into memory; return them, their lengths, the model for them, and the rows left out."""
    vocabulary_sizes: dict[str, int] = {}
    left_out = []
    if config.source == "meld":
        if config.data_dir is None:
            raise PaddingError("--source meld needs --data-dir, the folder of MELD's three CSV files")
        source = Meld(config.data_dir, "train", seed=config.seed)
        classes, vocabulary_sizes["text"] = 7, len(source.vocabulary) + 2
        left_out = [row._asdict() for row in source.left_out]
    else:
        source, classes = Synthetic(config.samples or 2000, seed=config.seed), 3
    chosen = np.random.default_rng(config.seed).permutation(len(source))[: config.samples]
    samples = [source[int(index)] for index in progress.track(chosen, description="reading")]
    lengths = LengthTable(source.lengths.modalities, source.lengths.values[chosen])
    lengths = lengths.select(config.modalities or lengths.modalities)
    model_config = TransformerConfig(
        modality_configs(samples[0], lengths.modalities, vocabulary_sizes),
        classes,
        d_model=config.d_model,
        num_heads=config.num_heads,
        crossmodal_layers=config.layers,
        memory_layers=config.layers,
        dropout_rate=0.0,  # so that the first loss is the same under every policy of one grouping
    )
    return samples, lengths, model_config, left_out


def modality_configs(
    sample: Sample, names: Sequence[str], vocabulary_sizes: Mapping[str, int]
) -> dict[str, ModalityConfig]:
    """Return the model's input for each modality: token ids of a vocabulary, or features as wide as a sample's."""
    return {
        name: ModalityConfig(vocabulary_size=vocabulary_sizes[name])
        if name in vocabulary_sizes
        else ModalityConfig(feature_width=sample[name].shape[1], kernel_size=KERNEL_SIZES.get(name, 1))
        for name in names
    }


def some_batch(samples: list[Any], lengths: LengthTable) -> tuple[Any, list[Any], dict[str, int]]:
    """Return the first samples padded beyond their maxima, as a batch; the samples; and the padded lengths."""
    some = samples[:8]
    padded = {name: 3 + max(len(sample[name]) for sample in some) for name in lengths.modalities}
    return pad_samples(some, modalities=lengths.modalities, pad_to=padded), some, padded
