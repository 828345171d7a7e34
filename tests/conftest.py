import atexit
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

# Tests compile many small programs and run each a few times: to optimize them takes longer than it saves.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"]
)
# Many tests compile what others have compiled: it is kept as long as the run lasts, for all processes of it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-by-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest
from hypothesis import settings

from multimodal_pad.compiling.cache import write_whole_entries

write_whole_entries()  # other workers read the folder at the same time
jax.config.update("jax_numpy_rank_promotion", "raise")
# A shell that runs the tests in the background has them ignore Ctrl-C, and what they start inherits that.
with suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

MELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "meld"


@pytest.fixture(scope="session")
def meld_dir() -> Path:
    if not MELD.is_dir():
        pytest.skip(f"MELD's tables are not at {MELD}")
    return MELD
