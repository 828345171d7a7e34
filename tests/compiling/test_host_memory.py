"""Memory that a step frees: given back to the kernel, or kept for the next one."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from multimodal_pad.compiling import keep_host_memory
if sys.argv[1] == "keep":
    assert keep_host_memory()
import jax, jax.numpy as jnp
def step(x):
    return jnp.tanh(x @ x.T) @ x  # temporaries of 100 MB
x = jnp.ones((5000, 8))
compiled = jax.jit(step).lower(x).compile()
assert compiled.memory_analysis().temp_size_in_bytes > 90_000_000
def faults():
    compiled(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    before = faults()  # the first ones find their place
for _ in range(10):
    after = faults()
print(after - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_pages_of_a_step_are_cleared_once():
    def faults(how):
        ran = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        return int(ran.stdout)

    by_default, kept = faults("default"), faults("keep")
    assert by_default > 200_000  # 4 KiB each, in ten steps
    assert kept < by_default / 3


def test_elsewhere_it_does_nothing_and_says_so(monkeypatch):
    from multimodal_pad.compiling import host_memory

    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda _: pytest.fail("called the C library"))
    assert host_memory.keep_host_memory() is False
