import gc
import threading
import time

import pytest

from multimodal_pad import PaddingError
from multimodal_pad.batching.prefetch import Prefetch
from tests.helpers.threads import prefetch_threads, wait_until


def test_items_come_in_order_and_the_thread_ends():
    with Prefetch(iter(range(100)), depth=3) as items:
        assert list(items) == list(range(100))
    assert not prefetch_threads()


@pytest.mark.parametrize("depth", [1, 3])
def test_it_stays_no_further_ahead_than_depth(depth):
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    with Prefetch(items(), depth) as ahead:
        assert wait_until(lambda: len(made) == depth)
        time.sleep(0.05)
        assert len(made) == depth
        next(ahead)
        assert wait_until(lambda: len(made) == depth + 1)


def test_an_exception_arrives_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("sample 17")

    ahead = Prefetch(items(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="sample 17") as caught:
        next(ahead)
    assert any(entry.name == "items" for entry in caught.traceback), "the traceback shows where it was raised"
    with pytest.raises(StopIteration):
        next(ahead)
    assert not prefetch_threads()


def test_closing_early_stops_the_thread():
    ahead = Prefetch(iter(range(10**9)), depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert not prefetch_threads()
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_iterator_that_is_dropped_stops_the_thread():
    ahead = Prefetch(iter(range(10**9)), depth=2)
    assert next(ahead) == 0
    del ahead
    gc.collect()
    assert wait_until(lambda: not prefetch_threads())


def test_no_room_is_refused():
    with pytest.raises(PaddingError, match="depth=0"):
        Prefetch(iter(()), 0)


def test_making_items_overlaps_with_using_them():
    using = threading.Event()

    def items():
        yield 0
        assert using.wait(5), "the second item is made while the first is in use"
        yield 1

    with Prefetch(items(), depth=1) as ahead:
        next(ahead)
        using.set()
        assert next(ahead) == 1


def blocking(go):
    yield 0
    assert go.wait(20)
    yield 1


def test_closing_does_not_wait_for_ever():
    go = threading.Event()
    ahead = Prefetch(blocking(go), depth=2, close_seconds=0.1)
    assert next(ahead) == 0
    with pytest.warns(ResourceWarning, match=r"the source still blocks 0\.1 s after it was to stop"):
        ahead.close()
    ahead.close()  # which has been told already
    go.set()
    assert wait_until(lambda: not prefetch_threads())


def test_what_watches_may_end_the_wait():
    go = threading.Event()

    def watch():
        raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"), Prefetch(blocking(go), depth=2, watch=watch) as ahead:
        list(ahead)
    go.set()
    assert wait_until(lambda: not prefetch_threads())


def test_a_generator_is_closed_in_its_thread():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(threading.current_thread().name)

    with Prefetch(items(), depth=2) as ahead:
        next(ahead)
    assert closed == ["prefetch"]
