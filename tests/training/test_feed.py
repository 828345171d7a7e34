"""Whatever gives batches trains to the same weights as the plain loop over them."""

import json

import numpy as np
import optax
import pytest

from multimodal_pad import BucketBatcher, Fixed, Ladder, PaddingError, StreamBatcher
from multimodal_pad.compiling import StepTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, cross_entropy, evaluate, fit
from multimodal_pad.training.any_batches import as_feed
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher, make_samples

grain = pytest.importorskip("grain")

from multimodal_pad.grain import BatchIterDataset, BatchMapDataset, StreamIterDataset  # noqa: E402

LADDER = Ladder({"audio": [4, 8, 12]})
OPTIMIZER = optax.sgd(0.1)
STREAM = {"batch_size": 6, "buffer": 12, "seed": 3}


def stream(samples=None, **options):
    return StreamBatcher(samples or make_samples(), LADDER, **{**STREAM, **options})


def grain_stream(**options):
    samples = grain.MapDataset.source(make_samples()).to_iter_dataset()
    return StreamIterDataset(samples, LADDER, **{**STREAM, **options})


KINDS = {
    "batcher": (make_batcher, lambda epoch: make_batcher().epoch(epoch)),
    "stream": (stream, lambda epoch: stream().epoch(epoch)),
    "grain batches": (lambda: BatchIterDataset(make_batcher()), lambda epoch: make_batcher().epoch(epoch)),
    "grain map": (lambda: BatchMapDataset(make_batcher(), epochs=2), lambda epoch: make_batcher().epoch(epoch)),
    "grain stream": (grain_stream, lambda epoch: stream().epoch(epoch)),
}


def train(batches, **options):
    options = {"epochs": 2, "optimizer": OPTIMIZER, "progress": False, **options}
    return fit(MeanModel(), batches, **options)


def kernel(result):
    return np.asarray(result.model.head.kernel[...])


@pytest.fixture(scope="module")
def plain_table():
    return StepTable(TrainStep(MeanModel(), OPTIMIZER, cross_entropy).train_step)


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_as_a_plain_loop_over_the_same_batches(kind, plain_table):
    make, epoch = KINDS[kind]
    state = TrainStep(MeanModel(), OPTIMIZER, cross_entropy).state
    for number in range(2):
        for batch in epoch(number):
            state, _ = plain_table(state, batch)
    np.testing.assert_allclose(kernel(train(make())), state.params["head"]["kernel"], atol=1e-6)


def test_the_orders_of_passes_differ():
    first, second = ([batch.lengths["audio"].tolist() for batch in stream().epoch(epoch)] for epoch in (0, 1))
    assert first != second
    again = grain_stream()
    assert [batch.lengths["audio"].tolist() for batch in again.epoch(1)] == second
    assert [batch.lengths["audio"].tolist() for batch in again] == first


def interrupted_at(number):
    def callback(record):
        if record["steps"] == number:
            raise RuntimeError("so far")

    return callback


@pytest.mark.parametrize(
    ("kind", "options"), [("grain stream", {"save_every": 2}), ("grain batches", {"save_every": 2}), ("stream", {})]
)
def test_it_goes_on_where_it_was(kind, options, tmp_path):
    """A stream of ours begins the second pass anew; Grain's goes on within it."""
    make, _ = KINDS[kind]
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RuntimeError, match="so far"):
            train(make(), on_step=interrupted_at(12), checkpoints=checkpoints, **options)
        saved = checkpoints.restore()
        assert saved.record["epoch"] == 1
        assert bool(saved.record["step"]) is (kind != "stream")
        json.dumps(saved.record)
        resumed = train(make(), checkpoints=checkpoints)
    whole = train(make())
    np.testing.assert_array_equal(kernel(resumed), kernel(whole))
    assert [record.train_loss for record in resumed.history] == [record.train_loss for record in whole.history]


def test_checkpoints_of_another_stream_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        train(stream(), epochs=1, checkpoints=checkpoints)
        with pytest.raises(PaddingError, match="of a run on another stream: seed is 4 here and 3 there"):
            train(stream(seed=4), checkpoints=checkpoints)
        with pytest.raises(PaddingError, match="got a state without"):
            train(make_batcher(), checkpoints=checkpoints)


def test_an_evaluation_over_a_stream_is_that_over_a_batcher():
    step = TrainStep(MeanModel(), OPTIMIZER, cross_entropy)
    table = StepTable(step.eval_step)
    kinds = [make_batcher(), stream(), grain_stream(), BatchIterDataset(make_batcher())]
    first, *others = (evaluate(table, step.state, batches) for batches in kinds)
    for other in others:
        assert other == pytest.approx(first, abs=1e-6)
    result = train(make_batcher(), evaluate_on=stream())
    assert [set(record.evaluation) for record in result.history] == [{"loss", "accuracy", "weighted_f1"}] * 2


class Loader:
    """As torch's."""

    def __init__(self):
        self.dataset = make_samples()

    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            make_samples(3),
            r"batcher: got a list of dict: of samples make BucketBatcher\(samples, plan\); give a Bucket",
        ),
        (Loader(), r"got a Loader, which makes batches of its own: give its dataset to BucketBatcher\(dataset, plan\)"),
        (iter(make_samples(3)), r"list_iterator: of an iterable of samples make StreamBatcher\(samples, plan\)"),
        (grain.MapDataset.source(make_samples(3)), "a MapDataset of samples is a source for BucketBatcher"),
        (None, "batcher: got builtins.NoneType; give a BucketBatcher, a StreamBatcher, or a dataset of"),
    ],
    ids=["list", "loader", "iterator", "grain", "none"],
)
def test_other_things_are_named(batches, message):
    with pytest.raises(TrainingError, match=message):
        train(batches)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        (lambda: stream(iter(make_samples())), {}, "an iterator, which can be read once, to be read 2 times; give"),
        (lambda: BatchIterDataset(make_batcher(), epochs=3), {}, "BatchIterDataset of 3 epochs where 2 are asked for"),
        (lambda: BatchMapDataset(make_batcher(), first_epoch=1), {}, "BatchMapDataset with first_epoch; leave it out"),
        (stream, {"save_every": 3}, r"got save_every=3 and a StreamBatcher, which .*StreamIterDataset, which can"),
    ],
    ids=["iterator", "epochs", "first epoch", "save every"],
)
def test_what_can_not_be_had_is_told_before_anything_is_compiled(batches, options, message, tmp_path):
    with pytest.raises(TrainingError, match=message):
        train(batches(), checkpoints=Checkpoints(tmp_path), **options)


def test_an_iterator_is_read_once_in_one_epoch():
    assert train(stream(iter(make_samples())), epochs=1).history[0].steps == 7
    with pytest.raises(TrainingError, match="evaluate_on: got a stream of an iterator"):
        train(make_batcher(), evaluate_on=stream(iter(make_samples())))


def test_names_of_what_is_evaluated():
    with pytest.raises(TrainingError, match="evaluate_on: got a list"):
        train(make_batcher(), evaluate_on=make_samples(2))


def test_a_feed_stays_what_it_is():
    feed = as_feed(BucketBatcher(make_samples(3), Fixed({"audio": 12}), batch_size=3))
    assert as_feed(feed) is feed
