"""Batches inside Grain: in order, resumed anywhere, whatever the workers."""

import json
import multiprocessing
import re
import threading
import time

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Fixed, Ladder, LengthTable, PaddingError, StreamBatcher
from multimodal_pad.errors import SampleError, UncoveredLengthError
from tests.helpers.batches import assert_same
from tests.strategies import make_samples

grain = pytest.importorskip("grain")

from multimodal_pad.grain import BatchIterDataset, BatchMapDataset, StreamIterDataset  # noqa: E402

TABLE = LengthTable(("text", "audio"), np.random.default_rng(3).integers(0, 17, (37, 2)))
SAMPLES = [
    {**sample, "position_targets": {"text": {"next": sample["text"] + 1}, "audio": sample["audio"][:, 0]}}
    for sample in make_samples(TABLE)
]
LADDER = Ladder.powers_of_two(TABLE, 4)


class Failing(list):
    """A source whose sample 17 cannot be read."""

    def __getitem__(self, index):
        if index == 17:
            raise OSError("the disk is damaged")
        return super().__getitem__(index)


def make_batcher(source=SAMPLES, **options):
    return BucketBatcher(source, LADDER, **{"batch_size": 4, "window": 3, "seed": 5, "lengths": TABLE, **options})


def batches_of(epochs, batcher=None):
    batcher = batcher or make_batcher()
    return [batch for epoch in range(epochs) for batch in batcher.epoch(epoch)]


def test_element_i_is_step_i():
    dataset = BatchMapDataset(make_batcher(), epochs=2)
    whole = batches_of(2)
    assert len(dataset) == len(whole)
    assert_same([dataset[index] for index in reversed(range(len(whole)))], whole[::-1])
    assert_same(list(dataset), whole)
    assert_same(list(dataset[3::2]), whole[3::2])


def test_a_grain_source_serves():
    batcher = make_batcher(grain.MapDataset.source(SAMPLES))
    assert_same(list(BatchIterDataset(batcher)), batches_of(1))


@pytest.mark.slow
def test_grains_own_check_of_checkpoints():
    grain.experimental.assert_equal_output_after_checkpoint(BatchIterDataset(make_batcher(), epochs=2))
    grain.experimental.assert_equal_output_after_checkpoint(BatchMapDataset(make_batcher()).to_iter_dataset())


def test_the_batcher_and_grain_take_each_others_state():
    whole = batches_of(2)
    batcher = make_batcher()
    for done, _ in enumerate(batcher.epoch(0), start=1):
        iterator = iter(BatchIterDataset(make_batcher(), epochs=2))
        iterator.set_state(json.loads(json.dumps(batcher.state())))
        assert_same(list(iterator), whole[done:])
    iterator = iter(BatchIterDataset(make_batcher(), epochs=2))
    next(iterator)
    batcher = make_batcher()
    batcher.restore(json.loads(json.dumps(iterator.get_state())))
    iterator.close()
    assert_same(list(batcher.epoch(0)), batches_of(1)[1:])


