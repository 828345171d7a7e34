from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.reference_cost import reference_cost
from multimodal_pad import Exact, Fixed, Ladder, LengthTable, PaddingError, make_schedule
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.dealing import shuffled
from multimodal_pad.sources import Synthetic
from tests.strategies import length_tables, policies


@given(
    st.data(),
    length_tables(),
    st.integers(1, 9),
    st.sampled_from(["random", "length"]),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_nothing_lost_nothing_doubled_and_every_batch_fits_its_shape(data, table, batch_size, grouping, window, epoch):
    policy = data.draw(policies(table, batch_size, grouping))
    schedule = make_schedule(
        table, policy, batch_size=batch_size, grouping=grouping, window=window, seed=1, epoch=epoch
    )
    real = schedule.ids != EMPTY
    assert sorted(schedule.ids[real].tolist()) == list(range(len(table)))
    assert (schedule.batch_sizes == batch_size).all()
    assert np.logical_or.reduceat(real, schedule.starts[:-1]).all(), "no step is empty"
    shapes = policy.lengths()
    for padded, ids in schedule:
        assert (table.values[ids[ids != EMPTY]] <= padded).all()
        assert shapes is None or padded.tolist() in shapes.tolist()


@pytest.mark.parametrize("grouping", ["random", "length"])
def test_the_same_arguments_give_the_same_schedule(grouping):
    table = Synthetic(500).lengths
    policy = Ladder.powers_of_two(table)

    def schedule(seed, epoch):
        return make_schedule(table, policy, batch_size=8, grouping=grouping, seed=seed, epoch=epoch)

    one, again, other_epoch, other_seed = schedule(0, 0), schedule(0, 0), schedule(0, 1), schedule(1, 0)
    np.testing.assert_array_equal(one.ids, again.ids)
    np.testing.assert_array_equal(one.lengths, again.lengths)
    assert (one.ids[:80] != other_epoch.ids[:80]).any()
    assert (one.ids[:80] != other_seed.ids[:80]).any()


def short_batches(schedule):
    """How many rows are empty in each step that has any."""
    return [count for _, ids in schedule if (count := int((ids == EMPTY).sum()))]


def test_random_draws_first_and_rounds_the_maxima_up():
    table = Synthetic(100).lengths
    schedule = make_schedule(table, Exact(table.modalities), batch_size=7, grouping="random")
    for padded, ids in schedule:
        assert padded.tolist() == table.values[ids[ids != EMPTY]].max(axis=0).tolist()
    assert short_batches(schedule) == [5]


def test_short_batches_are_filled_up_from_the_largest_shape_down():
    table = LengthTable(("text",), np.array([[3]] * 5 + [[7]] * 3 + [[15]] * 3))
    schedule = make_schedule(table, Ladder({"text": [4, 8, 16]}), batch_size=4)
    assert sorted(schedule.lengths[:, 0].tolist()) == [4, 8, 16]
    assert short_batches(schedule) == [1]
    (short,) = (shape.tolist() for shape, ids in schedule if EMPTY in ids)
    assert short == [4], "empty rows are at the cheapest shape"


def test_leftovers_that_no_larger_shape_holds_end_in_a_short_batch():
    table = LengthTable(("text", "audio"), np.array([[3, 30]] * 3 + [[30, 3]] * 3))
    schedule = make_schedule(table, Ladder({"text": [4, 32], "audio": [4, 32]}), batch_size=4)
    assert sorted(map(tuple, schedule.lengths.tolist())) == [(4, 32), (32, 4)]
    assert short_batches(schedule) == [1, 1]


def test_what_a_window_leaves_is_carried_to_the_next():
    table = LengthTable(("text", "audio"), np.array([[3, 30], [30, 3]] * 40))
    schedule = make_schedule(table, Ladder({"text": [4, 32], "audio": [4, 32]}), batch_size=8, window=1)
    assert short_batches(schedule) == []


def test_a_wider_window_leaves_less_padding():
    source = Synthetic(4000)
    policy = Ladder.powers_of_two(source.lengths, 8)
    padded = [
        make_schedule(source.lengths, policy, batch_size=32, window=window).lengths.sum() for window in (1, 8, 1024)
    ]
    assert padded[0] > padded[1] > padded[2]


def test_only_the_samples_kept_are_dealt():
    table = LengthTable(("text",), np.arange(10)[:, None])
    schedule = make_schedule(table, Fixed({"text": 10}), batch_size=4, keep=np.arange(10) % 2 == 0)
    assert sorted(schedule.ids[schedule.ids != EMPTY].tolist()) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 2, "window": 0}, "window=0"),
        ({"batch_size": 2, "seed": -1}, "seed=-1"),
        ({"batch_size": 2, "epoch": -1}, "epoch=-1"),
        ({"batch_size": 2, "grouping": "alphabet"}, r"grouping='alphabet'; choose one of \['random', 'length'\]"),
        ({"batch_size": 2, "keep": np.zeros(3, bool)}, "no samples are left"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(PaddingError, match=message):
        make_schedule(LengthTable(("text",), np.ones((3, 1), int)), Fixed({"text": 1}), **options)


@pytest.mark.parametrize("grouping", ["random", "length"])
def test_a_sample_longer_than_every_bucket(grouping):
    table = LengthTable(("text",), np.array([[3]] * 20 + [[9]] + [[3]] * 20))
    with pytest.raises(UncoveredLengthError, match="sample 20: 'text' has 9 positions"):
        make_schedule(table, Fixed({"text": 8}), batch_size=4, grouping=grouping)


def test_meld_keeps_what_the_reference_figures_say(meld_dir):
    """Cost efficiency on MELD train at batch 32, with the cost that the reference figures use."""
    from multimodal_pad.sources import Meld

    table = Meld(meld_dir).lengths
    assert len(table) == 9988

    def efficiency(policy, grouping):
        shapes = make_schedule(table, policy, batch_size=32, grouping=grouping, cost=reference_cost).lengths
        return reference_cost(table.values).sum() / (32 * reference_cost(shapes).sum()), len(np.unique(shapes, axis=0))

    assert efficiency(Fixed.longest(table), "random") == (pytest.approx(0.056, abs=0.001), 1)
    exact, programs = efficiency(Exact(table.modalities), "random")
    assert exact == pytest.approx(0.227, abs=0.01)
    assert programs > 280
    assert efficiency(Ladder.powers_of_two(table), "random") == (
        pytest.approx(0.132, abs=0.01),
        pytest.approx(12, abs=3),
    )
    powers = Ladder.powers_of_two(table, smallest=8)
    assert reference_cost(table.values).sum() / reference_cost(powers.round_up(table.values)).sum() == pytest.approx(
        0.622, abs=0.001
    )
    assert len(np.unique(powers.round_up(table.values), axis=0)) == 46
    ladder, programs = efficiency(powers, "length")
    assert ladder > 0.55, "short batches are filled up, at some cost"
    assert programs <= 46


@given(st.data(), length_tables(), st.integers(1, 5), st.sampled_from(["random", "length"]), st.integers(1, 3))
def test_any_stretch_of_steps_is_that_of_the_whole(data, table, batch_size, grouping, window):
    policy = data.draw(policies(table, batch_size, grouping))
    schedule = make_schedule(table, policy, batch_size=batch_size, grouping=grouping, window=window)
    whole = [(shape.tolist(), ids.tolist()) for shape, ids in schedule]
    assert len(whole) == len(schedule)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole) + 2))
    again = make_schedule(table, policy, batch_size=batch_size, grouping=grouping, window=window)
    assert [(shape.tolist(), ids.tolist()) for shape, ids in again.steps(start, stop)] == whole[start:stop]
    if start < len(whole):
        shape, ids = again[start]
        assert (shape.tolist(), ids.tolist()) == whole[start]
    rows, shapes = schedule.used
    used = {(size, *row) for size, row in zip(rows.tolist(), shapes.tolist(), strict=True)}
    assert used == {(len(ids), *shape) for shape, ids in whole}


