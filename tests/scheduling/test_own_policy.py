"""A policy and a grouping of one's own serve wherever the built-in ones do."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Exact, LengthTable, PaddingError, Policy, StreamBatcher, make_schedule
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.scheduling.groupings import RANDOM, RandomGrouping
from multimodal_pad.sources import Synthetic
from tests.helpers.batches import assert_same
from tests.strategies import make_samples

TABLE = LengthTable(("text", "audio"), np.array([[1 + i % 7, 3 * (1 + i % 11)] for i in range(50)]))


class Squares(Policy):
    """Lengths of both modalities rounded up to one square: no repr, and batches of few positions."""

    def __init__(self, largest=8):
        self.modalities, self.largest = ("text", "audio"), largest

    def round_up(self, lengths):
        self.check_held(lengths, self.covers(lengths))
        root = np.ceil(np.sqrt(np.maximum(lengths, 1).max(axis=1))).astype(np.int64)
        return np.repeat((root**2)[:, None], 2, axis=1)

    def lengths(self):
        return np.repeat((np.arange(1, self.largest + 1) ** 2)[:, None], 2, axis=1)

    def truncate(self, lengths):
        return np.minimum(lengths, self.largest**2)


class Sized(Squares):
    """The same with batches of 128 positions."""

    def batch_sizes(self, padded):
        return np.maximum(1, 128 // padded[:, 0])


class Diagonal(Squares):
    """Text or audio may be long, and not both."""

    def lengths(self):
        return np.array([[7, 40], [40, 7]])

    def round_up(self, lengths):
        self.check_held(lengths, self.covers(lengths))
        return self.lengths()[(~(lengths <= [7, 40]).all(axis=1)).astype(int)]

    def truncate(self, lengths):
        return np.where(self.covers(lengths)[:, None], lengths, np.minimum(lengths, 7))

    def covers(self, lengths):
        return (lengths[:, None] <= self.lengths()).all(axis=2).any(axis=1)


@pytest.mark.parametrize("grouping", ["length", "random"])
def test_a_run_is_resumed_with_a_policy_that_has_no_repr(grouping):
    def make():
        return BucketBatcher(make_samples(TABLE), Squares(), batch_size=4, grouping=grouping)

    whole = list(make().epoch(0))
    batcher = make()
    iterator = batcher.epoch(0)
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(batcher.state()))
    resumed = make()
    resumed.restore(state)
    assert_same(list(resumed.epoch(0)), whole[5:])
    with pytest.raises(PaddingError, match="fingerprint of its shapes"):
        BucketBatcher(make_samples(TABLE), Squares(7), batch_size=4, grouping=grouping).restore(state)


def test_the_fingerprint_is_of_content():
    assert Squares().fingerprint == Squares().fingerprint
    others = [Squares(9), Sized(), Diagonal(), Exact(("text", "audio"))]
    assert len({policy.fingerprint for policy in [Squares(), *others]}) == 5


def test_the_hook_for_batch_sizes_does_what_it_says():
    batcher = BucketBatcher(make_samples(TABLE), Sized())
    assert batcher.batch_sizes == [2, 3, 5, 8, 14, 32, 128]
    sizes = {batch.features["text"].shape[1]: batch.shape.batch_size for batch in batcher.epoch(0)}
    assert len(sizes) > 2
    assert all(size == 128 // length for length, size in sizes.items())
    assert [int(batch.sample_mask.sum()) for batch in StreamBatcher(make_samples(TABLE), Sized(), buffer=128)]
    with pytest.raises(PaddingError, match=r"got batch_size=4 for .*Sized.* which has batches of 2, 3, 5"):
        BucketBatcher(make_samples(TABLE), Sized(), batch_size=4)
    with pytest.raises(PaddingError, match=r"got no batch_size, and .*Squares"):
        BucketBatcher(make_samples(TABLE), Squares())
    short = LengthTable(TABLE.modalities, np.minimum(TABLE.values, 9))
    with pytest.raises(PaddingError, match="a random batch is drawn before its shape is known"):
        make_schedule(Synthetic(300).lengths.select(("text", "audio")), Sized(40), grouping="random").steps()
    assert set(make_schedule(short, Sized(3), grouping="random").batch_sizes) == {14}


def test_every_shape_that_comes_is_one_to_compile_for():
    batcher = BucketBatcher(make_samples(TABLE), Sized())
    spec = batcher.spec(epochs=2)
    assert {batch.shape for epoch in range(2) for batch in batcher.epoch(epoch)} == set(spec.shapes)
    assert spec.example.shape.batch_size == 1
    assert set(StreamBatcher(make_samples(TABLE), Sized(), buffer=128).spec().shapes) > set(spec.shapes)


def test_random_batches_must_fit_whoever_meets():
    table = LengthTable(("text", "audio"), np.array([[2, 40], [40, 2]] * 10))
    assert len(make_schedule(table, Diagonal(), batch_size=4)) == 6
    with pytest.raises(UncoveredLengthError, match="a random batch may have the longest of every modality at once"):
        make_schedule(table, Diagonal(), batch_size=4, grouping="random")


@dataclass(frozen=True)
class Sorted(RandomGrouping):
    """Batches in the order of the text's length, which is the same in each epoch."""

    name: str = "sorted"

    def prepare(self, lengths, policy, **options):
        deal = super().prepare(lengths, policy, **options)
        order = np.argsort(lengths.values[:, 0], kind="stable")
        return lambda _order, epoch: deal(order, epoch)


def test_a_grouping_of_ones_own():
    policy = Exact(("text", "audio"))
    batcher = BucketBatcher(make_samples(TABLE), policy, batch_size=5, grouping=Sorted())
    longest = [batch.features["text"].shape[1] for batch in batcher.epoch(0)]
    assert longest == sorted(longest)
    assert batcher.state()["grouping"] == "sorted"
    other = BucketBatcher(make_samples(TABLE), policy, batch_size=5, grouping=RANDOM)
    with pytest.raises(PaddingError, match="the grouping is 'random' here and 'sorted' in the state"):
        other.restore(batcher.state())
