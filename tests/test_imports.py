"""Importing the data side loads NumPy and nothing heavy."""

import subprocess
import sys

import pytest

import multimodal_pad

HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "tensorflow",
    "tensorflow_datasets",
    "array_record",
    "h5py",
    "scipy",
    "grain",
    "sklearn",
    "matplotlib",
    "rich",
)
CHECK = (
    f"import sys; loaded = [m for m in {HEAVY} if m in sys.modules]; sys.exit(f'loaded {{loaded}}' if loaded else 0)"
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["multimodal_pad", "multimodal_pad.sources"])
def test_the_data_side_is_light(module):
    done = run(f"import {module}; {CHECK}")
    assert done.returncode == 0, done.stderr


def test_the_test_above_can_fail():
    done = run(f"import multimodal_pad.models; {CHECK}")
    assert done.returncode != 0
    assert "jax" in done.stderr


def test_every_public_name_is_there():
    for name in multimodal_pad.__all__:
        assert getattr(multimodal_pad, name).__doc__, name
