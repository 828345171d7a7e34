"""A file per corpus: how to read it, and what ``experiments.train --config NAME`` trains on it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from experiments.lib.emotion import Config

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def load(name: str) -> Config:
    """Return the configuration of a corpus."""
    return import_module(f"experiments.lib.configs.{name}").CONFIG
