import atexit
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

# What the user has set stays as it is; of two flags of a name the later one counts.
os.environ["XLA_FLAGS"] = " ".join(
    [
        # Tests compile many small programs and run each a few times: to optimize them takes longer than it saves.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # The same on a GPU, where half of the time to compile goes into trying kernels and their sizes.
        "--xla_gpu_autotune_level=0",
        "--xla_gpu_enable_triton_gemm=false",
        # Tests compare bit by bit what runs twice, and sums by atomic additions differ from run to run.
        "--xla_gpu_exclude_nondeterministic_ops=true",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
# What is printed is as wide as it needs, unless a test says otherwise.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)
# Started by nohup, all that tests start would ignore the signal that tests send.
if os.name == "posix" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# An NVIDIA GPU multiplies float32 in TF32 by default, 10 bits of mantissa. What tests compare is meant in float32.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
# Several processes share the card, and the first would reserve three quarters of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# `fit` spreads batches over all devices of the process, and those of tests have 6 rows.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
# Where JAX is told to use a GPU, what tests are to do on the CPU needs that too.
if os.environ.get("JAX_PLATFORMS") and "cpu" not in os.environ["JAX_PLATFORMS"].split(","):
    os.environ["JAX_PLATFORMS"] += ",cpu"
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
# The default run is to stay short; a night may have more, and other ones: --hypothesis-profile thorough.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("steady")

MELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "meld"


@pytest.fixture(scope="session")
def meld_dir() -> Path:
    if not MELD.is_dir():
        pytest.skip(f"MELD's tables are not at {MELD}")
    return MELD


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU as JAX's default device, which is {jax.default_backend()} here")
