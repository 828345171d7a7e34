"""The packed layout: samples end to end and back, what follows from the lengths, and what does not fit."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import BatchShape, PackedBatch, PaddingError, pack_samples, pad_samples, position_count, unpack
from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.packed import PACKED
from tests.helpers.batches import assert_same_samples
from tests.strategies import length_tables, make_samples

SAMPLES = [
    {"text": np.array([5, 6, 7]), "audio": np.ones((2, 3), np.float32), "targets": 1},
    {"text": np.array([], int), "audio": np.full((1, 3), 2, np.float32), "targets": 0},
    {"text": np.array([8]), "audio": np.full((4, 3), 3, np.float32), "targets": 2},
]


@given(st.data(), length_tables())
def test_pack_then_unpack_is_the_identity(data, table):
    samples = make_samples(table)
    more = {name: data.draw(st.integers(0, 9)) for name in table.modalities}
    sums = dict(zip(table.modalities, table.values.sum(axis=0).tolist(), strict=True))
    capacity = {name: max(1, total) + more[name] for name, total in sums.items()}
    empty = data.draw(st.integers(0, 3))
    batch = pack_samples(samples, capacity=capacity, batch_size=len(samples) + empty)
    assert batch.shape == BatchShape.of(len(samples) + empty, capacity, "packed")
    assert batch.sample_mask.tolist() == [True] * len(samples) + [False] * empty
    assert_same_samples(unpack(batch), samples)


@given(length_tables(), st.integers(0, 3))
def test_what_follows_from_the_lengths(table, empty):
    samples = make_samples(table)
    capacity = {name: max(1, total) + 2 for name, total in zip(table.modalities, table.values.sum(axis=0), strict=True)}
    batch = pack_samples(samples, capacity=capacity, batch_size=len(samples) + empty)
    for name, column in zip(table.modalities, table.values.T.tolist(), strict=True):
        column, behind = column + [0] * empty, capacity[name] - sum(column)
        wanted = (
            np.cumsum([0, *column])[:-1],
            np.array([i for i, n in enumerate(column) for _ in range(n)] + [len(column)] * behind),
            np.array([place for n in column for place in range(n)] + [0] * behind),
            np.array([True] * sum(column) + [False] * behind),
        )
        for found, values in zip((batch.starts, batch.segment_ids, batch.positions, batch.masks), wanted, strict=True):
            np.testing.assert_array_equal(found[name], values)


@given(length_tables(max_samples=12), st.sampled_from([1, 2, 3]), st.integers(0, 3), st.randoms(use_true_random=False))
def test_shares_are_packed_batches_one_after_the_other(table, shares, more, random):
    """Equal runs of all arrays are those of each share packed by itself, and what follows from the lengths does too."""
    samples = make_samples(table)
    ends = sorted(random.randint(0, len(samples)) for _ in range(shares - 1))
    parts = [samples[a:b] for a, b in zip([0, *ends], [*ends, len(samples)], strict=True)]
    own = max(map(len, parts)) + more
    room = {m: more + max(1, *(sum(len(sample[m]) for sample in part) for part in parts)) for m in table.modalities}
    shape = PACKED.joined(BatchShape.of(own, room, PACKED), shares)
    arrays = {m: [sample[m] for sample in samples] for m in table.modalities}
    sizes = [len(part) for part in parts]
    options = {"numbers": range(len(samples)), "pad_value": 7, "check_finite": False, "with_ids": True}
    batch = PACKED.lay_out(arrays, samples, shape, **options, share_sizes=sizes)
    assert (batch.shape, batch.shares, batch.share_sizes.tolist()) == (shape, shares, sizes)
    assert_same_samples(unpack(batch), samples)
    for s, part in enumerate(parts):
        if not part:
            assert not batch.sample_mask[s * own : (s + 1) * own].any()
            continue
        alone = pack_samples(part, capacity=room, batch_size=own, pad_value=7)
        for field in ("targets", "sample_mask"):
            np.testing.assert_array_equal(getattr(batch, field)[s * own : (s + 1) * own], getattr(alone, field))
        for m, n in room.items():
            here, rows = slice(s * n, (s + 1) * n), slice(s * own, (s + 1) * own)
            ids, lone = batch.segment_ids[m][here], alone.segment_ids[m]
            for got, wanted in (
                (batch.features[m][here], alone.features[m]),
                (batch.lengths[m][rows], alone.lengths[m]),
                (batch.starts[m][rows], alone.starts[m] + s * n),
                (batch.positions[m][here], alone.positions[m]),
                (batch.masks[m][here], alone.masks[m]),
                (ids, np.where(lone == own, shares * own, lone + s * own)),
            ):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("sizes", [None, [3], [1, 2], [0, 1, 2]])
def test_what_follows_from_the_lengths_follows_under_jit(sizes):
    def derived(batch):
        return batch.starts, batch.segment_ids, batch.positions, batch.masks

    count = 1 if sizes is None else len(sizes)
    shape = PACKED.joined(BatchShape.of(4, {"text": 5, "audio": 9}, PACKED), count)
    options = {"numbers": range(3), "pad_value": 0, "check_finite": False, "with_ids": False, "share_sizes": sizes}
    batch = PACKED.lay_out({m: [sample[m] for sample in SAMPLES] for m in ("text", "audio")}, SAMPLES, shape, **options)
    for traced, found in zip(*map(jax.tree.leaves, (jax.jit(derived)(batch), derived(batch))), strict=True):
        np.testing.assert_array_equal(traced, found)
        assert traced.dtype == found.dtype
    alone = dict(PACKED.share(shape, count).lengths)
    assert [batch.masks["text"].sum(), batch.masks["audio"].sum()] == [4, 7]
    assert batch.shares == count
    assert all(len(x) == count * alone[name] for name, x in batch.segment_ids.items())


def test_a_share_that_does_not_fit_is_named_by_its_samples():
    options = {"numbers": [4, 9, 2], "pad_value": 0, "check_finite": False, "with_ids": False, "share_sizes": [1, 2]}
    arrays = {"text": [np.arange(3), np.arange(2), np.arange(5)]}
    shape = BatchShape.of(4, {"text": 12}, PACKED)
    message = r"'text': 7 positions of 2 samples do not fit a capacity of 6 \(the longest, sample 2, has 5\)"
    with pytest.raises(SampleError, match=message):
        PACKED.lay_out(arrays, [{}] * 3, shape, **options)


def test_buffers_are_aligned_contiguous_and_fresh():
    one, other = pack_samples(SAMPLES), pack_samples(SAMPLES)
    for batch in (one, other):
        for array in (*batch.features.values(), *batch.lengths.values(), batch.targets, batch.sample_mask):
            assert array.flags.c_contiguous
            assert array.ctypes.data % 64 == 0
    one.features["audio"][:] = 7
    assert not (other.features["audio"] == 7).any()


def test_ids_and_pad_values():
    batch = pack_samples(
        SAMPLES, capacity={"text": 6, "audio": 9}, batch_size=4, ids=[9, 4, 7], with_ids=True, pad_value={"audio": -1}
    )
    assert batch.ids.tolist() == [9, 4, 7, -1]
    assert batch.features["text"].tolist() == [5, 6, 7, 8, 0, 0]
    assert (batch.features["audio"][7:] == -1).all()


def test_fewer_bytes_than_padded():
    """Four rows of text and audio as long as the longest, against the samples alone."""
    packed, padded = pack_samples(SAMPLES), pad_samples(SAMPLES)
    assert sum(x.nbytes for x in packed.features.values()) == 4 * 8 + 7 * 12
    assert padded.nbytes > packed.nbytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": {"text": 3, "audio": 7}}, "'text': 4 positions of 3 samples do not fit a capacity of 3 "
         r"\(the longest, sample 0, has 3\); give at least 4"),
        ({"capacity": {"text": 4}}, "capacity has no 'audio', only"),
        ({"batch_size": 2}, "got 3 samples for a batch of 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(SampleError, match=message):
        pack_samples(SAMPLES, **options)
    with pytest.raises(SampleError, match="got no samples"):
        pack_samples([])


def test_nan_is_found_and_named():
    spoilt = [*SAMPLES, {**SAMPLES[0], "audio": np.array([[1, 2, np.nan]], np.float32)}]
    with pytest.raises(SampleError, match="sample 3, 'audio': position 0 holds NaN or inf"):
        pack_samples(spoilt, check_finite=True)


def test_a_share_is_a_part_of_samples_and_capacity():
    shape = BatchShape.of(8, {"text": 64, "audio": 96}, "packed")
    assert str(PACKED.share(shape, 4)) == "2 packed in (audio 24, text 16)"
    with pytest.raises(PaddingError, match="got a batch of 8 samples to share out over 3; plan with plan_packing"):
        PACKED.share(shape, 3)
    with pytest.raises(PaddingError, match="got 'text' has 60 positions"):
        PACKED.share(BatchShape.of(8, {"text": 60}, "packed"), 8)


def test_the_price_is_that_of_equal_samples_and_what_is_paid_knows_the_lengths():
    shape = BatchShape.of(4, {"text": 40}, "packed")
    assert (shape.positions, shape.price(position_count, ("text",))) == (40, 40)

    def square(rows):
        return (rows**2).sum(axis=1)

    assert shape.price(square, ("text",)) == 4 * 10**2
    real, costs = np.array([[30]]), np.array([20.0**2 + 10**2])
    assert PACKED.paid(np.array([4]), np.array([[40]]), real, costs, square).tolist() == [500 + 4 * 2.5**2]


def test_full_lengths_fill_the_capacity():
    full = PACKED.full_lengths(BatchShape.of(3, {"text": 8}, "packed"))
    assert full["text"].tolist() == [3, 3, 2]


def test_jit_takes_it_as_it_is():
    batch = jax.jit(lambda batch: batch)(pack_samples(SAMPLES))
    assert isinstance(batch, PackedBatch)
    assert [sample["text"].tolist() for sample in unpack(batch)] == [[5, 6, 7], [], [8]]
