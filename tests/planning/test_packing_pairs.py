"""Room for pairs of tiles: enough for every batch of every epoch, told, saved, and an error where it is not."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BucketBatcher, LengthTable, Packed, PackingPlan, PaddingError, StreamBatcher, plan_packing
from multimodal_pad.compiling import warm_up
from multimodal_pad.errors import PlanError, SampleError, UnplannedShapeError
from multimodal_pad.layouts.tile_pairs import NONE
from tests.strategies import make_samples

RNG = np.random.default_rng(1)
TABLE = LengthTable(("text", "audio"), np.stack([RNG.integers(1, 30, 640), RNG.integers(1, 200, 640)], axis=1))
PLAN = plan_packing(TABLE, batch_size=16, tile_pairs=True)


@st.composite
def tables(draw):
    rng, kind = (
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        draw(st.sampled_from(["even", "heavy", "equal"])),
    )
    count, columns = draw(st.integers(1, 200)), draw(st.integers(1, 3))
    lengths = (
        np.exp(3 + 1.2 * rng.standard_normal((count, columns)))
        if kind == "heavy"
        else rng.integers(0, 150, (count, columns))
    )
    if kind == "equal":
        lengths[:] = 70
    return LengthTable(("text", "audio", "visual")[:columns], lengths.astype(int))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(1, 12), st.sampled_from([1, 2, 3]), st.integers(1, 2), st.integers(0, 9))
def test_every_batch_of_other_epochs_has_room(table, size, shares, shapes, seed):
    """Laid out end to end and share by share; laying out raises where there is none."""
    plan = plan_packing(table, batch_size=size * shares, max_shapes=shapes, shares=shares, tile_pairs=True)
    batcher = BucketBatcher(make_samples(table), Packed(plan), seed=seed)
    shapes = set(plan.batch_shapes)
    for one in (batcher, batcher.shard(0, 1, devices=shares)):
        for epoch in range(3, 5):
            for batch in one.epoch(epoch):
                assert batch.shape in shapes
                assert batch.layout == plan.layout


def test_lists_are_some_of_all_pairs():
    batch = next(BucketBatcher(make_samples(TABLE), Packed(PLAN)).epoch(0))
    pairs = batch.tile_pairs["audio", "audio"]
    tiles = -(-len(batch.features["audio"]) // 64)
    used = (pairs[:, 1] != NONE).sum()
    assert tiles <= used <= len(pairs) < tiles**2
    assert used > 0.7 * len(pairs)
    assert "attention: " in str(PLAN)
    assert "pairs of tiles of 64 positions" in str(PLAN)


def test_a_plan_without_lists_is_another_one():
    plain = plan_packing(TABLE, batch_size=16)
    assert plain.room == ()
    assert plain.lengths.tolist() == PLAN.lengths.tolist()
    assert plain.shapes_fingerprint != PLAN.shapes_fingerprint
    assert plain.batch_shapes != PLAN.batch_shapes
    assert "attention" not in str(plain)


def test_too_small_a_budget_raises_and_names_the_attention():
    plan = PackingPlan.from_json(PLAN.to_json())
    tight = json.loads(plan.to_json()) | {"room": [[t, s, more - 60] for t, s, more in plan.room]}
    batcher = BucketBatcher(make_samples(TABLE), Packed(PackingPlan.from_json(json.dumps(tight))))
    with pytest.raises(SampleError, match=r"attention of 'audio' to 'audio' meets \d+ pairs of tiles .* plan again"):
        list(batcher.epoch(0))


def test_a_batch_of_another_plan_raises():
    other = next(BucketBatcher(make_samples(TABLE), Packed(plan_packing(TABLE, batch_size=16))).epoch(0))
    batcher = BucketBatcher(make_samples(TABLE), Packed(PLAN))
    table = warm_up(
        jax.jit(lambda state, batch: (state, batch.lengths["text"].sum())), batcher, np.zeros(1), progress=False
    )
    assert int(table(np.zeros(1), next(batcher.epoch(0)))[1]) > 0
    with pytest.raises(UnplannedShapeError, match=r"the 1 planned ones are packed \(pairs of tiles: .* and not packed"):
        table(np.zeros(1), other)


def test_room_survives_a_file():
    assert PackingPlan.from_json(PLAN.to_json()).room == PLAN.room


@pytest.mark.parametrize("room", [[["text", "audio", 1]], [["audio", "audio", 1.5]] * 4, "all", [[1, 2]], None])
def test_room_that_makes_no_sense_is_named(room):
    text = json.dumps(json.loads(PLAN.to_json()) | {"room": room})
    with pytest.raises(PlanError, match="'room' makes no sense"):
        PackingPlan.from_json(text)


def test_a_stream_promises_no_pairs():
    with pytest.raises(PaddingError, match="tile_pairs=True for a stream"):
        StreamBatcher(make_samples(TABLE), Packed(PLAN))
