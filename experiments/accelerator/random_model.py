"""A model whose biases and scales are random, too: in a new one they are 0 and 1, which checks would not notice."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from multimodal_pad.models import MultimodalTransformer, TransformerConfig


def random_model(config: TransformerConfig, seed: int = 0) -> MultimodalTransformer:
    """Make a model with kernels of about unit gain, scales around 1, biases around 0; float32, on the host until used.

    ``config`` is of a model without dropout: a stream of keys is no parameter.

    >>> from multimodal_pad.models import ModalityConfig
    >>> modalities = {"text": ModalityConfig(vocabulary_size=9)}
    >>> config = TransformerConfig(modalities, num_outputs=3, d_model=8, dropout_rate=0.0)
    >>> random_model(config).head_output.kernel.shape
    (8, 3)
    """
    rng = np.random.default_rng(seed)
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))

    def draw(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> np.ndarray:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        normal = rng.standard_normal(x.shape, np.float32).astype(x.dtype)
        if "scale" in names:
            return 1 + 0.1 * normal
        return normal / np.sqrt(x.shape[-2], dtype=np.float32) if "kernel" in names else 0.1 * normal

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(draw, shapes))
