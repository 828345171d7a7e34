"""Where tests run: on JAX's default device, on the CPU, or in processes that have no other."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax


def cpu_environment(devices: int = 1) -> dict[str, str]:
    """Environment of a process whose JAX has so many CPU devices and nothing else."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@contextmanager
def on_cpu() -> Iterator[None]:
    """What is traced, or put on the default device, is for the CPU, whatever the default backend is.

    ``jax.default_backend()`` still names that, and so the choice of attention follows from it.
    """
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def without_xla_log(text: str) -> str:
    """Standard error without the lines that XLA's C++ logs there, which on a GPU are about the card and its kernels."""
    logged = re.compile(r"^([IWE]\d{4} .*|WARNING: All log messages before absl::InitializeLog.*)\n?", re.MULTILINE)
    return logged.sub("", text)
