"""The guard: nothing compiles while it is on, and a refused compilation is explained."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from multimodal_pad.compiling.events import CompileEvent, observe
from multimodal_pad.errors import CompileError

_OPTION = "jax_explain_cache_misses"
_WEAK_TYPES = "https://docs.jax.dev/en/latest/type_promotion.html#weak-types"
_EXPLAINERS = tuple(f"jax._src.{name}" for name in ("interpreters.partial_eval", "compiler", "compilation_cache"))
"""JAX's loggers that explain cache misses, and how their messages begin."""
_EXPLAINED = (
    "TRACING CACHE MISS",
    "PERSISTENT COMPILATION CACHE MISS",
    "Not writing persistent cache entry",
    "Writing ",
)
_INNER = ("jax", "flax", "multimodal_pad.compiling")

_ELSEWHERE = "lie elsewhere now"

_ADVICE = {
    "weak_type": "give arrays of a fixed dtype where Python numbers were given, as np.float32(x)",
    "never seen function": "make the function, and its jax.jit, once and not at every call",
    "Tracing context": "set the configuration before the warm-up, and leave it",
    "input types": "call it through a StepTable that was warmed up for this shape and these dtypes",
    "input pytree": "give arguments of the same structure at every call; model.eval() changes that of a model",
    _ELSEWHERE: "place state and batches alike at every step, or call it through a StepTable, which takes both",
}


class CompileGuard:
    """The guard that :func:`forbid_compiles` yields; it keeps a list of compilations that it could not stop.

    Args:
        functions: names of the functions to watch; none for all.

    >>> import numpy as np
    >>> double = jax.jit(lambda x: 2 * x)
    >>> _ = double(np.ones(3))
    >>> with forbid_compiles() as guard:
    ...     for step in range(2):
    ...         result = double(np.full(3, float(step)))
    ...         guard.check()
    """

    def __init__(self, functions: tuple[str, ...]) -> None:
        self._functions = functions
        self._refused: dict[str, str] = {}
        self._slipped: list[str] = []

    def check(self) -> None:
        """Raise a CompileError if something has compiled since the guard was set up, or since the last check.

        The guard stops a compilation before it begins, by an exception from JAX's own event. Should a version
        of JAX let the compilation go on all the same, the error comes from here.
        """
        slipped, self._slipped = self._slipped, []
        if slipped:
            raise CompileError(
                f"{', '.join(map(repr, slipped))} compiled where nothing may; warm up what the loop calls before it"
            )

    def starting(self, function: str) -> None:
        """Refuse a compilation."""
        if not self._forbids(function):
            return
        traced, cause = _explanations.take(function)
        if not traced and function in self._refused:
            cause = f"as when it was refused before, or else its arguments {_ELSEWHERE}:\n  {self._refused[function]}"
        elif traced:
            cause = self._refused[function] = cause or "it was traced, and JAX gives no reason"
        else:
            cause = (
                f"it was traced for these types before, so its arguments {_ELSEWHERE} (committed to a device or "
                "sharded, or not, as they were before), or the options of the compiler changed"
            )
        advice = next((advice for words, advice in _ADVICE.items() if words in cause), "warm it up before")
        raise CompileError(f"{function!r} would be compiled at {_caller()}, where nothing may:\n  {cause}\n{advice}")

    def ended(self, event: CompileEvent) -> None:
        """Note a compilation that was not stopped."""
        if event.kind == "backend" and self._forbids(event.function):
            self._slipped.append(event.function)

    def _forbids(self, function: str) -> bool:
        return not self._functions or function in self._functions


