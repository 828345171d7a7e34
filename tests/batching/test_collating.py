"""Samples that a loader draws, in the shapes of a plan: pad_samples(samples, plan), pack_samples and Collator."""

import pickle

import numpy as np
import pytest

from multimodal_pad import (
    BatchBudget,
    Collator,
    Exact,
    Fixed,
    Ladder,
    PaddingError,
    Planned,
    pack_samples,
    pad_samples,
    plan_packing,
    plan_shapes,
    unpack,
    unpad,
)
from multimodal_pad.errors import SampleError, UncoveredLengthError

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(0, 12, (40, 2))
SAMPLES = [
    {"text": np.arange(t, dtype=np.int32), "audio": np.full((a, 3), i, np.float32), "targets": np.int32(i)}
    for i, (t, a) in enumerate(LENGTHS.tolist())
]
RANDOM = plan_shapes(SAMPLES, max_shapes=4, batch_size=8, grouping="random")
LENGTH = plan_shapes(SAMPLES, max_shapes=4, batch_size=8)
PACKING = plan_packing(SAMPLES, batch_size=8, alignment=1)


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for key, array in other.items():
            np.testing.assert_array_equal(one[key], array)


@pytest.mark.parametrize("plan", [RANDOM, Planned(RANDOM), Ladder({"text": [4, 16], "audio": [16]})], ids=str)
def test_any_samples_get_the_cheapest_shape_that_holds_them(plan):
    policy = Planned(plan) if plan is RANDOM else plan
    options = {} if policy.plan else {"batch_size": 8}
    for draw in range(20):
        chosen = np.random.default_rng(draw).permutation(40)[: 1 + draw % 8]
        samples = [SAMPLES[i] for i in chosen]
        batch = pad_samples(samples, plan, ids=chosen.tolist(), with_ids=True, **options)
        longest = np.maximum(LENGTHS[chosen].max(axis=0), 1)
        rounded = dict(zip(("text", "audio"), policy.round_up(longest[None])[0].tolist(), strict=True))
        assert (batch.shape.batch_size, dict(batch.shape.lengths)) == (8, rounded)
        assert batch.ids.tolist() == [*chosen, *[-1] * (8 - len(chosen))]
        same(unpad(batch), samples)


def test_exact_and_open_batch_sizes_are_as_the_samples_are():
    assert str(pad_samples(SAMPLES[:3], Exact(["text", "audio"])).shape).startswith("3 x (audio ")
    assert pad_samples(SAMPLES[:3], Fixed({"audio": 12, "text": 11}), batch_size=5).shape.batch_size == 5


def test_a_sample_that_is_too_long_is_named():
    long = {"text": np.zeros(99, np.int32), "audio": np.zeros((3, 3), np.float32), "targets": np.int32(0)}
    with pytest.raises(
        UncoveredLengthError, match=r"sample 2: 'text' has 99 positions and the nearest planned shape is"
    ):
        pad_samples([*SAMPLES[:2], long], RANDOM)
    with pytest.raises(UncoveredLengthError, match="sample 71: 'text' has 99 positions and the largest capacity is"):
        pack_samples([SAMPLES[0], long], PACKING, ids=[70, 71])


def test_samples_that_only_together_have_no_shape():
    plan = plan_shapes({"text": [1, 9], "audio": [9, 1]}, max_shapes=2, batch_size=2)
    samples = [{"text": np.zeros(t), "audio": np.zeros(a)} for t, a in ((1, 9), (9, 1))]
    assert {pad_samples([sample], plan).shape for sample in samples} == set(plan.batch_shapes)
    with pytest.raises(UncoveredLengthError, match=r"each of the 2 samples \(0, 1\) has a shape.*grouping=\"random\""):
        pad_samples(samples, plan)


