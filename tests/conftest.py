from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

MELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "meld"


@pytest.fixture(scope="session")
def meld_dir() -> Path:
    if not MELD.is_dir():
        pytest.skip(f"MELD's tables are not at {MELD}")
    return MELD