@pytest.mark.slow
def test_the_number_of_workers_may_change_on_the_way():
    """Two steps without workers, two with one, two with two, and the rest without any again."""
    whole, found, state = batches_of(1), [], make_batcher().state()
    for workers in (0, 1, 2, 0):
        iterator = iter(BatchIterDataset(make_batcher(), workers=workers))
        iterator.set_state(state)
        found += [next(iterator) for _ in range(2 if len(found) < 6 else len(whole) - 6)]
        state = json.loads(json.dumps(iterator.get_state()))
        iterator.close()
        assert not multiprocessing.active_children()
    assert_same(found, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named(workers):
    list(BatchIterDataset(make_batcher(), workers=workers))  # starts the threads that Grain keeps for the process
    before = set(threading.enumerate())
    iterator = iter(BatchIterDataset(make_batcher(Failing(SAMPLES)), workers=workers))
    with pytest.raises(OSError, match="the disk is damaged") as caught:
        list(iterator)
    assert "while sample 17 was read" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    iterator.close()
    assert not multiprocessing.active_children()
    deadline = time.monotonic() + 5
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left


def test_a_state_of_more_epochs_is_refused():
    iterator = iter(BatchIterDataset(make_batcher()))
    with pytest.raises(
        PaddingError, match="got the state of epoch 1, and there are 1 epochs, counted from 0; ask for more"
    ):
        iterator.set_state({**make_batcher().state(), "epoch": 1, "step": 3})
    with pytest.raises(PaddingError, match="the seed is 5 here and 6 in the state"):
        iterator.set_state(make_batcher(seed=6).state())


@pytest.mark.parametrize(("options", "message"), [({"workers": -1}, "workers=-1"), ({"buffer": 0}, "buffer=0")])
def test_bad_options(options, message):
    with pytest.raises(PaddingError, match=message):
        BatchIterDataset(make_batcher(), **options)
    with pytest.raises(PaddingError, match="epochs=0"):
        BatchMapDataset(make_batcher(), epochs=0)


def make_stream(samples=SAMPLES, policy=LADDER, **options):
    parent = grain.MapDataset.source(samples).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    return StreamIterDataset(parent, policy, **{"batch_size": 3, "buffer": 7, "seed": 2, **options})


def test_a_stream_gives_what_the_stream_batcher_gives():
    assert_same(list(make_stream()), list(StreamBatcher(SAMPLES, LADDER, batch_size=3, buffer=7, seed=2)))


@pytest.mark.parametrize("buffer", [3, 7, 100])
def test_grains_own_check_of_checkpoints_on_a_stream(buffer, monkeypatch):
    monkeypatch.setattr("multimodal_pad.grain.CHUNK", 2)
    grain.experimental.assert_equal_output_after_checkpoint(make_stream(buffer=buffer))


def test_a_stream_that_leaves_samples_out_is_resumed_too(monkeypatch):
    monkeypatch.setattr("multimodal_pad.grain.CHUNK", 2)
    short = Ladder({"text": [4, 12], "audio": [4, 12]})
    with pytest.warns(UserWarning, match="it is left out"):
        grain.experimental.assert_equal_output_after_checkpoint(make_stream(policy=short, long_samples="drop"))
    with pytest.raises(UncoveredLengthError, match=r"sample \d+ of the stream"):
        list(make_stream(policy=short))


def test_a_stream_over_another_dataset_is_refused():
    iterator = iter(make_stream())
    next(iterator)
    state = iterator.get_state()
    with pytest.raises(PaddingError, match=re.escape("and the dataset now gives")):
        iter(make_stream(SAMPLES[:4])).set_state(state)


def test_streams_that_cannot_be_batched():
    with pytest.raises(PaddingError, match="no samples that a bucket holds"):
        list(make_stream(grain.MapDataset.source([])))
    with pytest.raises(PaddingError, match=r"got long_samples='cut'; choose one of \['error', 'truncate', 'drop'\]"):
        make_stream(long_samples="cut")
    with pytest.raises(PaddingError, match="got a buffer of 2 samples for batches of up to 3 rows"):
        make_stream(buffer=2)
    with pytest.raises(SampleError, match="sample 1"):
        list(make_stream([{"text": np.arange(3)}, {"text": 7}], Fixed({"text": 4})))


class Flaky(list):
    """A source whose sample 7 can be read at the second try."""

    def __init__(self, samples):
        super().__init__(samples)
        self.failed = False

    def __getitem__(self, index):
        if index == 7 and not self.failed:
            self.failed = True
            raise OSError("try again")
        return super().__getitem__(index)


def go_on(iterator):
    """All elements, whatever is raised on the way, and how often."""
    found, errors = [], 0
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found, errors
        except OSError:
            errors += 1


def test_after_an_error_the_same_step_comes_next():
    found, errors = go_on(iter(BatchIterDataset(make_batcher(Flaky(SAMPLES)))))
    assert errors == 1
    assert_same(found, batches_of(1))


def test_after_an_error_of_its_parent_a_stream_has_lost_nothing():
    class Parent(grain.IterDataset):
        """Goes on after an error, which a dataset of Grain's own does not."""

        def __iter__(self):
            return ParentIterator()

    class ParentIterator(grain.DatasetIterator):
        def __init__(self):
            super().__init__()
            self.next, self.source = 0, Flaky(SAMPLES)

        def __next__(self):
            if self.next == len(SAMPLES):
                raise StopIteration
            sample = self.source[self.next]
            self.next += 1
            return sample

        def get_state(self):
            return {"next": self.next}

        def set_state(self, state):
            self.next = state["next"]

    iterator = iter(StreamIterDataset(Parent(), LADDER, batch_size=3, buffer=7, seed=2))
    whole = list(make_stream())
    assert_same([next(iterator)], whole[:1])
    with pytest.raises(OSError, match="try again") as caught:
        next(iterator)
    assert "while sample 7 of the stream was read" in caught.value.__notes__
    state = iterator.get_state()
    assert_same(list(iterator), whole[1:])
    iterator.set_state(state)
    assert_same(list(iterator), whole[1:])


def test_a_step_beyond_its_epoch_is_refused():
    iterator = iter(BatchIterDataset(make_batcher(), epochs=2))
    with pytest.raises(PaddingError, match="got the state of step 99, and epoch 0 has"):
        iterator.set_state({**make_batcher().state(), "step": 99})


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_resumed_at_every_step_with_workers(workers):
    whole = batches_of(2)
    batcher = make_batcher()
    states = [batcher.state()]
    for epoch in range(2):
        states += [batcher.state() for _ in batcher.epoch(epoch)]
    for done, state in enumerate(states):
        iterator = iter(BatchIterDataset(make_batcher(), epochs=2, workers=workers))
        iterator.set_state(state)
        assert_same(list(iterator), whole[done:])
        iterator.close()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "done"), [(1, 9), (2, 4)])
def test_resumed_with_workers_to_the_end_of_the_next_epoch(workers, done):
    whole = batches_of(2)
    iterator = iter(BatchIterDataset(make_batcher(), epochs=2, workers=workers))
    iterator.set_state({**make_batcher().state(), "step": done})
    assert_same(list(iterator), whole[done:])
    assert not multiprocessing.active_children(), "the last ones end with the last batch"
