"""`for batch in batcher` and `len(batcher)`: the next epoch, of batchers, shards and restored ones."""

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Fixed, Ladder, Packed, StreamBatcher, plan_packing, plan_shapes

SAMPLES = [{"text": np.full(1 + i % 7, i, np.int32), "targets": np.int32(i)} for i in range(30)]
LADDER = Ladder({"text": [2, 4, 8]})


def a_batcher(**options):
    return BucketBatcher(SAMPLES, LADDER, **{"batch_size": 4, "with_ids": True, **options})


def ids(batches):
    return [batch.ids.tolist() for batch in batches]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_each_loop_is_the_next_epoch(prefetch):
    batcher, by_number = a_batcher(prefetch=prefetch), a_batcher()
    for epoch in range(3):
        steps = len(batcher)
        found = ids(batcher)
        assert found == ids(by_number.epoch(epoch))
        assert len(found) == steps
        assert batcher.position == (epoch, steps)
    assert ids(a_batcher()) != ids(by_number.epoch(1))


def test_the_length_holds_through_a_loop_and_as_a_hint_of_a_list():
    batcher = a_batcher()
    seen = [(len(batcher), batch.ids[0]) for batch in batcher]
    assert {steps for steps, _ in seen} == {len(seen)}
    assert len(list(batcher)) == len(a_batcher().schedule(1))
    assert batcher.position.epoch == 1


def test_an_epoch_that_was_left_is_over():
    batcher = a_batcher()
    for _ in batcher:
        break
    assert len(batcher) == len(batcher.schedule(1))
    assert ids(batcher) == ids(a_batcher().epoch(1))
    next(iter(batcher))
    assert ids(batcher) == ids(a_batcher().epoch(3))


def test_an_epoch_asked_for_by_its_number_counts():
    batcher = a_batcher()
    list(batcher.epoch(4))
    assert ids(batcher) == ids(a_batcher().epoch(5))


@pytest.mark.parametrize("taken", [0, 3, "all"])
def test_after_restoring_what_is_left_comes_first(taken):
    before, whole = a_batcher(), ids(a_batcher().epoch(1))
    taken = len(whole) if taken == "all" else taken
    list(before)
    loop = before.epoch(1)
    for _ in range(taken):
        next(loop)
    after = a_batcher()
    after.restore(before.state())
    left = ids(after) if taken < len(whole) else []
    assert left == whole[taken:]
    assert ids(after) == ids(a_batcher().epoch(2))


def test_the_length_of_what_is_left():
    before, after = a_batcher(), a_batcher()
    loop = iter(before)
    for _ in range(3):
        next(loop)
    after.restore(before.state())
    steps = len(after.schedule(0))
    assert len(after) == steps - 3
    assert [len(after) for _ in after] == [steps - 3] * (steps - 3)
    assert len(after) == len(after.schedule(1))


def test_shards_are_iterated_alike():
    whole = a_batcher()
    parts = [a_batcher().shard(index, 2) for index in range(2)]
    for _ in range(2):
        assert [len(part) for part in parts] == [len(whole)] * 2
        rows = [ids(part) for part in parts]
        assert [one + other for one, other in zip(*rows, strict=True)] == ids(whole)


def test_a_batcher_is_true_and_makes_no_schedule_to_say_so():
    batcher = BucketBatcher(SAMPLES[6:7], Fixed({"text": 2}), batch_size=2, long_samples="drop")
    assert batcher
    with pytest.raises(ValueError, match="no samples are left to deal"):
        len(batcher)


def test_what_they_are_in_a_line():
    plan = plan_shapes(SAMPLES, max_shapes=2, batch_size=4)
    packing = plan_packing(SAMPLES, batch_size=4, shares=2)
    found = {
        repr(a_batcher()): "BucketBatcher(30 samples, Ladder({'text': [2, 4, 8]}), batches of 4, length grouping)",
        repr(BucketBatcher(SAMPLES, plan)): f"BucketBatcher(30 samples, Planned(2 shapes, "
        f"{plan.shapes_fingerprint[:12]}), length grouping)",
        repr(BucketBatcher(SAMPLES, packing).shard(1, 2)): f"BucketBatcher(30 samples, {Packed(packing)!r}, balanced "
        "grouping, shard 1 of 2)",
        repr(StreamBatcher(iter(SAMPLES), plan, buffer=64)): f"StreamBatcher(list_iterator, Planned(2 shapes, "
        f"{plan.shapes_fingerprint[:12]}), buffer of 64)",
    }
    assert list(found) == list(found.values())
