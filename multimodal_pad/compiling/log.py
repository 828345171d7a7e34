"""XLA's compilations, counted per function where JAX reports them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

from multimodal_pad.compiling.events import CompileEvent, observe
from multimodal_pad.text_table import text_table, wrapped


@dataclass
class CompileCounts:
    """The compilations of one function.

    Attributes:
        shapes: batch shapes that a :class:`~multimodal_pad.compiling.StepTable` compiled it for.
        traces: Python traces to a jaxpr.
        lowerings: jaxprs lowered to an XLA module.
        backend_compiles: modules handed to XLA's backend. JAX reports a hit in the persistent
            compilation cache as one of these too.
        cache_hits: how many of the backend compiles were read from the persistent cache.
        cache_misses: how many were looked up there and compiled.
        trace_seconds: seconds spent tracing; those of inner functions are part of it.
        lowering_seconds: seconds spent lowering.
        backend_seconds: seconds in the backend, reading from the cache included.
        cache_seconds: how many of those went into reading from the persistent cache.
        saved_seconds: time that compiling took when the programs read from the cache were stored, each rounded down to
            whole seconds, less reading. Like all seconds here it is summed over threads, so it may be more than the
            clock would have shown.

    >>> counts = CompileCounts(traces=3, backend_compiles=3, cache_hits=1, trace_seconds=0.5, backend_seconds=2.0)
    >>> counts.compiled, counts.seconds
    (2, 2.5)
    """

    shapes: int = 0
    traces: int = 0
    lowerings: int = 0
    backend_compiles: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    trace_seconds: float = 0.0
    lowering_seconds: float = 0.0
    backend_seconds: float = 0.0
    cache_seconds: float = 0.0
    saved_seconds: float = 0.0

    @property
    def compiled(self) -> int:
        """Programs that the backend compiled and did not read from the persistent cache."""
        return self.backend_compiles - self.cache_hits

    @property
    def seconds(self) -> float:
        """Tracing, lowering and the backend together, summed over threads."""
        return self.trace_seconds + self.lowering_seconds + self.backend_seconds


class CompileLog:
    """A counter of compilations per function while its ``with`` block is open, as JAX itself reports them.

    The counts come from :mod:`jax.monitoring`, not from the shapes that a program asks for: a batch that is
    committed to a device and a state that is not make two backend compiles of one shape with one trace, and only
    the backend's event shows it. Give the function to be counted a name that no other has; small eager operations
    compile too, under theirs.

    Logs may be nested and are fed from all threads.

    >>> import jax, jax.numpy as jnp
    >>> def double(x):
    ...     return 2 * x
    >>> with CompileLog() as log:
    ...     _ = jax.jit(double)(jnp.ones(3))
    >>> log["double"].traces, log["double"].backend_compiles
    (1, 1)
    """

    def __init__(self) -> None:
        self._counts: dict[str, CompileCounts] = {}
        self._lock = threading.Lock()
        self._depth = 0
        self._observing: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> CompileLog:
        self._depth += 1
        if self._depth == 1:  # opened again inside itself it counts once
            self._observing = observe(self)
            self._observing.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._observing.__exit__(None, None, None)

    def __getitem__(self, function: str) -> CompileCounts:
        """Return the counts of a function by its ``__name__``; zeros where nothing was compiled."""
        return self._counts.get(function, CompileCounts())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._counts))

    @property
    def total(self) -> CompileCounts:
        """The sum over all functions, small eager operations included."""
        return _sum(list(self._counts.values()))

    def report(self, *functions: str) -> str:
        """Return a table of what was compiled: a line per function, and one for all others together.

        Args:
            functions: the ones to name; by default those that took at least a twentieth of the seconds.
        """
        counts = dict(self._counts)
        total = _sum(list(counts.values()))
        named = list(functions) or [name for name, c in counts.items() if 20 * c.seconds >= total.seconds]
        named.sort(key=lambda name: -self[name].seconds)
        others = [c for name, c in counts.items() if name not in named]
        rows = [(name, self[name]) for name in named] + ([(f"{len(others)} others", _sum(others))] if others else [])
        heading = ["function", "shapes", "traces", "compiled", "from cache", "seconds"]
        body = [
            [name, *map(str, (c.shapes or "", c.traces, c.compiled, c.cache_hits)), f"{c.seconds:.1f}"]
            for name, c in rows
        ]
        lines = text_table(heading, body, left=1)
        return "\n".join([*lines, *wrapped(self.cache_report())])

    def cache_report(self) -> list[str]:
        """Return a line on the use of the persistent compilation cache; none where it is off."""
        total = self.total
        if not (total.cache_hits or total.cache_misses):
            return []
        line = f"the compilation cache had {total.cache_hits} of {total.cache_hits + total.cache_misses} programs"
        if total.cache_hits:
            compiling = total.saved_seconds + total.cache_seconds
            line += f": {total.cache_seconds:.1f} s of reading instead of {compiling:.0f} s of compiling"
        return [line]

    def starting(self, function: str) -> None:
        """Do nothing: the log counts what has ended."""

    def ended(self, event: CompileEvent) -> None:
        """Count an event."""
        with self._lock:
            counts = self._counts.setdefault(event.function, CompileCounts())
            if event.kind == "shape":
                counts.shapes += 1
            elif event.kind == "trace":
                counts.traces += 1
                counts.trace_seconds += event.seconds
            elif event.kind == "lowering":
                counts.lowerings += 1
                counts.lowering_seconds += event.seconds
            else:
                counts.backend_compiles += 1
                counts.backend_seconds += event.seconds
                counts.cache_hits += event.cache.hits
                counts.cache_misses += event.cache.asked - event.cache.hits
                counts.cache_seconds += event.cache.seconds
                counts.saved_seconds += event.cache.saved_seconds


def _sum(counts: list[CompileCounts]) -> CompileCounts:
    return CompileCounts(**{f.name: sum(getattr(c, f.name) for c in counts) for f in fields(CompileCounts)})