def test_more_samples_than_rows():
    with pytest.raises(SampleError, match=r"got 9 samples for a batch of 8 rows.*batch_size=8"):
        pad_samples(SAMPLES[:9], RANDOM)
    with pytest.raises(PaddingError, match="got batch_size=4 with a plan of batches of 8; leave it out"):
        pad_samples(SAMPLES[:2], RANDOM, batch_size=4)


def test_of_a_batch_budget_a_shape_with_enough_rows_is_taken():
    plan = plan_shapes({"text": [2] * 20 + [10] * 4}, max_shapes=2, batch_size=BatchBudget(40, multiple=4))
    short, long = plan.batch_sizes.tolist()
    assert short > long == 4
    one = {"text": np.zeros(2)}
    assert str(pad_samples([one] * short, plan).shape) == f"{short} x (text 2)"
    assert str(pad_samples([one] * 3 + [{"text": np.zeros(9)}], plan).shape) == "4 x (text 10)"
    with pytest.raises(SampleError, match="got 5 samples for a batch of 4 rows"):
        pad_samples([one] * 4 + [{"text": np.zeros(9)}], plan)


def test_packed_samples_fill_the_capacity():
    few = SAMPLES[:5]
    batch = pack_samples(few, PACKING)
    assert batch.shape == PACKING.batch_shapes[0]
    same(unpack(batch), few)
    longest = sorted(SAMPLES, key=lambda sample: -len(sample["text"]))[:8]
    with pytest.raises(
        UncoveredLengthError, match=r"each of the 8 samples .* all together have none.*give fewer samples"
    ):
        pack_samples(longest, PACKING)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad_samples(SAMPLES[:2], PACKING), "whose batches are packed and not padded; use pack_samples"),
        (lambda: pack_samples(SAMPLES[:2], RANDOM), "whose batches are padded and not packed; use pad_samples"),
        (lambda: pad_samples(SAMPLES[:2], 8), "got int for the plan; give a ShapePlan"),
        (lambda: pad_samples(SAMPLES[:2], RANDOM, pad_to={"text": 9}), "got pad_to beside a plan"),
        (lambda: pack_samples(SAMPLES[:2], PACKING, capacity={"text": 9}), "got capacity beside a plan"),
        (lambda: pad_samples(SAMPLES[:2], RANDOM, modalities=["text"]), r"got modalities=\['text'\] with a plan of"),
        (lambda: Collator(8), "got int for the policy; give a policy"),
    ],
)
def test_what_does_not_go_together(call, message):
    with pytest.raises(PaddingError, match=message):
        call()


@pytest.mark.parametrize("plan", [RANDOM, LENGTH, PACKING], ids=repr)
def test_a_collator_goes_to_another_process(plan):
    collate = pickle.loads(pickle.dumps(Collator(plan, pad_value=7)))
    batch = collate(SAMPLES[:1])
    assert batch.shape in plan.batch_shapes
    assert int(batch.features["text"].ravel()[-1]) == 7
    assert len(pickle.dumps(Collator(plan))) < 4000, "the lengths stay here"


def test_a_cost_that_cannot_be_pickled_stays_here_too():
    plan = plan_shapes(SAMPLES, max_shapes=2, batch_size=8, cost=lambda lengths: lengths.sum(axis=1))
    assert pickle.loads(pickle.dumps(Collator(plan)))(SAMPLES[:1]).shape.batch_size == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_of_pytorch(workers):
    data = pytest.importorskip("torch.utils.data")
    collate = Collator(RANDOM) if workers else (lambda samples: pad_samples(samples, RANDOM))
    spawned = {"multiprocessing_context": "spawn", "num_workers": workers} if workers else {}  # JAX has threads here
    loader = data.DataLoader(SAMPLES, batch_size=8, shuffle=True, collate_fn=collate, **spawned)
    targets = []
    for batch in loader:
        assert batch.shape in RANDOM.batch_shapes
        targets += batch.targets[batch.sample_mask].tolist()
        same(unpad(batch), [SAMPLES[i] for i in batch.targets[batch.sample_mask].tolist()])
    assert sorted(targets) == list(range(40))
