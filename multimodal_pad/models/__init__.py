"""The masked multimodal transformer (JAX, Flax NNX)."""

from multimodal_pad.models.attention import masked_attention
from multimodal_pad.models.attention_choice import AttentionChoice, AttentionDevice, select_implementation
from multimodal_pad.models.transformer import ModalityConfig, MultimodalTransformer, TransformerConfig

__all__ = [
    "AttentionChoice",
    "AttentionDevice",
    "ModalityConfig",
    "MultimodalTransformer",
    "TransformerConfig",
    "masked_attention",
    "select_implementation",
]
