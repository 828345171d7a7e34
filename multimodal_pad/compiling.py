"""What XLA compiles, counted where JAX reports it, and one executable per batch shape."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import jax

from multimodal_pad.errors import PaddingError
from multimodal_pad.padding import BatchShape, PaddedBatch

_DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": ("traces", "trace_seconds"),
    "/jax/core/compile/jaxpr_to_mlir_module_duration": ("lowerings", "lowering_seconds"),
    "/jax/core/compile/backend_compile_duration": ("backend_compiles", "backend_seconds"),
}
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_CACHE_RETRIEVAL = "/jax/compilation_cache/cache_retrieval_time_sec"


@dataclass
class CompileCounts:
    """What was compiled for one function.

    Attributes:
        traces: Python traces to a jaxpr.
        lowerings: jaxprs lowered to an XLA module.
        backend_compiles: modules handed to XLA's backend. JAX reports a hit in the persistent
            compilation cache as one of these too.
        cache_hits: how many of the backend compiles were read from the persistent cache.
        trace_seconds: seconds spent tracing; those of inner functions are part of it.
        lowering_seconds: seconds spent lowering.
        backend_seconds: seconds in the backend, reading from the cache included.
        cache_seconds: how many of those went into reading from the persistent cache.
    """

    traces: int = 0
    lowerings: int = 0
    backend_compiles: int = 0
    cache_hits: int = 0
    trace_seconds: float = 0.0
    lowering_seconds: float = 0.0
    backend_seconds: float = 0.0
    cache_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Tracing, lowering and the backend together."""
        return self.trace_seconds + self.lowering_seconds + self.backend_seconds


class CompileLog:
    """Counts compilations per function while its ``with`` block is open, as JAX itself reports them.

    The counts come from :mod:`jax.monitoring`, not from the shapes that a program thinks it asked
    for: a batch that is committed to a device and a state that is not make two backend compiles of
    one shape with one trace, and only the backend's event shows it. Give the function to be counted a
    name of its own; small eager operations compile too, under theirs.

    Logs may be nested and are fed from all threads.

    >>> import jax.numpy as jnp
    >>> def double(x):
    ...     return 2 * x
    >>> with CompileLog() as log:
    ...     _ = jax.jit(double)(jnp.ones(3))
    >>> log["double"].traces, log["double"].backend_compiles
    (1, 1)
    """

    def __init__(self) -> None:
        self._counts: dict[str, CompileCounts] = {}

    def __enter__(self) -> CompileLog:
        _listeners.register()
        with _listeners.lock:
            _listeners.open_logs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        with _listeners.lock:
            _listeners.open_logs.remove(self)

    def __getitem__(self, function: str) -> CompileCounts:
        """The counts of a function by its ``__name__``; zeros where nothing was compiled."""
        return self._counts.get(function, CompileCounts())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._counts))

    @property
    def total(self) -> CompileCounts:
        """The sum over all functions, small eager operations included."""
        values = list(self._counts.values())
        sums = {f.name: sum(getattr(counts, f.name) for counts in values) for f in fields(CompileCounts)}
        return CompileCounts(**sums)

    def _add(self, function: str, count: str, seconds: str, duration: float, hits: int, cache_seconds: float) -> None:
        counts = self._counts.setdefault(function, CompileCounts())
        setattr(counts, count, getattr(counts, count) + 1)
        setattr(counts, seconds, getattr(counts, seconds) + duration)
        counts.cache_hits += hits
        counts.cache_seconds += cache_seconds


class _CacheReads(threading.local):
    """What this thread read from the persistent cache since its last backend event.

    These events carry no function name; the backend event that ends next in their thread does.
    """

    hits = 0
    seconds = 0.0


class _Listeners:
    """The listeners that JAX calls: registered once and kept.

    Taking a listener back while another thread compiles would make JAX skip one in its list.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open_logs: list[CompileLog] = []
        self._registered = False
        self._cache = _CacheReads()

    def register(self) -> None:
        with self.lock:
            if self._registered:
                return
            self._registered = True
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def _on_event(self, event: str, **_: Any) -> None:
        if event == _CACHE_HIT:
            self._cache.hits += 1

    def _on_duration(self, event: str, duration_secs: float, **metadata: Any) -> None:
        if event == _CACHE_RETRIEVAL:
            self._cache.seconds += duration_secs
        if event not in _DURATIONS:
            return
        count, seconds = _DURATIONS[event]
        hits, cache_seconds = 0, 0.0
        if count == "backend_compiles":
            hits, cache_seconds = self._cache.hits, self._cache.seconds
            self._cache.hits, self._cache.seconds = 0, 0.0
        function = str(metadata.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
        with self.lock:
            for log in self.open_logs:
                log._add(function, count, seconds, duration_secs, hits, cache_seconds)


_listeners = _Listeners()


@dataclass(frozen=True)
class CompiledStep:
    """One executable of a :class:`StepTable`.

    Attributes:
        call: ``(state, batch) -> result``.
        seconds: tracing, lowering and compiling.
        device_bytes: argument + output + temporary - aliased bytes of XLA's memory analysis, or
            None where the backend gives none.
    """

    call: Callable[[Any, PaddedBatch], Any]
    seconds: float
    device_bytes: int | None


class StepTable:
    """One executable per batch shape of ``function(state, batch)``, compiled when it is first met.

    Every step of a run goes through the table, so a program is compiled for a shape once, whatever
    becomes of weak types, committed arrays or closures in between.

    Args:
        function: pure; its ``__name__`` is what :class:`CompileLog` counts it by.
        donate_state: let XLA reuse the buffers of ``state``, which are then gone for the caller.

    >>> import numpy as np
    >>> from multimodal_pad import pad_samples
    >>> def total(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> table = StepTable(total)
    >>> float(table(np.float32(1), pad_samples([{"text": np.array([2, 3])}]))), len(table)
    (6.0, 1)
    """

    def __init__(self, function: Callable[[Any, PaddedBatch], Any], *, donate_state: bool = False) -> None:
        self._jitted = jax.jit(function, donate_argnums=(0,) if donate_state else ())
        self.steps: dict[BatchShape, CompiledStep] = {}

    def __call__(self, state: Any, batch: PaddedBatch) -> Any:
        """Run the executable of the batch's shape.

        Raises:
            TypeError: state or batch have other dtypes or structure than those compiled for.
        """
        step = self.steps.get(batch.shape)
        return (step or self.compile(state, batch)).call(state, batch)

    def compile(self, state: Any, batch: PaddedBatch) -> CompiledStep:
        """Compile for the shape of ``batch``, or return what is there. Only shapes and dtypes are read."""
        shape = batch.shape
        if shape not in self.steps:
            started = time.perf_counter()
            compiled = self._jitted.lower(*jax.tree.map(_struct, (state, batch))).compile()
            seconds = time.perf_counter() - started
            self.steps[shape] = CompiledStep(compiled, seconds, device_bytes(compiled))
        return self.steps[shape]

    def __len__(self) -> int:
        return len(self.steps)


def device_bytes(compiled: Any) -> int | None:
    """Bytes that a compiled program holds while it runs, or None where XLA does not tell.

    Argument + output + temporary - aliased; the field that XLA calls the peak leaves temporaries out
    on CPU.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def _struct(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype alone: no weak type and no placement, which would each be a program of their own."""
    if not hasattr(x, "shape"):
        raise PaddingError(f"got {type(x).__name__} {x!r} in the state; give arrays, so that dtypes are fixed")
    return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
