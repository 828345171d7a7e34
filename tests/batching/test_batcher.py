import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, Exact, Fixed, Ladder, LengthTable, PaddingError, TransformerCost, unpad
from multimodal_pad.errors import LengthError, SampleError, UncoveredLengthError
from multimodal_pad.sources import Synthetic
from tests.helpers.batches import assert_same_samples
from tests.helpers.threads import prefetch_threads
from tests.strategies import length_tables, make_samples, policies


@given(st.data(), length_tables(max_samples=25), st.integers(1, 7), st.sampled_from(["random", "length"]))
def test_an_epoch_is_every_sample_once_at_planned_shapes(data, table, batch_size, grouping):
    policy, samples = data.draw(policies(table, batch_size, grouping)), make_samples(table)
    batcher = BucketBatcher(
        samples, policy, batch_size=batch_size, grouping=grouping, prefetch=data.draw(st.sampled_from([0, 2]))
    )
    batches = list(batcher.epoch(0))
    shapes = policy.lengths()
    for batch in batches:
        assert batch.shape.batch_size == batch_size
        padded = [batch.features[m].shape[1] for m in policy.modalities]
        assert shapes is None or padded in shapes.tolist()
    got = sorted((sample for batch in batches for sample in unpad(batch)), key=lambda sample: int(sample["targets"]))
    assert_same_samples(got, samples)
    assert str(batcher.stats) == str(batcher.forecast(0))
    assert batcher.stats.samples == len(samples)


def test_any_indexable_source_will_do():
    class Source:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return {"text": np.arange(index + 1)}

    batcher = BucketBatcher(Source(), Ladder({"text": [2, 4, 8]}), batch_size=2, seed=3)
    assert sum(len(unpad(batch)) for batch in batcher.epoch(0)) == 5


def test_a_source_that_knows_its_lengths_is_not_read_for_them():
    class Counting(Synthetic):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    source = Counting(50)
    batcher = BucketBatcher(source, Fixed.longest(source.lengths), batch_size=10)
    batcher.forecast()
    assert Counting.reads == 0


def test_the_modalities_are_those_of_the_policy():
    source = Synthetic(20)
    policy = Ladder.powers_of_two(source.lengths.select(["visual", "text"]))
    batch = next(BucketBatcher(source, policy, batch_size=4).epoch(0))
    assert list(batch.features) == ["visual", "text"]


def test_batches_do_not_share_memory():
    source = Synthetic(40)
    first, second, *_ = BucketBatcher(source, Fixed.longest(source.lengths), batch_size=8).epoch(0)
    assert not np.shares_memory(first.features["audio"], second.features["audio"])


LONG = [{"text": np.arange(n), "targets": n} for n in (3, 9, 4, 20)]


def test_a_long_sample_is_an_error_by_default():
    with pytest.raises(
        UncoveredLengthError, match=r"sample 1: 'text' has 9 positions and the longest bucket has 8; .*truncate"
    ):
        BucketBatcher(LONG, Ladder({"text": [4, 8]}), batch_size=2)


def test_long_samples_are_truncated_and_counted():
    batcher = BucketBatcher(LONG, Ladder({"text": [4, 8]}), batch_size=2, long_samples="truncate")
    samples = [sample for batch in batcher.epoch(0) for sample in unpad(batch)]
    assert sorted((int(s["targets"]), len(s["text"])) for s in samples) == [(3, 3), (4, 4), (9, 8), (20, 8)]
    assert batcher.stats.truncated == 2
    assert "truncated: 2" in str(batcher.stats)


def test_long_samples_are_dropped_and_counted():
    batcher = BucketBatcher(LONG, Ladder({"text": [4, 8]}), batch_size=2, long_samples="drop")
    samples = [sample for batch in batcher.epoch(0) for sample in unpad(batch)]
    assert sorted(int(s["targets"]) for s in samples) == [3, 4]
    assert batcher.stats.dropped == 2


def test_all_dropped_is_an_error():
    with pytest.raises(PaddingError, match="no samples are left"):
        BucketBatcher(LONG, Fixed({"text": 2}), batch_size=2, long_samples="drop").schedule(0)


