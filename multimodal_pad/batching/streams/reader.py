"""One pass over an iterable of samples: numbered, watched from another thread, and closed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from multimodal_pad.batching.held import held_sample
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.errors import StreamTimeoutError
from multimodal_pad.lengths.samples import Sample, as_sample, modality_names

_AHEAD = 64  # samples on their way between two threads


class StreamReader(Iterator[tuple[int, Sample]]):
    """The samples of an iterable and their numbers, read in one thread and watched from another.

    What the iterable raises goes on with a note that names the sample. As a context manager it stops the reading
    thread at the next sample.

    Args:
        samples: the iterable.
        timeout: seconds that :meth:`watch` allows for one sample; None for as long as it takes.
        modalities: which ones are kept; by default all keys of a sample that are none of targets.

    Raises:
        SampleError: what the iterable gives is no sample (raised where it is read).

    >>> [number for number, sample in StreamReader([{"text": [1]}, {"text": [2, 3]}], timeout=None)]
    [0, 1]
    """

    def __init__(
        self, samples: Iterable[Sample], timeout: float | None, modalities: Sequence[str] | None = None
    ) -> None:
        self._samples, self._timeout, self._modalities = samples, timeout, modalities
        self._iterator: Iterator[Sample] | None = None
        self._ahead: deque[tuple[int, Sample]] = deque()
        self._number, self._since, self._stopped = 0, None, False

    def __next__(self) -> tuple[int, Sample]:
        return self._ahead.popleft() if self._ahead else self._read()

    def read_ahead(self, count: int) -> list[Sample]:
        """Read the first ``count`` samples, or all where there are fewer; iterating begins with them all the same.

        Raises:
            StreamTimeoutError: one of them does not come in time.
        """
        if len(self._ahead) < count:
            ahead, self._ahead = self._ahead, deque()  # so that iterating goes on behind them
            with Prefetch(islice(self, count - len(ahead)), _AHEAD, watch=self.watch) as samples:
                ahead.extend(samples)
            self._ahead = ahead
        return [sample for _, sample in islice(self._ahead, count)]

    def watch(self) -> None:
        """Raise a StreamTimeoutError that names the sample that is being waited for, if for too long."""
        since = self._since
        if since is not None and self._timeout is not None and time.monotonic() - since > self._timeout:
            raise StreamTimeoutError(
                f"sample {self._number} of the stream has not come within timeout={self._timeout:g} s; see what holds "
                "the source up, or allow it more time (None for as long as it takes)"
            )

    def close(self) -> None:
        """Close the iterator that the iterable gave, where it can be closed."""
        close = getattr(self._iterator, "close", None)
        if callable(close):
            close()

    def __enter__(self) -> StreamReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True

    def _read(self) -> tuple[int, Sample]:
        self._check_stopped()
        number, self._since = self._number, time.monotonic()
        try:
            if self._iterator is None:
                self._iterator = iter(self._samples)
            sample = next(self._iterator)
        except StopIteration:
            raise
        except Exception as error:
            error.add_note(f"while sample {number} of the stream was read")
            raise
        finally:
            self._since = None
        self._check_stopped()
        sample = as_sample(sample, f"sample {number} of the stream")
        names = modality_names(sample) if self._modalities is None else self._modalities
        # Copies: samples wait for long, and an iterable may go on writing to an array that it has given.
        sample = held_sample(sample, names, number, copy=True)
        self._number += 1
        return number, sample

    def _check_stopped(self) -> None:
        if self._stopped:
            raise _StoppedError


class _StoppedError(Exception):
    """Ends the reading of samples that are no longer waited for; it is raised no further."""
