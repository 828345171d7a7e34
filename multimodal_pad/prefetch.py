"""A bounded background prefetch: one thread that stays a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from multimodal_pad.errors import PaddingError

T = TypeVar("T")

_END = object()


class Prefetch(Iterator[T], Generic[T]):
    """Iterate over ``items`` in a thread, at most ``depth`` finished items ahead.

    The thread ends when the items do, when :meth:`close` is called, when the ``with`` block is left
    or when the iterator is collected. What the items raise is raised here, with its traceback,
    after the items before it.

    >>> with Prefetch(iter(range(3)), depth=2) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        if depth < 1:
            raise PaddingError(f"got depth={depth}; a prefetch needs room for at least one item")
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        # The thread must not hold this object, or it would never be collected.
        arguments = (items, self._ready, self._room, self._stop)
        self._thread = threading.Thread(target=_work, args=arguments, name="prefetch", daemon=True)
        self._thread.start()
        weakref.finalize(self, _halt, self._stop, self._room)

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item, error = self._ready.get()
        if item is not _END:
            self._room.release()
            return item
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread, wait for the item in its hands, and drop what is not consumed."""
        _halt(self._stop, self._room)
        if self._thread is not threading.current_thread():
            self._thread.join()

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
                return
            try:
                item = next(iterator)
            except StopIteration:
                break
            ready.put((item, None))
    except BaseException as error:  # noqa: BLE001  the consumer decides what to do with it
        ready.put((_END, error))
    else:
        ready.put((_END, None))
