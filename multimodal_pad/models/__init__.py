"""The masked multimodal transformer (JAX, Flax NNX)."""

from multimodal_pad.models.attention import masked_attention, select_implementation
from multimodal_pad.models.transformer import ModalityConfig, MultimodalTransformer, TransformerConfig

__all__ = [
    "ModalityConfig",
    "MultimodalTransformer",
    "TransformerConfig",
    "masked_attention",
    "select_implementation",
]
