"""Sources that write again to what they have given: each sample has the values that it had when it was read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, Fixed, LengthTable, StreamBatcher
from multimodal_pad.batching.held import share_memory

COUNT = 24
LENGTHS = np.random.default_rng(0).integers(1, 9, COUNT)
POLICY = Fixed({"audio": 8, "text": 8})
TABLE = LengthTable(("audio", "text"), np.stack([LENGTHS, LENGTHS], axis=1))


class Labels(np.ndarray):
    """A kind of array of its own."""


class Tensor:
    """An array of another library: NumPy reads its memory where it lies."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype, copy=copy)


class Reusing:
    """A source that gives every sample in the same memory, of the kind named; number i holds the number i."""

    def __init__(self, kind, slots=1):
        self.kind, self.slots, self.reads = kind, slots, 0
        self.buffers = [np.zeros((8, 2)) for _ in range(slots)]
        self.texts, self.labels = [np.zeros(8, np.int64) for _ in range(slots)], np.zeros(1)
        self.sample, self.list, self.targets = {}, [], {}

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index >= COUNT:
            raise IndexError
        slot, n = self.reads % self.slots, LENGTHS[index]
        self.reads += 1
        fresh = {"audio": np.full((n, 2), index, float), "text": np.full(n, index), "targets": np.full(1, float(index))}
        if self.kind == "array":
            self.buffers[slot][:n], self.texts[slot][:n] = index, index
            return {**fresh, "audio": self.buffers[slot][:n], "text": self.texts[slot][:n]}
        if self.kind == "end of an array":
            self.buffers[slot][-n:] = index
            return {**fresh, "audio": self.buffers[slot][-n:]}
        if self.kind == "transposed":
            self.buffers[slot].reshape(2, 8)[:, :n] = index
            return {**fresh, "audio": self.buffers[slot].reshape(2, 8)[:, :n].T}
        if self.kind == "tensor":
            self.buffers[slot][:n] = index
            return {**fresh, "audio": Tensor(self.buffers[slot][:n])}
        if self.kind == "read-only view":
            self.buffers[slot][:n] = index
            view = self.buffers[slot][:n]
            view.flags.writeable = False
            return {**fresh, "audio": view}
        if self.kind == "dict":
            self.sample.update(fresh)
            return self.sample
        if self.kind == "list":
            self.list[:] = [index] * n
            return {**fresh, "text": self.list}
        if self.kind == "targets":
            self.labels[:] = index
            return {**fresh, "targets": self.labels}
        if self.kind == "view of targets":
            self.labels[:] = index
            return {**fresh, "targets": self.labels.view(Labels)}
        if self.kind == "dict of targets":
            self.targets["emotion"] = index
            return {**fresh, "targets": self.targets}
        self.texts[slot][:n] = index
        return {**fresh, "position_targets": {"text": {"tag": self.texts[slot][:n]}}}


KINDS = [
    "array", "end of an array", "transposed", "tensor", "read-only view", "dict", "list", "targets", "dict of targets",
    "view of targets", "position targets",
]  # fmt: skip


def check(batches):
    seen = []
    for batch in batches:
        for sample in batch.layout.take_apart(batch):
            targets = sample["targets"]
            number = int(targets["emotion"] if isinstance(targets, dict) else targets[0])
            seen.append(number)
            assert sample["audio"].tolist() == [[number, number]] * LENGTHS[number]
            assert sample["text"].tolist() == [number] * LENGTHS[number]
            if "position_targets" in sample:
                assert sample["position_targets"]["text"]["tag"].tolist() == [number] * LENGTHS[number]
    assert sorted(seen) == list(range(COUNT))


@settings(max_examples=25)
@given(st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 7), st.sampled_from([0, 2]))
def test_samples_of_a_batcher(kind, slots, batch_size, prefetch):
    batcher = BucketBatcher(Reusing(kind, slots), POLICY, batch_size=batch_size, lengths=TABLE, prefetch=prefetch)
    for _ in range(2):
        check(batcher)


@settings(max_examples=25)
@given(st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 7))
def test_samples_of_a_stream(kind, slots, batch_size):
    check(StreamBatcher(Reusing(kind, slots), POLICY, batch_size=batch_size, buffer=9))


def test_samples_are_read_once_where_nothing_is_shared():
    class Counting(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    whole = np.zeros((COUNT, 8, 2))
    samples = [{"audio": whole[i, :n], "text": np.full(n, i)} for i, n in enumerate(LENGTHS)]
    source = Counting(samples)
    for _ in BucketBatcher(source, POLICY, batch_size=5, lengths=TABLE):
        pass
    assert source.reads == COUNT


def test_what_shares_memory_is_told_from_what_does_not():
    whole, other = np.zeros((8, 2)), np.zeros((8, 2))
    mapped = np.frombuffer(bytes(128)).reshape(8, 2)
    apart = [
        (whole, other),
        (whole[:3], whole[3:]),
        (whole[:3], other[:3]),
        (whole[:0], whole[:0]),
        (mapped, mapped[:1]),
    ]
    together = [
        (whole, whole),
        (whole[:3], whole[2:]),
        (whole[:1], whole),
        (whole.T, whole[1:]),
        (whole[::-1], whole[:1]),
    ]
    for a, b in apart:
        assert not share_memory([{"x": a}, {"x": b}])
    for a, b in together:
        assert share_memory([{"x": a}, {"x": b}])
        assert share_memory([{"x": other, "targets": {"y": a}}, {"x": other + 1, "targets": {"y": b}}])


def test_tensors_that_share_memory():
    torch = pytest.importorskip("torch")
    assert share_memory([{"x": np.asarray(view)} for view in [torch.zeros(3)[:2]] * 2])


@pytest.mark.parametrize("batcher", [BucketBatcher, StreamBatcher])
def test_one_sample_may_be_given_many_times(batcher):
    samples = [{"text": np.arange(3), "targets": np.int32(1)}] * 5
    found = list(batcher(samples, Fixed({"text": 4}), batch_size=2))
    assert sum(int(batch.sample_mask.sum()) for batch in found) == 5
