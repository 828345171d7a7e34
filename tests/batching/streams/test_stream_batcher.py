import gc
import itertools
import os
import signal
import threading
import time
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import Exact, Fixed, Ladder, PaddingError, unpad
from multimodal_pad.batching.prefetch import Prefetch
from multimodal_pad.batching.streams.batcher import StreamBatcher
from multimodal_pad.batching.streams.intake import Intake
from multimodal_pad.errors import PlanWarning, SampleError, StreamTimeoutError, UncoveredLengthError
from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.sources import Synthetic
from tests.helpers.batches import assert_same_samples
from tests.helpers.streams import EIGHT, texts
from tests.helpers.threads import prefetch_threads, wait_until
from tests.strategies import length_tables, make_samples, policies


def targets(batches):
    return [int(target) for batch in batches for target in batch.targets[batch.sample_mask]]


@given(st.data(), length_tables(max_samples=40), st.integers(1, 6), st.integers(0, 12), st.booleans())
def test_a_stream_is_every_sample_once_at_planned_shapes(data, table, rows, more, one_shot):
    policy, samples = data.draw(policies(table, rows)), make_samples(table)
    batcher = StreamBatcher(iter(samples) if one_shot else samples, policy, batch_size=rows, buffer=rows + more)
    batches = list(batcher)
    listed = policy.lengths()
    for batch in batches:
        assert batch.shape.batch_size == rows
        padded = [batch.features[m].shape[1] for m in policy.modalities]
        assert listed is None or padded in listed.tolist()
    if listed is not None and len(listed) < 500:
        assert {batch.shape for batch in batches} <= set(batcher.batch_shapes())
    got = sorted((sample for batch in batches for sample in unpad(batch)), key=lambda sample: int(sample["targets"]))
    assert_same_samples(got, samples)
    stats = batcher.stats
    assert (stats.samples, stats.steps) == (len(samples), len(batches))
    assert stats.real.tolist() == table.values.sum(axis=0).tolist()
    assert stats.padded.sum() == sum(batch.masks[m].size for batch in batches for m in policy.modalities)


def test_a_stream_that_ends_before_one_batch_is_one_short_batch():
    (batch,) = StreamBatcher(texts([3, 5]), EIGHT, batch_size=4)
    assert batch.sample_mask.tolist() == [True, True, False, False]


def test_a_stream_without_samples():
    with pytest.raises(PaddingError, match="the stream gave no samples"):
        list(StreamBatcher([], EIGHT, batch_size=2))
    with pytest.raises(PaddingError, match="the stream gave no samples; a plan"):
        StreamBatcher.planned([], batch_size=2)
    with pytest.raises(PaddingError, match="the stream gave no samples; there is none"):
        StreamBatcher([], EIGHT, batch_size=2).example()
    assert not prefetch_threads()


def test_a_list_is_read_again_in_another_order():
    batcher = StreamBatcher(list(texts([3] * 40)), EIGHT, batch_size=4, buffer=20)
    first, second = targets(batcher), targets(batcher)
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    assert targets(StreamBatcher(texts([3] * 40), EIGHT, batch_size=4, buffer=20)) == first, "and the same each run"


def test_an_iterator_that_is_used_up():
    batcher = StreamBatcher(texts([3] * 10), EIGHT, batch_size=4)
    list(batcher)
    with pytest.raises(PaddingError, match="an iterator, and a loop before has used it; give something that begins"):
        list(batcher)


def test_anything_that_can_be_indexed_will_do():
    source = Synthetic(20)
    batcher = StreamBatcher(source, Fixed.longest(source.lengths), batch_size=8)
    assert sum(len(unpad(batch)) for batch in batcher) == 20


def test_samples_are_read_in_the_background():
    names = []

    def samples():
        for sample in texts([3] * 8):
            names.append(threading.current_thread().name)
            yield sample

    list(StreamBatcher(samples(), EIGHT, batch_size=4))
    assert set(names) == {"prefetch"}


