"""The other tests compile with little optimization; what is exact has to be so as XLA compiles by default, too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFAULTS = "--xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false"
"""XLA's own; of two flags of a name the later one counts, and these come after those of ``tests/conftest.py``."""
EXACT = "garbage_in_the_padding or missing_modality_contributes or fully_padded_row or padded_far_is_alone"


@pytest.mark.slow
def test_exactness_holds_as_xla_compiles_by_default():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", "-k", EXACT]
        + ["tests/models/test_transformer.py"],
        cwd=ROOT,
        env={**environment, "XLA_FLAGS": DEFAULTS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) == 6, done.stdout
