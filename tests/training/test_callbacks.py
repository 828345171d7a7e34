"""What callbacks are told, when, and by which thread."""

import threading

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Exact
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher, make_samples

EPOCHS, STEPS = 2, 7


@pytest.fixture(scope="module")
def told():
    """Everything that one training tells of, in order, with the thread; and its result."""
    heard, again = [], []

    def note(record):
        heard.append((record, threading.current_thread()))

    def note_and_spoil(record):
        again.append(dict(record))
        record.clear()

    result = fit(
        MeanModel(),
        make_batcher(),
        epochs=EPOCHS,
        optimizer=make_optimizer(0.1),
        evaluate_on=make_batcher(make_samples(23, seed=1)),
        on_step=[note_and_spoil, note],
        on_epoch=note,
        on_compile=note,
        progress=False,
    )
    return [record for record, _ in heard], {thread for _, thread in heard}, again, result


def of(records, event):
    return [record for record in records if record["event"] == event]


def test_events_come_in_order_in_the_callers_thread(told):
    records, threads, again, _ = told
    assert threads == {threading.main_thread()}
    events = [record["event"] for record in records]
    assert events == ["compile"] * 6 + (["step"] * STEPS + ["epoch"]) * EPOCHS
    assert of(records, "step") == again


def test_what_a_step_tells(told):
    records, _, _, result = told
    steps = of(records, "step")
    assert [record["steps"] for record in steps] == list(range(1, EPOCHS * STEPS + 1))
    assert [(record["epoch"], record["step"]) for record in steps] == [
        (e, s) for e in range(EPOCHS) for s in range(STEPS)
    ]
    batches = [batch for epoch in range(EPOCHS) for batch in make_batcher().epoch(epoch)]
    assert [record["shape"] for record in steps] == [str(batch.shape) for batch in batches]
    assert [record["samples"] for record in steps] == [int(batch.sample_mask.sum()) for batch in batches]
    shares = [batch.lengths["audio"].sum() / batch.shape.positions for batch in batches]
    assert [record["padding_efficiency"] for record in steps] == pytest.approx(shares)
    for epoch, record in enumerate(result.history):
        of_epoch = [step for step in steps if step["epoch"] == epoch]
        mean = np.average([step["loss"] for step in of_epoch], weights=[step["samples"] for step in of_epoch])
        assert record.train_loss == pytest.approx(mean)
    assert all(min(step["grad_norm"], step["samples_per_second"]) > 0 <= step["wait_seconds"] for step in steps)
    assert all(type(value) in (int, float, str) for step in steps for value in step.values())


def test_what_an_epoch_tells(told):
    records, _, _, result = told
    for record, kept in zip(of(records, "epoch"), result.history, strict=True):
        assert record == {"event": "epoch", **kept.figures()}
        assert record["eval_accuracy"] == kept.evaluation["accuracy"]
        forecast = make_batcher().forecast(kept.epoch)
        assert record["padding_efficiency"] == pytest.approx(forecast.position_efficiency["total"])
        assert record["shapes"] == len(forecast.shapes) == 3
        assert record["steps"] == STEPS * (kept.epoch + 1)
        assert 0 <= record["wait_seconds"] < record["seconds"]
    assert [record for record, kept in enumerate(result.history) if kept.best][-1] == result.best_epoch


def test_what_a_compilation_tells(told):
    records = of(told[0], "compile")
    assert sorted((record["name"], record["shape"]) for record in records) == sorted(
        (name, str(shape))
        for name, batcher in (("train_step", make_batcher()), ("eval_step", make_batcher(make_samples(23, seed=1))))
        for shape in batcher.batch_shapes(EPOCHS)
    )
    assert all(record["seconds"] > 0 and record["device_bytes"] > 0 for record in records)


@pytest.mark.slow
def test_exact_padding_tells_of_each_shape_that_it_meets():
    heard = []
    exact = BucketBatcher(make_samples(), Exact(["audio"]), batch_size=6)
    fit(MeanModel(), exact, epochs=1, on_compile=heard.append, on_step=heard.append, progress=False)
    told = [record["shape"] for record in of(heard, "compile")]
    assert set(told) == {record["shape"] for record in of(heard, "step")}
    assert len(told) == len(exact.stats.shapes)


@pytest.mark.parametrize("event", ["on_step", "on_epoch", "on_compile"])
def test_what_a_callback_raises_ends_the_run_with_its_name(event):
    def watch_the_disk(_record):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full") as raised:
        fit(MeanModel(), make_batcher(), epochs=1, **{event: watch_the_disk}, progress=False)
    (note,) = raised.value.__notes__
    assert note.startswith(f"in the callback {event}=")
    assert "watch_the_disk, of " in note


@pytest.mark.parametrize("given", [3, "loss", [print, None], []])
def test_what_can_not_be_called_is_refused(given):
    with pytest.raises(TrainingError, match=r"got on_epoch=.*; give a function of a dict, or a list of them"):
        fit(MeanModel(), make_batcher(), epochs=1, on_epoch=given, progress=False)


def test_figures_of_an_epoch_outlive_an_interruption(tmp_path):
    def stop_once(record):
        if record["steps"] == 12:
            raise RuntimeError("so far")

    def run(**options):
        return fit(MeanModel(), make_batcher(), epochs=2, optimizer=make_optimizer(0.1), progress=False, **options)

    heard = []
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RuntimeError):
            run(on_step=stop_once, checkpoints=checkpoints, save_every=2)
        resumed = run(on_step=heard.append, checkpoints=checkpoints)
    saved_at = heard[0]["steps"] - 1
    assert saved_at % 2 == 0
    assert STEPS < saved_at < 12
    assert [record["steps"] for record in heard] == list(range(saved_at + 1, EPOCHS * STEPS + 1))
    for one, other in zip(resumed.history, run().history, strict=True):
        assert (one.shapes, one.padding_efficiency, one.steps) == (other.shapes, other.padding_efficiency, other.steps)


def test_all_steps_before_an_error_are_told(monkeypatch):
    monkeypatch.setattr("multimodal_pad.training.run.TOLD_SECONDS", 1e9)  # of none by itself
    samples, told = make_samples(41), []
    bad = int(make_batcher(samples).schedule(0)[4][1][0])  # in the fifth batch
    samples[bad] = {**samples[bad], "audio": np.full_like(samples[bad]["audio"], np.nan)}
    with pytest.raises(TrainingError, match="epoch 0, step 4: the loss is nan"):
        fit(MeanModel(), make_batcher(samples), epochs=1, on_step=told.append, progress=False)
    assert [record["step"] for record in told] == [0, 1, 2, 3]
