"""Corpora as sources: ``len(source)``, ``source[i]`` and ``source.lengths`` (NumPy only)."""

from multimodal_pad.sources.meld import Meld
from multimodal_pad.sources.synthetic import Synthetic

__all__ = ["Meld", "Synthetic"]
