"""A layout of one's own in one file, positions before samples: all but the model takes it like the padded one."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BatchShape,
    BatchSpec,
    BucketBatcher,
    LengthTable,
    PaddingError,
    Planned,
    StreamBatcher,
    pad_samples,
    plan_shapes,
)
from multimodal_pad.compiling import CompileLog, StepTable, calibrate, forbid_compiles, warm_up
from multimodal_pad.errors import UnplannedShapeError
from multimodal_pad.layouts.layout import Layout, layout_named, named_layout
from multimodal_pad.layouts.padded import PADDED
from tests.helpers.batches import assert_same_samples
from tests.strategies import make_samples

TABLE = LengthTable(("text", "audio"), np.array([[1 + i % 7, 3 * (i % 11)] for i in range(50)]))


class TimeMajorBatch(NamedTuple):
    features: dict
    lengths: dict
    targets: np.ndarray | None
    sample_mask: np.ndarray
    ids: np.ndarray | None = None
    position_targets: dict | None = None

    @property
    def layout(self):
        return TIME_MAJOR

    @property
    def shape(self):
        return BatchShape.of(len(self.sample_mask), {m: len(x) for m, x in self.features.items()}, TIME_MAJOR)

    @property
    def nbytes(self):
        return sum(x.nbytes for x in (*self.features.values(), *self.lengths.values(), self.sample_mask))


def turned(batch):
    return {name: np.swapaxes(x, 0, 1) for name, x in batch.features.items()}


@dataclass(frozen=True)
class TimeMajor(Layout):
    name: str = "time-major"

    def lay_out(self, arrays, samples, shape, **options):
        padded = PADDED.lay_out(arrays, samples, shape._replace(layout=PADDED), **options)
        return TimeMajorBatch(turned(padded), *padded[1:])

    def take_apart(self, batch):
        return PADDED.take_apart(pad_samples([{"text": []}])._replace(features=turned(batch), **rest(batch)))

    def struct(self, example, shape, like):
        rows, lengths = shape.batch_size, dict(shape.lengths)
        return TimeMajorBatch(
            {m: like(x, lengths[m], rows) for m, x in example.features.items()},
            {m: like(x, rows) for m, x in example.lengths.items()},
            None if example.targets is None else like(example.targets, rows),
            like(example.sample_mask, rows),
        )

    def full_lengths(self, shape):
        return PADDED.full_lengths(shape)

    def positions(self, batch_sizes, lengths):
        return PADDED.positions(batch_sizes, lengths)

    def price(self, batch_sizes, lengths, cost):
        return 2 * PADDED.price(batch_sizes, lengths, cost)

    def share(self, shape, count):
        return PADDED.share(shape, count)

    def describe(self, shape):
        return f"{shape.batch_size} turned " + ", ".join(f"{m} {n}" for m, n in shape.lengths)


def rest(batch):
    return {"lengths": batch.lengths, "targets": batch.targets, "sample_mask": batch.sample_mask, "ids": batch.ids}


TIME_MAJOR = named_layout(TimeMajor())


class Turned(Planned):
    layout = TIME_MAJOR


def make_policy():
    return Turned(plan_shapes(TABLE, max_shapes=3, batch_size=6))


def total(state, batch):
    return state + jnp.where(batch.features["audio"] > 9, 0, batch.features["audio"]).sum()


@pytest.mark.parametrize("make", [BucketBatcher, StreamBatcher])
def test_batches_hold_every_sample_once(make):
    samples = make_samples(TABLE)
    batcher = make(samples, make_policy())
    batches = list(batcher.epoch(0) if make is BucketBatcher else batcher)
    for batch in batches:
        longest, rows = batch.features["audio"].shape[:2]
        assert (rows, longest) == (batch.shape.batch_size, dict(batch.shape.lengths)["audio"])
    found = [sample for batch in batches for sample in TIME_MAJOR.take_apart(batch)]
    assert_same_samples(sorted(found, key=lambda sample: int(sample["targets"])), samples)
    assert batcher.stats.samples == 50
    assert batcher.stats.cost_efficiency == pytest.approx(batcher.stats.position_efficiency["total"] / 2)


def test_what_compiles_is_compiled_for_this_layout():
    batcher = BucketBatcher(make_samples(TABLE), make_policy())
    table = warm_up(total, batcher, jnp.zeros(()), progress=False)
    assert str(table.planned[0]).startswith("6 turned audio")
    with CompileLog() as log, forbid_compiles():
        for batch in batcher.epoch(0):
            table(jnp.zeros(()), batch)
    assert log.total.backend_compiles == 0
    padded = next(BucketBatcher(make_samples(TABLE), Planned(batcher.policy.plan)).epoch(0))
    with pytest.raises(UnplannedShapeError, match="the 3 planned ones are time-major and not padded"):
        table(jnp.zeros(()), padded)
    with pytest.raises(PaddingError, match="got a time-major batch and a padded shape"):
        warm_up(total, BatchSpec([padded.shape], batcher.example()), jnp.zeros(()), progress=False)


def test_a_step_is_timed_and_priced_by_the_layout():
    batcher = BucketBatcher(make_samples(TABLE), make_policy())
    found = calibrate(StepTable(total), batcher, jnp.zeros(()), repeats=1)
    assert [shape.layout for shape in found.shapes] == [TIME_MAJOR] * 3
    shape = found.shapes[0]
    assert shape.price(lambda rows: rows.sum(axis=1), TABLE.modalities) == 2 * shape.positions


def test_shards_and_a_resumed_run():
    batcher = BucketBatcher(make_samples(TABLE), make_policy())
    for batch, *parts in zip(batcher.epoch(0), *(batcher.shard(i, 3).epoch(0) for i in range(3)), strict=True):
        np.testing.assert_array_equal(
            np.concatenate([part.features["audio"] for part in parts], axis=1), batch.features["audio"]
        )
    state = batcher.state()
    other = BucketBatcher(make_samples(TABLE), make_policy())
    assert other.restore(state) == batcher.position


def test_a_layout_is_known_by_its_name():
    assert BatchShape.of(2, {"text": 3}, "time-major").layout is layout_named("time-major") is TIME_MAJOR
    with pytest.raises(PaddingError, match="got layout='heap'; choose one of"):
        BatchShape.of(2, {"text": 3}, "heap")
