"""Ctrl-C and SIGTERM: where a training stops, what is saved, and that it goes on as if nothing had been."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from multimodal_pad.training import Stopped, fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.stopping import Interrupted, Stop
from tests.helpers import stopped
from tests.helpers.training import MeanModel, make_batcher

STEPS = 7
"""Of an epoch of ``tests.helpers.stopped``."""


@pytest.fixture(autouse=True)
def each_step_by_itself(monkeypatch):
    """Callbacks are told of each step as soon as it has run, so that a signal of theirs comes there."""
    monkeypatch.setattr("multimodal_pad.training.run.TOLD_SECONDS", -1.0)


@pytest.fixture(scope="module")
def uninterrupted():
    return stopped.train()


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """Status, what was said on stderr, and the checkpoints' folder, of a process that was stopped in each phase."""
    folder, running = tmp_path_factory.mktemp("stopped"), {}
    try:
        for phase in [*stopped.PHASES, stopped.TWICE]:
            command = [sys.executable, "-m", "tests.helpers.stopped", str(folder / phase), phase]
            running[phase] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = {phase: process.communicate(timeout=120)[1] for phase, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return {phase: (process.returncode, said[phase], folder / phase) for phase, process in running.items()}


@pytest.mark.slow
@pytest.mark.parametrize("phase", stopped.PHASES)
def test_sigterm_in_each_phase(phase, terminated, uninterrupted):
    status, said, folder = terminated[phase]
    assert status == 128 + signal.SIGTERM, said
    (line,) = [line for line in said.splitlines() if line.startswith("stopped by SIGTERM")]
    assert "Traceback" not in said
    if phase == "compiling":
        assert line == "stopped by SIGTERM before the first step of this call; there was nothing to save"
        assert not folder.exists()
    else:
        steps = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        assert f"saved in {folder / str(steps)}: the same call goes on from there" in line
        with Checkpoints(folder) as checkpoints:
            record = checkpoints.restore().record
        where = {name: record[name] for name in ("epoch", "step", "steps", "ended")}
        if phase == "training":  # a few steps are under way when one is told of
            assert 9 <= steps < 2 * STEPS
            assert where == {"epoch": 1, "step": steps - STEPS, "steps": steps, "ended": False}
        elif phase == "evaluating":
            assert where == {"epoch": 1, "step": STEPS, "steps": 2 * STEPS, "ended": True}
        else:
            assert where == {"epoch": 2, "step": 0, "steps": 2 * STEPS, "ended": False}
        assert f"at epoch {where['epoch']}, step {where['step']}" in line
    with Checkpoints(folder) as checkpoints:
        resumed = stopped.train(checkpoints)
    for name, value in uninterrupted.items():
        np.testing.assert_array_equal(resumed[name], value)
    assert sorted(path.name for path in folder.iterdir() if not path.name.isdigit()) == []


@pytest.mark.slow
def test_a_second_ctrl_c_while_it_compiles_ends_the_process_with_a_line(terminated):
    status, said, folder = terminated[stopped.TWICE]
    assert status == 130, said
    assert "ended at once, while XLA was compiling, which can't be stopped; nothing was being saved" in said
    assert "Traceback" not in said
    assert "Fatal" not in said
    assert not folder.exists()


def train(on_step=None, **options):
    options = {"epochs": 2, "optimizer": make_optimizer(0.1), "progress": False, **options}
    return fit(MeanModel(), make_batcher(), on_step=on_step, **options)


def at_step(number, do):
    return lambda record: do() if record["steps"] == number else None


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_in_a_line_and_a_checkpoint(tmp_path, capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(Stopped) as raised:
            train(at_step(3, interrupt), checkpoints=checkpoints)
        found = raised.value
        assert (found.code, found.signal_number, found.epoch) == (130, signal.SIGINT, 0)
        assert found.checkpoint == tmp_path / str(found.step)
        assert found.checkpoint.is_dir()
        message = f"stopped by Ctrl-C at epoch 0, step {found.step}; saved in {found.checkpoint}: the same call goes on"
        assert message in capfd.readouterr().err
        resumed = train(checkpoints=checkpoints)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    np.testing.assert_array_equal(resumed.model.head.kernel[...], train().model.head.kernel[...])


def test_without_checkpoints_the_line_says_what_to_do(capfd):
    with pytest.raises(Stopped) as raised:
        train(at_step(3, interrupt))
    assert raised.value.checkpoint is None
    assert "nothing is saved: give fit(checkpoints=...)" in capfd.readouterr().err


def test_in_an_interactive_session_ctrl_c_is_a_keyboard_interrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(KeyboardInterrupt) as raised:
        train(at_step(3, interrupt), checkpoints=checkpoints)
    assert raised.type is KeyboardInterrupt
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_sent_again_changes_nothing(number, tmp_path, capfd):
    """As launchers and schedulers do: the second one comes while the first is being acted on."""

    class Again(Checkpoints):
        saved = False

        def save(self, *arguments, **options):
            super().save(*arguments, **options)
            self.saved = True

        def wait(self):
            super().wait()
            if self.saved:
                signal.raise_signal(number)

    def twice():
        signal.raise_signal(number)
        signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(Stopped) as raised:
        train(at_step(3, twice), checkpoints=Again(tmp_path))
    assert raised.value.code == 128 + number
    assert raised.value.checkpoint.is_dir()
    assert f"stopped by {number.name} at epoch 0" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_ctrl_c_while_it_compiles_is_noted_and_acted_on_between_two_programs():
    compiled = []

    def first(record):
        compiled.append(record)
        interrupt()
        compiled.append("it went on")

    with pytest.raises(Stopped) as raised:
        train(on_compile=first)
    assert raised.value.code == 130
    assert compiled[1] == "it went on"


def test_a_second_signal_acts_at_once():
    def twice():
        interrupt()
        interrupt()
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt) as raised:
        train(at_step(3, twice))
    assert raised.type is KeyboardInterrupt


def test_a_signal_after_the_last_step_leaves_a_run_that_is_over(tmp_path):
    def last(record):
        if record["epoch"] == 1:
            interrupt()

    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(Stopped) as raised:
            train(on_epoch=last, checkpoints=checkpoints)
        assert (raised.value.epoch, raised.value.step) == (2, 0)
        assert len(train(checkpoints=checkpoints).history) == 2


def test_handlers_of_ones_own_stay():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: got.append(number))
    try:
        result = train(at_step(3, stopped.terminate))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]
    assert len(result.history) == 2


def test_in_another_thread_signals_are_left_alone():
    seen, results = [], []

    def note(_record):
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: results.append(train(note)))
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert results
    assert set(seen) == {before}


@pytest.mark.parametrize("at_once", [False, True])
def test_a_wait_is_broken_off_where_it_may_be(at_once):
    reached = []

    def items():
        yield 0
        interrupt()
        reached.append("the end of the wait")
        yield 1
        yield 2

    with Stop() as stop, pytest.raises(Interrupted):
        list(stop.watch(items(), at_once=at_once))
    with pytest.raises(Interrupted), stop.at_once():
        pytest.fail("it was on its way already")
    assert bool(reached) is not at_once


def test_interrupted_between_two_items_the_first_is_kept():
    with Stop() as stop:
        items = stop.watch(iter(range(5)), at_once=True)
        assert [next(items), next(items)] == [0, 1]
        interrupt()
        with pytest.raises(Interrupted):
            next(items)