def test_no_more_samples_are_held_than_the_buffer_says():
    alive, most = 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def samples():
        nonlocal alive, most
        for length in itertools.islice(itertools.cycle([3, 9, 30, 4]), 400):
            array = np.arange(length)
            array.flags.writeable = False  # or a copy would be held in its place
            weakref.finalize(array, gone)
            alive += 1
            most = max(most, alive)
            yield {"text": array}

    policy = Ladder({"text": [4, 10, 32]})
    assert sum(len(unpad(batch)) for batch in StreamBatcher(samples(), policy, batch_size=4, buffer=30)) == 400
    assert 30 <= most <= 32
    planned = StreamBatcher.planned(samples(), batch_size=4, buffer=30, plan_from=30, max_shapes=3)
    assert sum(len(unpad(batch)) for batch in planned) == 400
    assert most <= 32


# What goes wrong in the source.


def test_what_the_stream_raises_reaches_the_consumer_with_the_samples_number():
    def samples():
        yield from itertools.islice(texts([3] * 40), 17)
        raise OSError("disk gone")

    batches = []
    with pytest.raises(OSError, match="disk gone") as caught:
        batches.extend(StreamBatcher(samples(), EIGHT, batch_size=4, buffer=8))
    assert caught.value.__notes__ == ["while sample 17 of the stream was read"]
    assert any(entry.name == "samples" for entry in caught.traceback), "the traceback shows where it was raised"
    assert len(batches) == 3, "the batches before it were delivered"
    assert not prefetch_threads()


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise OSError("no such block")


def test_what_an_array_raises_names_the_sample():
    samples = [{"text": Unreadable() if i == 17 else np.arange(3)} for i in range(20)]
    with pytest.raises(OSError, match="no such block") as caught:
        list(StreamBatcher(samples, EIGHT, batch_size=4))
    assert caught.value.__notes__ == ["while 'text' of sample 17 was read"]


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (None, "sample 17 of the stream is no mapping but NoneType"),
        ({"targets": 1}, "sample 17 has no 'audio'"),
        ({"audio": 3.0, "targets": 1}, r"sample 17, 'audio': got shape \(\)"),
        ({"audio": [[1], [1, 2]], "targets": 1}, "sample 17, 'audio': not an array of one shape"),
        ({"audio": np.array(["a"]), "targets": 1}, "sample 17, 'audio': .*dtype <U1"),
        (
            {"audio": np.ones((2, 4)), "targets": 1},
            r"sample 17, 'audio': got feature shape \(4,\) .* sample 0 has \(3,\)",
        ),
        ({"audio": np.ones((2, 3), "f4"), "targets": 1}, "sample 17, 'audio': .*float32, but sample 0 has .*float64"),
        ({"audio": np.full((2, 3), np.nan), "targets": 1}, "sample 17, 'audio': position 0 holds NaN"),
        ({"audio": np.ones((2, 3))}, "sample 17, 'targets': got none, but sample 0 has shape"),
        ({"audio": np.ones((2, 3)), "targets": 1.5}, "sample 17, 'targets': got .*float64, but sample 0 has .*int"),
        ({"audio": np.ones((2, 3)), "targets": [[1], [1, 2]]}, "sample 17, 'targets': not an array"),
    ],
)
def test_a_corrupt_sample_is_named(corrupt, message):
    samples = [corrupt if i == 17 else {"audio": np.ones((2, 3)), "targets": 1} for i in range(40)]
    batcher = StreamBatcher(samples, Fixed({"audio": 4}), batch_size=4, buffer=8, check_finite=True)
    with pytest.raises(SampleError, match=message):
        list(batcher)
    assert not prefetch_threads()


def test_a_stream_that_pauses_goes_on():
    def samples():
        for number, sample in enumerate(texts([3] * 20)):
            if number == 17:
                time.sleep(0.3)
            yield sample

    assert sorted(targets(StreamBatcher(samples(), EIGHT, batch_size=4, buffer=8, timeout=5))) == list(range(20))


class Blocking:
    """Samples that block at number ``at`` until they are let go; tells how many it gave, and when it was closed."""

    def __init__(self, at):
        self.at, self.given = at, 0
        self.go, self.blocks, self.closed = threading.Event(), threading.Event(), threading.Event()

    def __iter__(self):
        try:
            for number, sample in enumerate(texts([3] * 40)):
                if number == self.at:
                    self.blocks.set()
                    assert self.go.wait(20)
                self.given += 1
                yield sample
        finally:
            self.closed.set()


