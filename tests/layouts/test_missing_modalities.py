"""A modality without positions is missing, however that is written, and decides nothing for the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, Exact, Fixed, StreamBatcher, pack_samples, pad_samples
from multimodal_pad.errors import SampleError

EMPTY = [
    None,
    [],
    (),
    np.zeros(0),
    np.zeros(0, np.int8),
    np.zeros((0, 0)),
    np.zeros((0, 3)),
    np.zeros((0, 5), np.float16),
    np.zeros((0, 2, 7), ">f4"),
    np.array([], object),
    np.array([], "U3"),
]
POLICY = Fixed({"text": 4, "audio": 4})


def sample(number, audio, *, positions=True):
    made = {"text": np.full(2, number, np.int32), "audio": audio, "targets": np.int32(number)}
    if positions:
        empty = audio is None or not len(audio)
        made["position_targets"] = {"audio": audio if empty else np.full(len(audio), number, np.int16)}
    return made


def have(number):
    return np.full((1 + number % 3, 3), number, np.float32)


def all_samples(batches):
    return {int(s["targets"]): s for batch in batches for s in batch.layout.take_apart(batch)}


@settings(max_examples=25)
@given(
    st.lists(st.one_of(st.just("has"), st.sampled_from(range(len(EMPTY)))), min_size=1, max_size=9),
    st.integers(1, 4),
    st.booleans(),
)
def test_batches_have_the_kind_of_the_samples_that_have_it(what, batch_size, positions):
    samples = [sample(i, have(i) if w == "has" else EMPTY[w], positions=positions) for i, w in enumerate(what)]
    some = "has" in what
    for make in (BucketBatcher, StreamBatcher):
        batches = list(make(samples, POLICY, batch_size=batch_size))
        kinds = {(x.shape[1:], x.dtype) for x in (batch.features["audio"] for batch in batches)}
        assert len(kinds) == 1
        if some:
            assert kinds == {((4, 3), np.dtype(np.float32))}
        if positions:
            targets = {(x.shape[1:], x.dtype) for x in (batch.position_targets["audio"] for batch in batches)}
            assert len(targets) == 1
            if some:
                assert targets == {((4,), np.dtype(np.int16))}
        found = all_samples(batches)
        assert sorted(found) == list(range(len(samples)))
        for number, one in found.items():
            wanted = have(number) if what[number] == "has" else np.zeros((0, *one["audio"].shape[1:]))
            np.testing.assert_array_equal(one["audio"], wanted)


@pytest.mark.parametrize("lay_out", [pad_samples, pack_samples])
@pytest.mark.parametrize("empty", EMPTY, ids=repr)
def test_samples_that_are_laid_out_together(lay_out, empty):
    for order in (1, -1):
        batch = lay_out([sample(0, empty), sample(1, have(1)), sample(2, empty)][::order])
        assert batch.lengths["audio"].tolist() == [0, 2, 0]
        assert batch.features["audio"].dtype == np.float32
        assert batch.features["audio"].shape[-1] == 3
        assert batch.position_targets["audio"].dtype == np.int16


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
def test_the_example_of_a_stream_has_the_kind_of_a_sample_that_comes_later(empty):
    samples = [sample(i, have(i) if i == 3 else empty) for i in range(5)]
    batcher = StreamBatcher(iter(samples), POLICY, batch_size=2)
    assert batcher.example().features["audio"].shape[-1] == 3
    assert sorted(all_samples(batcher)) == list(range(5))


def test_the_example_of_a_shard_has_the_kind_of_all_samples():
    samples = [sample(i, have(i) if i == 3 else None) for i in range(5)]
    batcher = BucketBatcher(samples, POLICY, batch_size=2)
    assert batcher.example().features["audio"].shape == (1, 1, 3)
    assert batcher.shard(1, 2).example().features["audio"].shape[-1] == 3


def test_where_no_sample_has_it_the_array_that_says_most_counts():
    batch = pad_samples([sample(0, None), sample(1, np.zeros((0, 74), np.float16)), sample(2, np.zeros(0))])
    assert batch.features["audio"].shape == (3, 1, 74)
    assert batch.features["audio"].dtype == np.float16
    assert pad_samples([{"audio": None}, {"audio": []}]).features["audio"].dtype == np.float32


def test_a_stream_that_tells_too_late_is_told_so():
    samples = [sample(i, have(i) if i == 20 else None, positions=False) for i in range(30)]
    with pytest.raises(
        SampleError, match=r"sample 20, 'audio': got feature shape \(3,\).*np.zeros\(\(0, 3\), np.float32"
    ):
        list(StreamBatcher(samples, POLICY, batch_size=2, buffer=4))
    known = np.zeros((0, 3), np.float32)
    given = [sample(i, have(i) if i == 20 else known, positions=False) for i in range(30)]
    assert len(all_samples(StreamBatcher(given, POLICY, batch_size=2, buffer=4))) == 30


@pytest.mark.parametrize("value", [np.ones((2, 0), "f4"), [[], []], np.ones((2, 3, 0))])
def test_positions_of_width_0_are_refused(value):
    message = r"'audio': got shape \(2, .*, positions without a number"
    with pytest.raises(SampleError, match="sample 1, " + message):
        pad_samples([sample(0, have(0), positions=False), sample(1, value, positions=False)])
    with pytest.raises(SampleError, match="sample 0, " + message):
        BucketBatcher([{"audio": value}], Exact(("audio",)), batch_size=1)
    with pytest.raises(SampleError, match="sample 0, " + message):
        list(StreamBatcher([{"audio": value}], Fixed({"audio": 4}), batch_size=1))


def test_targets_of_positions_without_one_are_refused():
    with pytest.raises(SampleError, match=r"'position_targets'\['text'\]: got shape \(2, 0\), positions without"):
        pad_samples([{"text": [1, 2], "position_targets": {"text": np.zeros((2, 0))}}])


def test_targets_that_are_none_are_not_there():
    assert pad_samples([{"text": [1], "targets": None}] * 2).targets is None
    with pytest.raises(SampleError, match="sample 1 has no 'targets' and others have"):
        pad_samples([{"text": [1], "targets": 1}, {"text": [1], "targets": None}])
    samples = [{"text": [1], "targets": None, "position_targets": None}] * 2
    for batcher in (BucketBatcher, StreamBatcher):
        assert next(iter(batcher(samples, Fixed({"text": 4}), batch_size=2))).targets is None
