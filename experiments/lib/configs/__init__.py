"""One corpus a file: how it is read, and what is trained on it by ``experiments.train --config NAME``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from experiments.lib.emotion import Config

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def load(name: str) -> Config:
    """The configuration of a corpus."""
    return import_module(f"experiments.lib.configs.{name}").CONFIG
