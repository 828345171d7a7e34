"""XLA's compiler options per program, with defaults per platform, and the number of compiling threads."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from multimodal_pad.errors import CompilerOptionWarning

CompilerOptions = Mapping[str, bool | int | float | str]
"""Names of XLA's flags without dashes, and their values."""

DEFAULTS: dict[str, CompilerOptions] = {}
"""By JAX's platform: options that were measured to compile faster, with steps as fast.

None so far (``experiments.start_up.compiler_options``): on CPU, less optimization saves up to a quarter of compiling,
and costs a few percent of each step.
"""

_MOST_THREADS = 8

Compiled = TypeVar("Compiled")


def default_options(platform: str | None = None) -> dict[str, Any]:
    """Return the compiler options that every :class:`~multimodal_pad.compiling.StepTable` begins with.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; by default that of JAX's default device.

    Returns:
        Names of XLA's flags and values; none where XLA's own defaults are as good.

    >>> default_options("cpu")
    {}
    """
    return dict(DEFAULTS.get(jax.default_backend() if platform is None else platform, {}))


def default_threads(platform: str | None = None, cores: int | None = None) -> int:
    """Choose how many programs to compile side by side.

    XLA spreads a compilation over several cores by itself, more so on a GPU, where it also measures kernels on the
    device. So it is one thread per core on CPU and one per two cores elsewhere, and eight at most.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; by default that of JAX's default device.
        cores: of the host; by default those that this process may use.

    >>> default_threads("cpu", 2), default_threads("gpu", 16), default_threads("gpu", 1)
    (2, 8, 1)
    """
    platform = jax.default_backend() if platform is None else platform
    cores = len(os.sched_getaffinity(0)) if cores is None and hasattr(os, "sched_getaffinity") else cores
    cores = cores or os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, cores if platform == "cpu" else cores // 2))


class OptionSet:
    """The compiler options of one function's programs.

    Args:
        given: the user's options, which come on top of the platform's defaults.

    Flags in ``XLA_FLAGS`` take precedence. An option that this version of XLA lacks is left out when the first
    program is compiled. Either gives a :class:`~multimodal_pad.errors.CompilerOptionWarning` where the user gave the
    option, and none where it is a default.
    """

    def __init__(self, given: CompilerOptions | None = None) -> None:
        self._given = dict(given or {})
        self._unknown: set[str] = set()
        self._lock = threading.Lock()
        flagged = flags_set(os.environ.get("XLA_FLAGS", ""))
        for name in sorted(flagged & self._given.keys()):
            self._warn(f"got the compiler option {name!r}, which XLA_FLAGS sets, too: that of XLA_FLAGS holds")
        self._flagged = flagged

    @property
    def options(self) -> dict[str, Any]:
        """The options that are passed to XLA, as far as they are known."""
        left_out = self._flagged | self._unknown
        return {name: value for name, value in {**default_options(), **self._given}.items() if name not in left_out}

    def compile(self, compile_with: Callable[[dict[str, Any]], Compiled]) -> Compiled:
        """Return ``compile_with(options)``, called again without an option that XLA rejects as unknown."""
        while True:
            options = self.options
            try:
                return compile_with(options)
            except jax.errors.JaxRuntimeError as error:
                unknown = re.search(r"No such compile option: '(\w+)'", str(error))
                if unknown is None or unknown[1] not in options:
                    error.add_note(f"compiler options: {options}")
                    raise
                self._leave_out(unknown[1])

    def _leave_out(self, name: str) -> None:
        with self._lock:
            if name in self._unknown:  # another thread met it first
                return
            self._unknown.add(name)
        if name in self._given:
            self._warn(f"got the compiler option {name!r}, which this version of XLA does not have; it is left out")

    @staticmethod
    def _warn(message: str) -> None:
        warnings.warn(message, CompilerOptionWarning, stacklevel=2)


def flags_set(xla_flags: str) -> set[str]:
    """Return the names of the options in a value of ``XLA_FLAGS``.

    >>> sorted(flags_set("--xla_a=1 --xla_b --noxla_c"))
    ['xla_a', 'xla_b', 'xla_c']
    """
    return set(re.findall(r"--(?:no)?(xla_\w+)", xla_flags))
