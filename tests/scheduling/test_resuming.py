"""A run that stops at any step goes on as if it had not."""

import json
from itertools import islice

import numpy as np
import pytest

from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.scheduling.resuming import VERSION
from tests.helpers.batches import assert_same, flat
from tests.strategies import make_samples

RNG = np.random.default_rng(3)
TABLE = LengthTable(("text", "audio"), RNG.integers(0, 17, (37, 2)))
SAMPLES = make_samples(TABLE)
LADDER = Ladder.powers_of_two(TABLE, 4)


PACKED = Packed(plan_packing(TABLE, batch_size=8, shares=4))
RUNS = {
    "length": {"grouping": "length"},
    "random": {"grouping": "random"},
    "packed": {"policy": PACKED, "batch_size": 8},
}


def make_batcher(policy=LADDER, samples=SAMPLES, **options):
    return BucketBatcher(samples, policy, **{"batch_size": 4, "window": 3, "seed": 5, **options})


def remaining(batcher, epochs):
    return [batch for epoch in range(batcher.position.epoch, epochs) for batch in batcher.epoch(epoch)]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_resumed_at_every_step_what_is_left_is_the_same(run, prefetch):
    whole = remaining(make_batcher(**run), 2)
    states = [make_batcher(**run).state()]
    batcher = make_batcher(**run, prefetch=prefetch)
    for epoch in range(2):
        for _ in batcher.epoch(epoch):
            states.append(json.loads(json.dumps(batcher.state())))
    assert len(states) == len(whole) + 1
    for done, state in enumerate(states):
        resumed = make_batcher(**run, prefetch=2 - prefetch)
        position = resumed.restore(state)
        assert position == (state["epoch"], state["step"])
        assert_same(remaining(resumed, 2), whole[done:])


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_number_of_shards_may_change_on_the_way(run):
    """A step on one shard for four devices, two steps on two for two each, and the rest on four."""
    whole = list(make_batcher(**run).shard(0, 1, devices=4).epoch(0))
    state, done = make_batcher(**run).state(), 0
    for count, steps in ((1, 1), (2, 2), (4, len(whole))):
        shards = [make_batcher(**run, prefetch=0).shard(index, count, devices=4 // count) for index in range(count)]
        for shard in shards:
            shard.restore(state)
        for parts in islice(zip(*(shard.epoch(0) for shard in shards), strict=True), steps):
            for one, *others in zip(flat(whole[done]), *map(flat, parts), strict=True):
                np.testing.assert_array_equal(np.concatenate(others), one)
            done += 1
        states = [shard.state() for shard in shards]
        assert all(other == states[0] for other in states)
        state = states[0]
        assert state["step"] == done
    assert done == len(whole)


def test_what_was_only_made_ahead_is_not_consumed():
    batcher = make_batcher(prefetch=3)
    batches = batcher.epoch(0)
    next(batches)
    assert batcher.position == (0, 1)
    batches.close()


def test_an_epoch_asked_for_again_begins_at_its_start():
    batcher = make_batcher()
    whole = list(batcher.epoch(0))
    batcher.restore({**batcher.state(), "step": 2})
    assert_same(list(batcher.epoch(0)), whole[2:])
    assert_same(list(batcher.epoch(0)), whole)
    batcher.restore({**batcher.state(), "step": 2})
    assert_same(list(batcher.epoch(1)), list(make_batcher().epoch(1)))


def test_restoring_reads_no_sample():
    class Unread(list):
        def __getitem__(self, index):
            raise AssertionError

    batcher = make_batcher(samples=Unread(SAMPLES), lengths=TABLE)
    batcher.restore({**make_batcher().state(), "epoch": 1, "step": 7})
    assert batcher.position == (1, 7)


def test_a_state_is_small_json():
    state = make_batcher().state()
    assert len(json.dumps(state)) < 600
    assert state["version"] == VERSION


OTHER = LengthTable(TABLE.modalities, TABLE.values[::-1])
PLAN, OTHER_PLAN = (plan_shapes(TABLE, max_shapes=k, batch_size=4) for k in (2, 3))


@pytest.mark.parametrize(
    ("made_with", "restored_with", "message"),
    [
        ({"samples": make_samples(OTHER)}, {}, r"the dataset \(fingerprint of its lengths\) is '.*' here and '.*' in"),
        ({"policy": Planned(PLAN)}, {"policy": Planned(OTHER_PLAN)}, r"the plan \(fingerprint of its shapes\)"),
        ({"policy": Ladder({"text": [17], "audio": [8, 17]})}, {}, "bucket lengths"),
        ({"policy": Exact(TABLE.modalities)}, {}, "the policy is 'Ladder' here and 'Exact' in the state"),
        ({"seed": 6}, {}, "the seed is 5 here and 6 in the state"),
        ({"batch_size": 2}, {}, "the batch size is 4 here and 2 in the state"),
        ({"grouping": "random"}, {}, "the grouping is 'length' here and 'random' in the state"),
        ({"window": 2}, {}, "the shuffle window is 3 here and 2 in the state"),
        ({"long_samples": "drop"}, {}, "the option long_samples is 'error' here and 'drop' in the state"),
        ({"cost": lambda x: 999 - x.sum(axis=1)}, {}, "the cost function .* is '.*' here and"),
        ({"seed": 6, "batch_size": 2}, {}, "the batch size is 4 .*; the seed is 5"),
    ],
)
def test_the_state_of_another_run_is_refused_by_what_differs(made_with, restored_with, message):
    state = make_batcher(**made_with).state()
    with pytest.raises(PaddingError, match=message) as caught:
        make_batcher(**restored_with).restore(state)
    if len(made_with) == 1 and "policy" not in made_with:
        assert str(caught.value).count(" here and ") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": VERSION + 1}, f"the version of the schedule is {VERSION} here and {VERSION + 1} in the state"),
        ({"step": 10_000}, "got the state of step 10000, and epoch 0 has"),
        ({"step": -1}, "epoch 0, step -1; both are whole numbers, at least 0"),
        ({"epoch": "0"}, "epoch '0'"),
        ({"step": True}, "step True"),
    ],
)
def test_a_state_that_makes_no_sense(changes, message):
    with pytest.raises(PaddingError, match=message):
        make_batcher().restore({**make_batcher().state(), **changes})