def test_leaving_the_loop_early_leaves_no_thread():
    source = Synthetic(100)
    for batch in BucketBatcher(source, Fixed.longest(source.lengths), batch_size=4, prefetch=3).epoch(0):
        assert batch.sample_mask.all()
        break
    assert not prefetch_threads()


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_what_the_source_raises_reaches_the_consumer(prefetch):
    class Broken(Synthetic):
        def __getitem__(self, index):
            if index == 17:
                raise OSError("disk gone at 17")
            return super().__getitem__(index)

    source = Broken(40)
    batcher = BucketBatcher(source, Fixed.longest(source.lengths), batch_size=4, prefetch=prefetch)
    batches = []
    with pytest.raises(OSError, match="disk gone") as caught:
        batches.extend(batcher.epoch(0))
    assert caught.value.__notes__ == ["while sample 17 was read"]
    bad_step = [17 in ids for _, ids in batcher.schedule(0)].index(True)
    assert batcher.stats.steps == bad_step, "the batches before it were delivered"
    assert not prefetch_threads()


def test_a_sample_that_does_not_fit_is_named_by_its_number():
    samples = [{"audio": np.ones((2, 3 + (i == 6)), np.float32)} for i in range(10)]
    batcher = BucketBatcher(samples, Fixed({"audio": 4}), batch_size=5)
    with pytest.raises(
        SampleError, match=r"sample \d, 'audio': got feature shape .*give every sample the same"
    ) as caught:
        list(batcher.epoch(0))
    assert "sample 6" in str(caught.value)


@pytest.mark.parametrize("odd", [np.ones((2, 4), np.float32), np.ones((2, 3)), np.ones((2, 3, 1), np.float32)])
def test_a_batch_that_does_not_fit_those_before_it(odd):
    """With one sample to a batch, no batch is at odds with itself."""
    samples = [{"audio": odd if i == 6 else np.ones((2, 3), np.float32)} for i in range(10)]
    batcher = BucketBatcher(samples, Fixed({"audio": 4}), batch_size=1)
    with pytest.raises(SampleError, match=r"sample \d, 'audio': got feature shape .* but sample \d has") as caught:
        list(batcher.epoch(0))
    assert "sample 6" in str(caught.value)


@pytest.mark.parametrize("long_samples", ["error", "truncate"])
def test_a_table_that_does_not_say_how_long_a_sample_is(long_samples):
    table = LengthTable(("text",), np.array([[3], [9], [4], [20]]) - np.array([[0], [0], [1], [0]]))
    batcher = BucketBatcher(
        LONG,
        Ladder({"text": [4, 32 if long_samples == "error" else 8]}),
        batch_size=2,
        lengths=table,
        long_samples=long_samples,
    )
    with pytest.raises(SampleError, match="sample 2, 'text': got 4 positions and the length table says 3"):
        list(batcher.epoch(0))


def test_a_cost_of_other_modalities():
    with pytest.raises(PaddingError, match="cost of the modalities"):
        BucketBatcher(LONG, Exact(["text"]), batch_size=2, cost=TransformerCost(("audio", "text")))


def test_check_finite_names_the_sample():
    samples = [{"audio": np.full((2, 3), np.nan if i == 6 else 1.0)} for i in range(10)]
    assert len(list(BucketBatcher(samples, Fixed({"audio": 4}), batch_size=5).epoch(0))) == 2
    with pytest.raises(SampleError, match="sample 6, 'audio': position 0 holds NaN"):
        list(BucketBatcher(samples, Fixed({"audio": 4}), batch_size=5, check_finite=True).epoch(0))


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([], {}, LengthError, "no samples"),
        (LONG, {"batch_size": 0}, PaddingError, "batch_size=0"),
        (LONG, {"grouping": "size"}, PaddingError, "grouping='size'"),
        (LONG, {"prefetch": -1}, PaddingError, "prefetch=-1"),
        (LONG, {"prefetch": 1.5}, PaddingError, r"prefetch=1\.5"),
        (LONG, {"seed": -1}, PaddingError, "seed=-1"),
        (LONG, {"long_samples": "keep"}, PaddingError, "long_samples='keep'"),
        (LONG, {"lengths": LengthTable(("text",), np.ones((3, 1), int))}, LengthError, "3 rows for a source of 4"),
        (LONG, {"lengths": LengthTable(("audio",), np.ones((4, 1), int))}, LengthError, r"not \['text'\]"),
        ([*LONG, {"targets": 1}], {}, SampleError, "sample 4 has no 'text'"),
    ],
)
def test_bad_input(source, options, error, message):
    with pytest.raises(error, match=message):
        BucketBatcher(source, Exact(["text"]), **{"batch_size": 2, **options})