def test_a_stream_that_blocks_is_an_error_that_names_the_sample():
    samples = Blocking(17)
    batches = []
    with pytest.raises(StreamTimeoutError, match=r"sample 17 of the stream has not come within timeout=0\.3 s"):
        batches.extend(StreamBatcher(samples, EIGHT, batch_size=4, buffer=8, timeout=0.3))
    assert len(batches) == 3
    samples.go.set()
    assert samples.closed.wait(5), "the thread was told to stop, and closes the samples"
    assert wait_until(lambda: not prefetch_threads())


@pytest.mark.parametrize("ask", [lambda s: StreamBatcher.planned(s, batch_size=2, timeout=0.2), None])
def test_a_stream_that_blocks_before_the_first_loop(ask):
    samples = Blocking(0)
    ask = ask or (lambda s: StreamBatcher(s, EIGHT, batch_size=2, timeout=0.2).example())
    with pytest.raises(StreamTimeoutError, match="sample 0 of the stream has not come"):
        ask(samples)
    samples.go.set()
    assert wait_until(lambda: not prefetch_threads())


def test_a_slow_consumer_is_no_slow_stream():
    came = []
    for batch in StreamBatcher(texts([3] * 40), EIGHT, batch_size=4, buffer=8, prefetch=1, timeout=0.15):
        came += targets([batch])
        time.sleep(0.03 if int(batch.targets[0]) else 0.5)
    assert sorted(came) == list(range(40))


def test_leaving_the_loop_early_closes_the_stream():
    samples = Blocking(None)
    held = iter(samples)  # so that it is not closed for want of a reference
    for _ in StreamBatcher(held, EIGHT, batch_size=4, buffer=8):
        break
    gc.collect()  # the loop's own iterator, where references are not counted
    assert samples.closed.is_set()
    assert not prefetch_threads()


def test_leaving_the_loop_while_the_stream_blocks(monkeypatch):
    monkeypatch.setattr("multimodal_pad.batching.streams.batcher.Prefetch", partial(Prefetch, close_seconds=0.1))
    samples = Blocking(9)
    batches = iter(StreamBatcher(samples, EIGHT, batch_size=4, buffer=8))
    next(batches)
    assert samples.blocks.wait(5)
    with pytest.warns(ResourceWarning, match=r"still blocks 0\.1 s"):
        batches.close()
    samples.go.set()
    assert samples.closed.wait(5)
    assert samples.given == 10, "no more is read than what was waited for"
    assert wait_until(lambda: not prefetch_threads())


def test_ctrl_c_works_while_a_stream_blocks(monkeypatch):
    monkeypatch.setattr("multimodal_pad.batching.streams.batcher.Prefetch", partial(Prefetch, close_seconds=0.1))
    samples = Blocking(17)
    threading.Thread(target=lambda: samples.blocks.wait(5) and os.kill(os.getpid(), signal.SIGINT)).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(KeyboardInterrupt):
            list(StreamBatcher(samples, EIGHT, batch_size=4, buffer=8))
    samples.go.set()
    assert wait_until(lambda: not prefetch_threads())


# Long samples.

LONG = [3, 9, 4, 20, 1, 2]


def test_a_long_sample_is_an_error_by_default():
    with pytest.raises(
        UncoveredLengthError, match=r"sample 1 of the stream: 'text' has 9 positions .* has 8; .*longest="
    ):
        list(StreamBatcher(texts(LONG), EIGHT, batch_size=2))


def test_long_samples_are_dropped_counted_and_told():
    batcher = StreamBatcher(texts(LONG), EIGHT, batch_size=2, long_samples="drop")
    with pytest.warns(PlanWarning, match="sample 1 of the stream: .* it is left out") as told:
        assert sorted(targets(batcher)) == [0, 2, 4, 5]
    assert len(told) == 1
    assert batcher.stats.dropped == 2
    with pytest.raises(PaddingError, match="no samples of the stream are left"):
        list(StreamBatcher(texts([9, 9]), EIGHT, batch_size=2, long_samples="drop"))


