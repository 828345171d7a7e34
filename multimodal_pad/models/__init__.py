"""The masked multimodal transformer (JAX, Flax NNX)."""

from multimodal_pad.models.attention import masked_attention
from multimodal_pad.models.attention_choice import AttentionChoice, AttentionDevice, select_implementation
from multimodal_pad.models.segments import segment_attention, segment_mean
from multimodal_pad.models.transformer import ModalityConfig, MultimodalTransformer, TransformerConfig

__all__ = [
    "AttentionChoice",
    "AttentionDevice",
    "ModalityConfig",
    "MultimodalTransformer",
    "TransformerConfig",
    "masked_attention",
    "segment_attention",
    "segment_mean",
    "select_implementation",
]