def test_batches_are_padded_in_the_background():
    names = []

    class Source(Synthetic):
        def __getitem__(self, index):
            names.append(threading.current_thread().name)
            return super().__getitem__(index)

    source = Source(8)
    list(BucketBatcher(source, Fixed.longest(source.lengths), batch_size=4).epoch(0))
    assert set(names) == {"prefetch"}


def test_two_loops_at_once_are_both_counted():
    samples = [{"text": np.arange(n)} for n in range(1, 10)]
    batcher = BucketBatcher(samples, Ladder({"text": [4, 16]}), batch_size=2, prefetch=0)
    for _ in zip(batcher.epoch(0), batcher.epoch(1), strict=True):
        pass
    assert batcher.stats.samples == 18
    assert batcher.stats.steps == len(batcher.schedule(0)) + len(batcher.schedule(1))


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise OSError("no such block")


def corrupt(what):
    """Twenty samples, of which number 17 is something else."""
    samples = [{"text": np.arange(3), "targets": np.int32(0)} for _ in range(20)]
    return [*samples[:17], what, *samples[18:]]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (None, SampleError, "sample 17 is no mapping but NoneType"),
        (3, SampleError, "sample 17 is no mapping but int"),
        ({"audio": np.arange(3)}, SampleError, "sample 17 has no 'text'"),
        ({"text": Unreadable()}, OSError, "no such block"),
        ({"text": [[1], [2, 3], []]}, SampleError, "sample 17, 'text': not an array of one shape"),
        ({"text": np.arange(3), "targets": [[1], [2, 3]]}, SampleError, "sample 17, 'targets': not an array of one"),
        ({"text": np.arange(3), "targets": 1.5}, SampleError, "sample 17, 'targets': got shape"),
        ({"text": np.arange(3)}, SampleError, "sample 17"),
        (
            {"text": np.arange(4), "targets": np.int32(0)},
            SampleError,
            "sample 17, 'text': got 4 positions and the length table says 3",
        ),
    ],
)
@pytest.mark.parametrize("rows", [1, 4])
def test_a_corrupt_sample_is_named(what, error, message, rows):
    table = LengthTable(("text",), np.full((20, 1), 3))
    batcher = BucketBatcher(corrupt(what), Fixed({"text": 8}), batch_size=rows, lengths=table)
    with pytest.raises(error, match=message) as caught:
        for _ in batcher.epoch(0):
            pass
    if error is OSError:
        assert caught.value.__notes__ == ["while 'text' of sample 17 was read"]


@pytest.mark.parametrize("what", [None, 3, {"text": Unreadable()}])
def test_a_corrupt_sample_is_named_where_lengths_are_measured(what):
    with pytest.raises((SampleError, OSError)) as caught:
        BucketBatcher(corrupt(what), Fixed({"text": 8}), batch_size=4)
    assert "sample 17" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_a_source_that_blocks_for_a_while_is_waited_for():
    class Slow(list):
        def __getitem__(self, index):
            if index == 7:
                time.sleep(0.3)
            return super().__getitem__(index)

    samples = [{"text": np.arange(3), "targets": np.int32(i)} for i in range(20)]
    batcher = BucketBatcher(Slow(samples), Fixed({"text": 8}), batch_size=4)
    assert sorted(np.concatenate([batch.targets for batch in batcher.epoch(0)]).tolist()) == list(range(20))


def test_an_example_of_samples_that_are_all_dropped():
    batcher = BucketBatcher([{"text": np.arange(9)}], Fixed({"text": 4}), batch_size=2, long_samples="drop")
    with pytest.raises(PaddingError, match="no samples are left"):
        batcher.example()


@pytest.mark.parametrize("shards", [1, 3])
def test_batches_can_hold_the_numbers_of_their_samples(shards):
    """Also where all rows of a shard only fill up the batch."""
    samples = [{"text": np.arange(1 + i % 5), "targets": np.int32(i)} for i in range(10)]
    whole = BucketBatcher(samples, Ladder({"text": [4, 8]}), batch_size=6, with_ids=True)
    seen = []
    for index in range(shards):
        for batch in (whole.shard(index, shards) if shards > 1 else whole).epoch(0):
            assert batch.ids.dtype == np.int32
            np.testing.assert_array_equal(batch.ids >= 0, batch.sample_mask)
            np.testing.assert_array_equal(batch.ids[batch.sample_mask], batch.targets[batch.sample_mask])
            seen += batch.ids[batch.sample_mask].tolist()
    assert sorted(seen) == list(range(10))
    assert next(BucketBatcher(samples, Ladder({"text": [8]}), batch_size=6).epoch(0)).ids is None
