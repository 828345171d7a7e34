"""Pickles that are made by hand."""

from pathlib import Path
from typing import Any

from multimodal_pad.sources.pickles import read_pickle


def read(data: bytes, path: Path) -> Any:
    """What a pickle of these bytes holds."""
    path.write_bytes(data)
    return read_pickle(path)[0]
