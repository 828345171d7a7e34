"""JAX's reports about compiling, taken apart once and handed to all observers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax

Kind = Literal["trace", "lowering", "backend", "shape"]

_BACKEND = "/jax/core/compile/backend_compile_duration"
_KINDS: dict[str, Kind] = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    _BACKEND: "backend",
}
_CACHE = "/jax/compilation_cache/"


class CacheUse(NamedTuple):
    """Figures of the persistent compilation cache.

    Attributes:
        asked: programs that were looked up.
        hits: how many of them were found.
        seconds: time spent reading them.
        saved_seconds: time that compiling them took when they were stored, each rounded down to whole seconds, less
            reading.
    """

    asked: int = 0
    hits: int = 0
    seconds: float = 0.0
    saved_seconds: float = 0.0


NO_CACHE = CacheUse()


@dataclass(frozen=True)
class CompileEvent:
    """One trace, lowering or backend compile that has ended, or a batch shape that a step table now has.

    Attributes:
        kind: which of the four.
        function: name of the function.
        seconds: its duration.
        cache: of a backend compile.
    """

    kind: Kind
    function: str
    seconds: float
    cache: CacheUse = NO_CACHE


class Observer(Protocol):
    """The calls of :func:`observe`, in the thread that compiles."""

    def starting(self, function: str) -> None:
        """Handle the start of a backend compile of ``function``; an exception stops it."""

    def ended(self, event: CompileEvent) -> None:
        """Handle the end of a trace, a lowering or a compile."""


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Pass the compile events of all threads to an observer while the block runs."""
    _listeners.register()
    place = _listeners.add(observer)
    try:
        yield
    finally:
        _listeners.remove(place)


def report_shape(function: str) -> None:
    """Report to the observers that a function is compiled for one more batch shape, for which JAX has no event."""
    _listeners.emit(CompileEvent("shape", function, 0.0))


class _Listeners:
    """The listeners that JAX calls: registered once and kept.

    Removing a listener while another thread compiles would make JAX skip one in its list. The
    observers are a dictionary that is replaced, never changed, so that events need no lock; its keys keep
    two registrations of one observer apart.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._observers: dict[object, Observer] = {}
        self._registered = False
        self._cache = _ThreadCache()

    def register(self) -> None:
        with self._lock:
            if self._registered:
                return
            self._registered = True
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_scalar_listener(self._on_start)

    def add(self, observer: Observer) -> object:
        place = object()
        with self._lock:
            self._observers = {**self._observers, place: observer}
        return place

    def remove(self, place: object) -> None:
        with self._lock:
            self._observers = {key: observer for key, observer in self._observers.items() if key is not place}

    def _on_event(self, event: str, **_: Any) -> None:
        if event == _CACHE + "compile_requests_use_cache":
            if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  JAX sends this without a folder, too
                self._cache.add(asked=1)
        elif event == _CACHE + "cache_hits":
            self._cache.add(hits=1)

    def _on_start(self, event: str, value: float, **metadata: Any) -> None:
        del value
        if event == _BACKEND:
            for observer in self._observers.values():
                observer.starting(_function(metadata))

    def _on_duration(self, event: str, duration_secs: float, **metadata: Any) -> None:
        if event == _CACHE + "cache_retrieval_time_sec":
            self._cache.add(seconds=duration_secs)
        elif event == _CACHE + "compile_time_saved_sec":
            self._cache.add(saved_seconds=duration_secs)
        elif event in _KINDS:
            cache = self._cache.take() if event == _BACKEND else NO_CACHE
            self.emit(CompileEvent(_KINDS[event], _function(metadata), duration_secs, cache))

    def emit(self, event: CompileEvent) -> None:
        for observer in self._observers.values():
            observer.ended(event)


class _ThreadCache(threading.local):
    """The cache's figures in a thread since its last backend event.

    JAX's events of the cache carry no function; the backend event that ends next in their thread does.
    """

    use = NO_CACHE

    def add(self, **used: float) -> None:
        self.use = self.use._replace(**{name: getattr(self.use, name) + value for name, value in used.items()})

    def take(self) -> CacheUse:
        use, self.use = self.use, NO_CACHE
        return use


def _function(metadata: dict[str, Any]) -> str:
    """Return ``step`` from ``step`` and from ``jit(step)``."""
    return str(metadata.get("fun_name", "")).removeprefix("jit(").removesuffix(")")


_listeners = _Listeners()
