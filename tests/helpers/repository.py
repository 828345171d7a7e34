"""What the repository has, and a source distribution has not."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_repository = pytest.mark.skipif(
    (ROOT / "PKG-INFO").is_file(), reason="a source distribution has no results/ and no .ci/"
)
"""Mark of a test that reads results or what CI runs; a build writes PKG-INFO, which the repository never has."""
