"""Requests one by one, gathered into batches by a thread."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, QueueFullError, ServingError
from multimodal_pad.lengths.samples import Sample, check_whole
from multimodal_pad.serving.pieces import Piece
from multimodal_pad.serving.running import Dispatched, PieceRunner
from multimodal_pad.serving.stats import ServerStats
from multimodal_pad.serving.waiting import Taken

_LATENCIES = 10_000  # of the last requests, for percentiles


class _Request:
    """A request: its future, and the outputs of its pieces as they come."""

    def __init__(self, number: int) -> None:
        self.number, self.future, self.begun = number, Future(), time.monotonic()
        self.pieces: Sequence[Piece] = ()
        self.parts: list[list[np.ndarray] | None] = []

    def claim(self) -> bool:
        """Return whether it was not cancelled, as a piece of it goes into a batch; afterwards it can't be."""
        return self.future.running() or (not self.future.done() and self.future.set_running_or_notify_cancel())


class Server:
    """A server of single requests from any number of threads, in batches of a predictor's shapes.

    A thread gathers the waiting requests. A batch begins as soon as requests fill it, and else when the oldest of them
    has waited ``max_delay_ms``; while the device is busy, only full ones begin. It has the planned shape of the oldest
    request, or of those that fill a batch, and requests of cheaper shapes fill it up. As a context manager it closes at
    the end.

    Args:
        predictor: computes the outputs.
        max_delay_ms: the longest that a request waits for others, in milliseconds.
        queue_size: requests (windows, where they are cut into some) that may wait to be in a batch; those beyond wait
            in :meth:`submit`, so that memory is bounded.

    Raises:
        PaddingError: a delay below 0, or a queue without room for a request.

    >>> from flax import nnx
    >>> from multimodal_pad import Fixed
    >>> class Sums(nnx.Module):
    ...     def __init__(self):
    ...         self.scale = nnx.Param(np.float32(2))
    ...     def __call__(self, batch):
    ...         return self.scale * batch.features["audio"].sum(axis=1)
    >>> from multimodal_pad.serving import Predictor
    >>> sample = {"audio": np.float32([1, 2])}
    >>> with Predictor(Sums(), Fixed({"audio": 4}), batch_size=2, example=sample).serve(max_delay_ms=2) as server:
    ...     futures = [server.submit(sample) for _ in range(3)]
    ...     [float(future.result()) for future in futures]
    [6.0, 6.0, 6.0]
    """

    def __init__(self, predictor: PieceRunner, *, max_delay_ms: float = 5.0, queue_size: int = 1024) -> None:
        check_whole("queue_size", queue_size, 1)
        if not 0 <= max_delay_ms < np.inf:
            raise PaddingError(f"got max_delay_ms={max_delay_ms!r}; it must be a finite number, 0 or more")
        self.predictor, self.queue_size, self._delay = predictor, queue_size, max_delay_ms / 1e3
        self._waiting = predictor.waiting()
        self._changed = threading.Condition()  # guards all attributes below
        self._closed, self._numbers, self._requests, self._batches = False, 0, 0, 0
        self._answered = self._failed = self._cancelled = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._in_flight: deque[Dispatched] = deque()
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon would be cut off in the middle of a batch

    def submit(self, sample: Sample, *, timeout: float | None = None) -> Future[Any]:
        """Request the output of a sample.

        In a coroutine: ``await asyncio.wrap_future(server.submit(sample, timeout=0))``.

        The sample is checked in the caller's thread. Its errors are exceptions of its future, and of no
        other. Its arrays must not change until it is answered.

        Args:
            sample: as for :class:`Predictor`.
            timeout: seconds to wait for room in the queue; by default as long as it takes.

        Returns:
            The future of the output, as the predictor gives it. It can be cancelled until its batch begins. Its
            callbacks run in the server's thread, so keep them short.

        Raises:
            QueueFullError: there was no room in time.
            ServingError: the server is closed.
        """
        with self._changed:
            self._check_open()
            self._numbers += 1
            request = _Request(self._numbers - 1)
        try:
            request.pieces = self.predictor.pieces(sample, request, request.number)
        except Exception as error:  # noqa: BLE001  the error of one request is set on its future
            with self._changed:
                self._requests += 1
            self._fail(request, error)
            return request.future
        request.parts = [None] * len(request.pieces)
        with self._changed:
            # A request of more windows than the queue holds has it to itself.
            if not self._changed.wait_for(
                lambda: self._closed or not self._waiting or self._room() >= len(request.pieces), timeout
            ):
                raise QueueFullError(
                    f"{len(self._waiting)} of {self.queue_size} requests wait, and none was taken in {timeout:g} s; "
                    "try again later, or serve with a larger queue_size"
                )
            self._check_open()
            self._requests += 1
            self._waiting.add(request.pieces)
            self._changed.notify_all()
        return request.future

    def close(self) -> None:
        """Take no more requests, answer those that there are, and end the thread; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    @property
    def stats(self) -> ServerStats:
        """The work done so far."""
        with self._changed:
            return ServerStats(
                requests=self._requests,
                answered=self._answered,
                failed=self._failed,
                cancelled=self._cancelled,
                waiting=len(self._waiting),
                batches=self._batches,
                latencies=tuple(self._latencies),
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ServingError("the server is closed; submit before that, or serve anew")

    def _room(self) -> int:
        return self.queue_size - len(self._waiting)

    def _run(self) -> None:
        """Work; answer every request even where an error ends that early."""
        try:
            self._work()
        except BaseException as error:
            with self._changed:
                self._closed = True
                left = [piece for dispatched in self._in_flight for piece in dispatched.pieces]
                left += [piece for _, pieces in self._waiting.batches() for piece in pieces]
                self._changed.notify_all()
            self._spoil([piece for piece in left if piece.owner.claim()], error)
            raise

    def _work(self) -> None:
        """Gather, dispatch, answer, until it is closed and nothing is left."""
        in_flight = self._in_flight
        while True:
            taken = self._gathered(wait=not in_flight)
            if taken is not None:
                self._dispatch(taken)
            # A batch is laid out while another one runs, and no more than that.
            if in_flight and (taken is None or len(in_flight) > 1):
                self._answer(in_flight.popleft())
            elif taken is None:
                return

    def _gathered(self, *, wait: bool) -> Taken | None:
        """Return the next batch; None where there is none, with ``wait`` only at the end of all."""
        with self._changed:
            while True:
                place = self._due(wait=wait)
                if place is not None:
                    taken = self._waiting.take(place, self._claimed)
                    self._changed.notify_all()  # the queue has room again
                    if taken is not None:
                        return taken
                elif not wait or (self._closed and not self._waiting):
                    return None
                else:
                    first = self._waiting.first()
                    self._changed.wait(
                        None if first is None else max(0.0, first.owner.begun + self._delay - time.monotonic())
                    )

    def _due(self, *, wait: bool) -> int | None:
        """Return the queue to take a batch for now, or None: while the device is busy, there is time to fill it."""
        first = self._waiting.first()
        if first is None:
            return None
        late = self._closed or time.monotonic() >= first.owner.begun + self._delay
        full = self._waiting.full()
        return self._waiting.oldest() if late and (wait or full is not None) else full

    def _claimed(self, piece: Piece) -> bool:
        """Return whether a piece's request was not cancelled; called with the lock."""
        claimed = piece.owner.claim()
        if not claimed and piece.place == 0:
            self._cancelled += 1
        return claimed

    def _dispatch(self, taken: Taken) -> None:
        try:
            self._in_flight.append(self.predictor.dispatch(taken))
        except Exception as error:  # noqa: BLE001  set on the futures of this batch
            self._spoil(taken[1], error)
        with self._changed:
            self._batches += 1

    def _answer(self, dispatched: Dispatched) -> None:
        """Set the results of a batch, in the order of its samples."""
        try:
            found = self.predictor.finish(dispatched)
        except Exception as error:  # noqa: BLE001  set on the futures of this batch
            self._spoil(dispatched.pieces, error)
            return
        for piece, parts in zip(dispatched.pieces, found, strict=True):
            request: _Request = piece.owner
            request.parts[piece.place] = parts
            whole = [leaves for leaves in request.parts if leaves is not None]
            if len(whole) < len(request.parts) or request.future.done():
                continue
            try:
                output = self.predictor.together(whole, [sum(piece.lengths) for piece in request.pieces])
            except Exception as error:  # noqa: BLE001  such as windows whose mean makes no sense
                self._fail(request, error)
                continue
            with self._changed:
                self._answered += 1
                self._latencies.append(time.monotonic() - request.begun)
            request.pieces = ()  # a future may be kept for long, without its sample
            request.future.set_result(output)

    def _spoil(self, pieces: Sequence[Piece], error: BaseException) -> None:
        """Fail all requests of a batch, each with a separate error."""
        for request in dict.fromkeys(piece.owner for piece in pieces):
            if not request.future.done():
                failure = ServingError(f"the batch of request {request.number} failed ({error!s:.500}); try again")
                failure.__cause__ = error
                self._fail(request, failure)

    def _fail(self, request: _Request, error: Exception) -> None:
        with self._changed:
            self._failed += 1
        request.future.set_exception(error)