def test_the_order_is_the_same_on_every_version_of_numpy():
    """Written down: what other releases of NumPy have to give too, or a run could not be resumed after an upgrade."""
    table = LengthTable(("text",), np.array([[3], [5], [9], [2], [7], [12], [1]]))
    schedule = make_schedule(table, Ladder({"text": [4, 8, 16]}), batch_size=2, seed=7, epoch=3)
    assert schedule.lengths.ravel().tolist() == [8, 4, 4, 16]
    assert schedule.ids.tolist() == [1, 4, 0, -1, 3, 6, 2, 5]


def test_a_memory_mapped_table_stays_one(tmp_path):
    values = Synthetic(1000).lengths.values
    np.save(tmp_path / "lengths.npy", values)
    mapped = LengthTable(("text", "audio", "visual"), np.load(tmp_path / "lengths.npy", mmap_mode="r"))
    assert isinstance(mapped.values, np.memmap) or isinstance(mapped.values.base, np.memmap)
    table = LengthTable(mapped.modalities, values)
    policy = Ladder.powers_of_two(table)
    one, other = (make_schedule(each, policy, batch_size=8) for each in (mapped, table))
    np.testing.assert_array_equal(one.ids, other.ids)
    assert mapped.fingerprint == table.fingerprint


def test_length_grouping_of_too_many_shapes_is_refused(monkeypatch):
    monkeypatch.setattr("multimodal_pad.scheduling.dealing.MOST_KINDS", 5)
    table = LengthTable(("text",), np.arange(7)[:, None])  # 0 is padded as 1 is
    with pytest.raises(PaddingError, match="got samples of 6 shapes for grouping='length', which deals to at most 5"):
        make_schedule(table, Exact(["text"]), batch_size=2)


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["random", "length"])
def test_every_order_of_an_epoch_is_as_likely(grouping):
    """Also of steps within a window: their random bits are not those of the epoch's order."""
    table = LengthTable(("text",), np.ones((3, 1), int))
    orders = Counter(
        tuple(make_schedule(table, Fixed({"text": 1}), batch_size=1, grouping=grouping, seed=seed).ids)
        for seed in range(3000)
    )
    assert len(orders) == 6
    assert min(orders.values()) > 420, "each is expected 500 times, with a standard deviation of 20"


def test_large_seeds_are_seeds_of_their_own():
    assert shuffled(50, 3 * 2**32 + 5, 0).tolist() != shuffled(50, 5, 3).tolist()


@pytest.mark.parametrize(("start", "stop"), [(3, 1), (-1, 2), (0, -1)])
def test_steps_that_cannot_be(start, stop):
    schedule = make_schedule(LengthTable(("text",), np.ones((9, 1), int)), Fixed({"text": 1}), batch_size=2)
    with pytest.raises(PaddingError, match=f"got the steps from {start} up to {stop}"):
        schedule.steps(start, stop)
