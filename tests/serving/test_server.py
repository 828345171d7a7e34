"""Requests one by one: each answered once, and right; bad ones fail alone; nothing is lost, and memory is bounded."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from multimodal_pad import PaddingError
from multimodal_pad.compiling import CompileLog, forbid_compiles
from multimodal_pad.errors import QueueFullError, SampleError, ServingError, UncoveredLengthError
from multimodal_pad.serving import Predictor, Server
from tests.helpers.serving import PLANS, alone, make_requests, predictor, worst
from tests.helpers.training import MeanModel

PATIENCE = 60  # seconds: for what takes a part of one


class Gate:
    """Holds a predictor's batches back, and can have them fail."""

    def __init__(self, monkeypatch):
        self.open, self.began, self.failing = threading.Event(), threading.Event(), []
        self.runner = Predictor(MeanModel(), PLANS["padded"](), example=make_requests(1)[0])
        dispatch = self.runner.dispatch

        def held(taken):
            self.began.set()
            assert self.open.wait(PATIENCE)
            if self.failing:
                raise self.failing.pop()
            return dispatch(taken)

        monkeypatch.setattr(self.runner, "dispatch", held)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["padded", "packed"])
def test_2000_requests_from_8_threads(plan):
    """Some bad, some too long, some cancelled."""
    samples, rng = make_requests(2000, seed=11), np.random.default_rng(12)
    kinds = rng.choice(["good", "bad", "long", "cancelled"], len(samples), p=[0.85, 0.05, 0.05, 0.05])
    bad = [
        {"audio": np.zeros((3, 3), "f4")},
        {"text": [1], "audio": np.zeros((3, 4), "f4")},
        {"text": [1], "audio": np.full((3, 3), np.nan, "f4")},
        {"text": [99], "audio": np.zeros((3, 3), "f4")},
        None,
    ]
    long = {"text": np.zeros(3, np.int32), "audio": np.zeros((500, 3), "f4")}
    futures, calls, lock, predict = {}, [], threading.Lock(), predictor(plan)

    def send(thread):
        for number in range(thread, len(samples), 8):
            kind = kinds[number]
            sample = bad[number % len(bad)] if kind == "bad" else long if kind == "long" else samples[number]
            future = server.submit(sample)
            if kind == "cancelled":
                future.cancel()
            future.add_done_callback(lambda _, number=number: calls.append(number))
            with lock:
                futures[number] = future

    with CompileLog() as log, forbid_compiles():
        with predict.serve(max_delay_ms=2, queue_size=64) as server:
            threads = [threading.Thread(target=send, args=(thread,)) for thread in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert all(future.done() for future in futures.values())  # closing answers all
    assert log.total.backend_compiles == 0
    assert sorted(calls) == list(range(len(samples)))
    wanted, cancelled = alone(samples), 0
    for number, future in futures.items():
        if future.cancelled():
            assert kinds[number] == "cancelled"
            cancelled += 1
        elif kinds[number] == "bad":
            assert isinstance(future.exception(), SampleError)
        elif kinds[number] == "long":
            assert isinstance(future.exception(), UncoveredLengthError)
        else:
            assert worst([future.result()], [wanted[number]]) < 1e-5
    stats = server.stats
    assert cancelled > 0
    assert stats.cancelled == cancelled
    assert stats.failed == int(np.isin(kinds, ["bad", "long"]).sum())
    assert stats.requests == len(samples) == stats.answered + stats.failed + stats.cancelled
    assert stats.waiting == 0
    assert 0 < stats.latency(50) <= stats.latency(99)
    assert "p99" in str(stats)


def test_a_full_batch_does_not_wait_for_the_delay():
    with predictor("packed").serve(max_delay_ms=PATIENCE * 2e3) as server:
        small = {"text": np.int32([1]), "audio": np.zeros((1, 3), "f4")}
        futures = [server.submit(small) for _ in range(8)]
        for future in futures:
            future.result(PATIENCE)
        assert server.stats.batches == 1
        late = server.submit(small)
        time.sleep(0.05)
        assert not late.done()
    assert late.result(0).shape == (2,)


def test_a_lone_request_waits_for_the_delay_and_no_longer():
    with predictor().serve(max_delay_ms=30) as server:
        started = time.monotonic()
        server.submit(make_requests(1)[0]).result(PATIENCE)
        assert time.monotonic() - started >= 0.029


def test_the_queue_is_bounded(gate):
    """While the device is stuck: a batch in hand, 12 that wait, and no more."""
    sample = make_requests(1)[0]
    with gate.runner.serve(max_delay_ms=0, queue_size=12) as server:
        futures = [server.submit(sample)]
        assert gate.began.wait(PATIENCE)
        futures += [server.submit(sample) for _ in range(12)]
        with pytest.raises(QueueFullError, match=r"12 of 12 requests wait, and none was taken in 0\.05 s; try again"):
            server.submit(sample, timeout=0.05)
        with pytest.raises(QueueFullError):
            server.submit(sample, timeout=0)
        assert server.stats.waiting == 12
        with ThreadPoolExecutor(4) as pool:
            blocked = [pool.submit(server.submit, sample) for _ in range(30)]
            time.sleep(0.1)
            assert not any(future.done() for future in blocked)
            assert server.stats.waiting == 12
            gate.open.set()
            futures += [future.result(PATIENCE) for future in blocked]
        assert len({future.result(PATIENCE).tobytes() for future in futures}) == 1
    assert server.stats.answered == 43 == server.stats.requests


def test_a_failing_batch_fails_its_own_requests(gate):
    gate.failing.append(RuntimeError("out of memory"))
    sample = make_requests(1)[0]
    with gate.runner.serve(max_delay_ms=0) as server:
        first = server.submit(sample)
        assert gate.began.wait(PATIENCE)
        second = server.submit(sample)
        gate.open.set()
        with pytest.raises(ServingError, match=r"the batch of request 0 failed \(out of memory\); try again") as caught:
            first.result(PATIENCE)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert second.result(PATIENCE).shape == (2,)
    assert (server.stats.failed, server.stats.answered) == (1, 1)


def test_closing_answers_what_was_submitted_and_takes_no_more(gate):
    sample = make_requests(1)[0]
    server = Server(gate.runner, max_delay_ms=PATIENCE * 1e3, queue_size=3)
    futures = [server.submit(sample) for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(server.submit, sample)  # for room
        time.sleep(0.05)
        closing = pool.submit(server.close)
        with pytest.raises(ServingError, match="the server is closed; submit before that, or serve anew"):
            waits.result(PATIENCE)
        gate.open.set()
        closing.result(PATIENCE)
    assert all(future.result(0).shape == (2,) for future in futures)
    with pytest.raises(ServingError, match="closed"):
        server.submit(sample)
    server.close()
    assert not server._thread.is_alive()


def test_what_is_cancelled_in_time_is_in_no_batch(gate):
    sample = make_requests(1)[0]
    with gate.runner.serve(max_delay_ms=0) as server:
        first = server.submit(sample)
        assert gate.began.wait(PATIENCE)
        assert not first.cancel()
        second, third = server.submit(sample), server.submit(sample)
        assert second.cancel()
        before = gate.runner.stats.real_positions
        gate.open.set()
        third.result(PATIENCE)
        with pytest.raises(CancelledError):
            second.result()
    real = len(sample["text"]) + len(sample["audio"])
    assert gate.runner.stats.real_positions == before + 2 * real
    assert server.stats.cancelled == 1


def test_a_long_request_is_answered_from_its_windows():
    samples = make_requests(5, seed=13)
    rng = np.random.default_rng(3)
    long = {"text": rng.integers(0, 11, 60), "audio": rng.standard_normal((50, 3))}
    windowed = predictor(long_samples="window")
    with windowed.serve(queue_size=4) as server:  # more windows than it holds at a time
        futures = [server.submit(sample) for sample in [*samples, long, *samples]]
        found = [future.result(PATIENCE) for future in futures]
    assert worst(found[:5] + found[6:], alone(samples) * 2) < 1e-5
    assert worst(found[5:6], [windowed(long)]) < 1e-5
    assert server.stats.answered == 11


def test_from_asyncio():
    samples = make_requests(20, seed=14)

    async def ask(server):
        return await asyncio.gather(*(asyncio.wrap_future(server.submit(sample, timeout=0)) for sample in samples))

    with predictor().serve() as server:
        assert worst(asyncio.run(ask(server)), alone(samples)) < 1e-5


def test_whatever_ends_the_thread_nobody_waits_in_vain(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with predictor().serve(max_delay_ms=20) as server:
        monkeypatch.setattr(server._waiting, "first", lambda: 1 / 0)
        futures = [server.submit(sample) for sample in make_requests(3)]
        for future in futures:
            with pytest.raises(ServingError, match=r"failed \(division by zero\)"):
                future.result(PATIENCE)
        with pytest.raises(ServingError, match="closed"):
            server.submit(make_requests(1)[0])


@pytest.mark.parametrize("options", [{"max_delay_ms": -1}, {"max_delay_ms": float("nan")}, {"queue_size": 0}])
def test_options_out_of_range_are_told(options):
    with pytest.raises(PaddingError, match=f"got {next(iter(options))}="):
        predictor().serve(**options)
