"""Corpora as sources: ``len(source)``, ``source[i]`` and ``source.lengths`` (NumPy only)."""

from multimodal_pad.sources.conversion import convert
from multimodal_pad.sources.corpus import Corpus
from multimodal_pad.sources.csd import Csd
from multimodal_pad.sources.files import Files
from multimodal_pad.sources.hugging_face import HuggingFace, HuggingFaceStream
from multimodal_pad.sources.mag_bert import MagBert
from multimodal_pad.sources.meld import Meld
from multimodal_pad.sources.mfn import Mfn
from multimodal_pad.sources.mmsa import Mmsa
from multimodal_pad.sources.mult import Mult
from multimodal_pad.sources.numpy_dir import NumpyDir
from multimodal_pad.sources.standardizing import FeatureStatistics, Standardized
from multimodal_pad.sources.synthetic import Synthetic
from multimodal_pad.sources.tfds_source import tfds

__all__ = [
    "Corpus",
    "Csd",
    "FeatureStatistics",
    "Files",
    "HuggingFace",
    "HuggingFaceStream",
    "MagBert",
    "Meld",
    "Mfn",
    "Mmsa",
    "Mult",
    "NumpyDir",
    "Standardized",
    "Synthetic",
    "convert",
    "tfds",
]
