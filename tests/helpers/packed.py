"""Samples of two modalities, and a small transformer for them, that are trained on in packed batches."""

import numpy as np
from flax import nnx

from multimodal_pad import LengthTable
from multimodal_pad.layouts.packed import PackedLayout
from multimodal_pad.layouts.tile_pairs import listed_pairs, room_needed, tiles_of
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


def tile_pairs(queries, keys, query_count, key_count):
    """The list of one attention, with two entries that are not used."""
    tiles = np.array([tiles_of(query_count), tiles_of(key_count)])
    room = room_needed(np.stack([queries, keys], axis=1)[None], tiles)[0, 1] + 2
    lengths, counts = {"q": np.asarray(queries), "k": np.asarray(keys)}, dict(zip("qk", tiles.tolist(), strict=True))
    return listed_pairs(lengths, counts, (("q", "k", int(room)),), 1)["q", "k"]


def with_pairs(samples, capacity):
    """The packed layout with as many pairs of tiles as these samples have in a batch."""
    names = list(capacity)
    lengths = np.array([[len(sample[name]) for name in names] for sample in samples])
    room = room_needed(lengths[None], np.array([tiles_of(n) for n in capacity.values()]))
    entries = ((t, s, int(room[i, j])) for i, t in enumerate(names) for j, s in enumerate(names))
    return PackedLayout(room=tuple(sorted(entries)))


def make_model(**options):
    sizes = {"d_model": 8, "num_heads": 2, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.0}
    return MultimodalTransformer(TransformerConfig(MODALITIES, 2, **{**sizes, **options}), rngs=nnx.Rngs(0))
