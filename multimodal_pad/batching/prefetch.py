"""A bounded background prefetch: one thread that stays a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

from multimodal_pad.errors import PaddingError
from multimodal_pad.spans import WAIT, span

T = TypeVar("T")

CLOSE_SECONDS = 10.0
"""Seconds for which :meth:`Prefetch.close` waits for an item that is being made."""

_POLL_SECONDS = 0.1  # between two calls of ``watch``

_END = object()


class Prefetch(Iterator[T], Generic[T]):
    """Iterate over ``items`` in a thread, at most ``depth`` finished items ahead.

    The thread ends when the items do, when :meth:`close` is called, when the ``with`` block is left
    or when the iterator is collected. What the items raise is raised here, with its traceback,
    after the items before it. Items that are a generator are closed, in the thread.

    Args:
        items: what to iterate over.
        depth: finished items that may wait for the consumer.
        watch: called over and over while the consumer waits for an item. What it raises ends the
            wait; the thread is then asked to stop, and not waited for.
        close_seconds: how long :meth:`close` waits for the thread.

    Raises:
        PaddingError: a depth below 1.

    >>> with Prefetch(iter(range(3)), depth=2) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int,
        *,
        watch: Callable[[], None] | None = None,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        if depth < 1:
            raise PaddingError(f"got depth={depth}; a prefetch needs room for at least one item")
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._watch, self._close_seconds, self._left = watch, close_seconds, False
        # The thread must not hold this object, or it would never be collected.
        arguments = (items, self._ready, self._room, self._stop)
        self._thread = threading.Thread(target=_work, args=arguments, name="prefetch", daemon=True)
        self._thread.start()
        weakref.finalize(self, _halt, self._stop, self._room)

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        with span(WAIT):
            item, error = self._ready.get() if self._watch is None else self._get_watched(self._watch)
        if item is not _END:
            self._room.release()
            return item
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread, wait for the item that it is making, and drop what is not consumed.

        Warns:
            ResourceWarning: the item is not finished after ``close_seconds``; the thread ends when it is.
        """
        _halt(self._stop, self._room)
        if self._left or self._thread is threading.current_thread():
            return
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self._left = True
            warnings.warn(
                f"the source still blocks {self._close_seconds:g} s after it was to stop; its thread is left "
                "behind and ends when the source returns",
                ResourceWarning,
                stacklevel=2,
            )

    def _get_watched(self, watch: Callable[[], None]) -> tuple:
        while True:
            try:
                return self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                try:
                    watch()
                except BaseException:
                    self._left = True
                    self.close()
                    raise

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _halt(stop: threading.Event, room: threading.Semaphore) -> None:
    stop.set()
    room.release()  # wakes the thread where it waits for room


def _work(items: Iterable[T], ready: queue.SimpleQueue, room: threading.Semaphore, stop: threading.Event) -> None:
    try:
        iterator = iter(items)
        while True:
            room.acquire()
            if stop.is_set():
                break
            try:
                item = next(iterator)
            except StopIteration:
                break
            ready.put((item, None))
    except BaseException as error:  # noqa: BLE001  raised again in the consumer
        ready.put((_END, error))
    else:
        ready.put((_END, None))
    if isinstance(items, Generator):
        items.close()