def test_long_samples_are_truncated_counted_and_told():
    batcher = StreamBatcher(texts(LONG), EIGHT, batch_size=2, long_samples="truncate")
    with pytest.warns(PlanWarning, match="sample 1 of the stream: .* it is cut") as told:
        samples = [sample for batch in batcher for sample in unpad(batch)]
    assert len(told) == 1
    assert {int(s["targets"]): len(s["text"]) for s in samples} == {0: 3, 1: 8, 2: 4, 3: 8, 4: 1, 5: 2}
    assert batcher.stats.truncated == 2


def test_the_rest_of_a_truncated_sample_is_not_kept():
    lengths, covered, (waiting,) = Intake(EIGHT, "truncate").admit([(0, {"text": np.arange(9)})])
    assert (lengths.tolist(), covered.tolist()) == ([[9]], [[8]])
    assert waiting.sample["text"].base is None


# The rest of what a batcher offers.


def test_an_example_is_of_the_first_sample_which_still_comes():
    batcher = StreamBatcher(texts([3, 5, 7]), EIGHT, batch_size=2)
    example = batcher.example()
    assert str(example.shape) == "1 x (text 3)"
    assert sorted(targets(batcher)) == [0, 1, 2]
    assert str(batcher.example().shape) == "1 x (text 3)", "and after the stream is used up"


def test_shapes_without_an_end():
    with pytest.raises(PaddingError, match="has infinitely many shapes"):
        StreamBatcher(texts([3]), Exact(["text"]), batch_size=2).batch_shapes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"buffer": 1}, "buffer of 1 samples"),
        ({"seed": -1}, "seed=-1"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"recent": 0}, "recent=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"long_samples": "keep"}, "long_samples='keep'"),
        ({"cost": TransformerCost(("audio",))}, "cost of the modalities"),
        ({"samples": 3}, "samples of type int"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(PaddingError, match=message):
        StreamBatcher(**{"samples": texts([3]), "policy": EIGHT, "batch_size": 2, **options})


def test_what_was_left_out_is_told_with_the_error_that_ends_the_loop():
    def samples():
        yield from texts([9, 9, 3, 3])
        raise OSError("gone")

    batcher = StreamBatcher(samples(), EIGHT, batch_size=4, buffer=4, long_samples="drop")
    with pytest.raises(OSError, match="gone") as caught:
        list(batcher)
    assert batcher.stats.dropped == 2
    assert any("it is left out" in note for note in caught.value.__notes__)


def test_an_example_that_does_not_come_has_used_the_iterator():
    def samples():
        time.sleep(0.4)
        yield from texts([3] * 6)

    batcher = StreamBatcher(samples(), EIGHT, batch_size=2, timeout=0.1)
    with pytest.raises(StreamTimeoutError):
        batcher.example()
    with pytest.raises(PaddingError, match="a loop before has used it"):
        list(batcher)


@pytest.mark.parametrize(("long_samples", "kept"), [("truncate", 6), ("drop", 5)])
def test_planned_with_a_long_sample_among_the_first(long_samples, kept):
    samples = [{"text": np.arange(n)} for n in (3, 9, 90, 4, 5, 6)]
    options = {"batch_size": 2, "max_shapes": 2, "longest": {"text": 10}}
    batcher = StreamBatcher.planned(samples, **options, long_samples=long_samples)
    assert max(dict(shape.lengths)["text"] for shape in batcher.batch_shapes()) == 10
    with pytest.warns(PlanWarning, match="sample 2 of the stream"):
        assert sum(int(batch.sample_mask.sum()) for batch in batcher) == kept
    with pytest.raises(UncoveredLengthError, match=r'sample 2 .* has 90 .*long_samples="truncate" or "drop"'):
        StreamBatcher.planned(samples, **options)
    with pytest.raises(UncoveredLengthError, match="all of the first samples are longer"):
        StreamBatcher.planned(samples[2:3], **options, long_samples="drop")
