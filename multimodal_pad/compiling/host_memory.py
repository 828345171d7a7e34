"""What a step on the CPU frees, kept for the next step (Linux)."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt, in glibc's malloc.h


def keep_host_memory() -> bool:
    """Let the process keep memory that is freed, so that the steps on a CPU reuse it.

    XLA allocates the temporaries of a step when it begins and frees them at its end. By default glibc gives a block of
    over 32 MiB back to the kernel, which clears every page of it once more in the next step. The comparison of training
    (``python -m experiments.benchmark_peers``) has steps with and without.

    Call it once, before JAX computes anything: threads that have allocated memory of their own keep to it. It holds for
    all of the process, whose memory then stays at its peak. It changes nothing on accelerators, which have allocators
    of their own, nor any result.

    Returns:
        Whether it took effect: False where the C library is not glibc.

    >>> import sys
    >>> keep_host_memory() == sys.platform.startswith("linux")  # or False with musl
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    return all(libc.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
