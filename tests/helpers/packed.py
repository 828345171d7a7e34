"""Samples of two modalities, and a small transformer for them, that are trained on in packed batches."""

import numpy as np
from flax import nnx

from multimodal_pad import LengthTable
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig

RNG = np.random.default_rng(0)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(0, 9, 61), RNG.integers(0, 20, 61)], axis=1))
SAMPLES = [
    {
        "text": RNG.integers(1, 5, text).astype(np.int32) + 5 * (i % 2),
        "audio": RNG.standard_normal((audio, 3)).astype(np.float32),
        "targets": np.int32(i % 2),
    }
    for i, (text, audio) in enumerate(TABLE.values.tolist())
]
MODALITIES = {"text": ModalityConfig(vocabulary_size=11), "audio": ModalityConfig(feature_width=3, kernel_size=3)}


def make_model(**options):
    sizes = {"d_model": 8, "num_heads": 2, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.0}
    return MultimodalTransformer(TransformerConfig(MODALITIES, 2, **{**sizes, **options}), rngs=nnx.Rngs(0))