@pytest.mark.parametrize("state", [{}, None, [1], {"epoch": 0, "step": 0}])
def test_something_that_is_no_state(state):
    with pytest.raises(PaddingError, match=r"got a state without \[.*'version'"):
        make_batcher().restore(state)


def test_a_batch_by_itself_is_that_of_the_epoch():
    batcher = make_batcher()
    whole = list(batcher.epoch(1))
    position, samples = batcher.position, batcher.stats.samples
    assert_same([batcher.batch(1, step) for step in reversed(range(len(whole)))], whole[::-1])
    assert (batcher.position, batcher.stats.samples) == (position, samples)
    with pytest.raises(IndexError, match=f"step {len(whole)} of {len(whole)}"):
        batcher.batch(1, len(whole))


def test_exhausted_it_has_nothing_left():
    batcher = make_batcher(Fixed.longest(TABLE))
    list(batcher.epoch(0))
    resumed = make_batcher(Fixed.longest(TABLE))
    resumed.restore(batcher.state())
    assert list(resumed.epoch(0)) == []
    assert len(list(resumed.epoch(1))) == 10


def test_the_ledger_begins_anew_where_a_run_is_resumed():
    batcher = make_batcher()
    for _ in batcher.epoch(0):
        pass
    batcher.restore({**batcher.state(), "step": 8})
    assert batcher.stats.steps == 0
    assert len(list(batcher.epoch(0))) == batcher.stats.steps == len(batcher.schedule(0)) - 8


def test_grouping_at_random_knows_no_window_and_no_cost():
    one = make_batcher(grouping="random", window=9, cost=lambda x: 999 - x.sum(axis=1))
    other = make_batcher(grouping="random")
    assert other.restore(one.state()) == (0, 0)
    assert other.state() == one.state()