class _Explanations:
    """JAX's explanations of traces while at least one guard is up, kept for the backend compile that follows.

    JAX logs why it traces anew when ``jax_explain_cache_misses`` is set. That is set for the process, as
    the guard holds for the process (its context manager would hold for one thread), and what is logged
    goes into the error and not to the log. It is kept by function and not by thread: a warm-up traces in one
    thread and compiles in others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards = 0
        self._before = False
        self._traced: set[str] = set()
        self._causes: dict[str, str] = {}

    def __enter__(self) -> None:
        with self._lock:
            if not self._guards:
                self._traced, self._causes = set(), {}
                self._before = getattr(jax.config, _OPTION)
                jax.config.update(_OPTION, True)
                for name in _EXPLAINERS:
                    logging.getLogger(name).addFilter(self)
            self._guards += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._guards -= 1
            if not self._guards:
                jax.config.update(_OPTION, self._before)
                for name in _EXPLAINERS:
                    logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep an explanation."""
        text = record.getMessage()
        if not text.startswith(_EXPLAINED):
            return True
        cause = text.partition(":\n")[2].strip()
        named = re.match(r"(?:for|never seen function:)\s+(\S+) (?:defined at|id=)", cause)
        if named:
            self._causes[named[1]] = _in_short(cause)
        return self._before  # still logged where the user asked JAX for explanations

    def take(self, function: str) -> tuple[bool, str | None]:
        """Return whether the function was traced since it was last compiled or refused, and JAX's reason, if any."""
        traced, cause = function in self._traced, self._causes.get(function)
        self._forget(function)
        return traced, cause

    def starting(self, function: str) -> None:
        """Pass a start on to the guards, which may refuse it."""

    def ended(self, event: CompileEvent) -> None:
        """Note a trace, and forget it when it has been compiled."""
        if event.kind == "trace":
            self._traced.add(event.function)
        elif event.kind == "backend":
            self._forget(event.function)

    def _forget(self, function: str) -> None:
        self._traced.discard(function)
        self._causes.pop(function, None)


_explanations = _Explanations()


@contextmanager
def forbid_compiles(*functions: str) -> Iterator[CompileGuard]:
    """Raise where anything is about to be compiled, in any thread, while the block runs.

    What is caught: another shape or dtype, a weak type, an array committed to a device or sharded where it
    was not before, a function or closure made anew, a changed configuration. The exception comes before XLA
    starts; what is compiled already goes on working, before and after. A program that the persistent
    compilation cache holds is refused too, since reading it takes time.

    Args:
        functions: names of the functions to watch; by default all, small eager operations included.

    Yields:
        The guard, whose ``check()`` raises where a compilation was not stopped; the end of the
        block checks too.

    Raises:
        CompileError: names the function, the calling line, and the cause as far as JAX gives it.

    >>> import jax, numpy as np
    >>> double = jax.jit(lambda x: 2 * x)
    >>> _ = double(np.ones(3))
    >>> with forbid_compiles():
    ...     _ = double(np.zeros(3))
    """
    guard = CompileGuard(functions)
    with _explanations, observe(_explanations), observe(guard):
        yield guard
    guard.check()


def _in_short(cause: str) -> str:
    """Shorten JAX's explanation: drop empty phrases, and cut two long descriptions to where they differ."""
    lines = cause.replace(_WEAK_TYPES, "").splitlines()
    cause = "\n".join(line for line in lines if not line.strip().startswith("all previously seen"))
    long = re.fullmatch(r"(.*?now )(.{300,}) and before (.{300,}?)((?:, so .*)?)", cause, re.DOTALL)
    if long is None:
        return cause
    now, before = long[2], long[3]
    same = _common(now, before)
    rest = _common(now[same:][::-1], before[same:][::-1])
    start = max(0, same - 60)
    excerpts = ["... " + " ".join(text[start : len(text) - rest + 20].split())[:300] + " ..." for text in (now, before)]
    return f"{long[1]}{excerpts[0]} and before {excerpts[1]}{long[4]}"


def _common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their start."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _caller() -> str:
    """Return the file and line outside of JAX, Flax and this package that the compilation comes from."""
    loaded = [sys.modules[name].__file__ or "" for name in _INNER if name in sys.modules]
    inner = tuple(f"{Path(file).parent}{os.sep}" for file in loaded)
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
