"""A run that is interrupted comes to what it would have come to, bit by bit."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import jax
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import Ladder, PaddingError, StreamBatcher
from multimodal_pad.compiling import CompileLog
from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers import killed
from tests.helpers.training import LAYOUTS, DeepModel, MeanModel, make_batcher, make_samples


class Interrupted(list):
    """A source that is interrupted at one of its reads."""

    def __init__(self, samples, at):
        super().__init__(samples)
        self.reads, self.at = count(), at

    def __getitem__(self, index):
        if next(self.reads) == self.at:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def uninterrupted():
    return {layout: killed.train(None, layout) for layout in LAYOUTS}


def assert_same(one, other):
    for name in ("kernel", "losses", "best"):
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
@pytest.mark.parametrize("at", [60, 300])
def test_interrupted_anywhere_it_goes_on(at, tmp_path, uninterrupted):
    lengths = {"lengths": make_batcher(make_samples(41)).lengths}
    batcher = make_batcher(Interrupted(make_samples(41), at), **lengths)
    other = make_batcher(make_samples(23, seed=1))
    options = {"epochs": 25, "evaluate_on": other, "optimizer": make_optimizer(0.01), "progress": False}
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path) as checkpoints:
        fit(MeanModel(), batcher, **options, checkpoints=checkpoints, save_every=2)
    assert any(checkpoints.directory.iterdir())
    assert_same(killed.train(tmp_path), uninterrupted["padded"])


@pytest.mark.slow
def test_dropout_and_statistics_go_on_where_they_were(tmp_path):
    def run(source, **options):
        batcher = make_batcher(source, lengths=make_batcher(make_samples(41)).lengths)
        model = DeepModel(norm=True, dropout=0.5)
        optimizer = make_optimizer(0.05)
        return fit(model, batcher, epochs=3, evaluate_on=other, optimizer=optimizer, progress=False, **options)

    other = make_batcher(make_samples(23, seed=1))
    whole = run(make_samples(41))
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path) as checkpoints:
        run(Interrupted(make_samples(41), 70), checkpoints=checkpoints, save_every=2)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(make_samples(41), checkpoints=checkpoints)
    assert [record.train_loss for record in resumed.history] == [record.train_loss for record in whole.history]
    assert [record.evaluation for record in resumed.history] == [record.evaluation for record in whole.history]
    for one, other in zip(
        *(jax.tree.leaves(nnx.state(x.model, nnx.Not(nnx.RngKey))) for x in (resumed, whole)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_more_epochs_go_on_where_fewer_ended(tmp_path):
    def train(epochs, **options):
        return fit(MeanModel(), make_batcher(), epochs=epochs, optimizer=make_optimizer(0.1), progress=False, **options)

    with Checkpoints(tmp_path) as checkpoints:
        first = train(2, checkpoints=checkpoints)
        more = train(4, checkpoints=checkpoints)
        again = train(4, checkpoints=checkpoints)
    whole = train(4)
    assert [record.train_loss for record in more.history] == [record.train_loss for record in whole.history]
    assert more.history[:2] == first.history
    assert again.history == more.history
    for result in (more, again):
        np.testing.assert_array_equal(result.model.head.kernel[...], whole.model.head.kernel[...])


@pytest.mark.slow
def test_patience_outlives_an_interruption(tmp_path):
    """Evaluated on flipped labels, epoch 0 stays the best, also of a run that ended after two epochs."""
    flipped = make_batcher([{**sample, "targets": np.int32(1 - sample["targets"])} for sample in make_samples()])
    options = {"evaluate_on": flipped, "patience": 2, "optimizer": make_optimizer(0.1), "progress": False}
    whole = fit(MeanModel(), make_batcher(), epochs=9, **options)
    for epochs in (2, 9, 9):
        with Checkpoints(tmp_path) as checkpoints:
            result = fit(MeanModel(), make_batcher(), epochs=epochs, **options, checkpoints=checkpoints)
    assert (result.best_epoch, len(result.history)) == (whole.best_epoch, len(whole.history)) == (0, 3)
    np.testing.assert_array_equal(result.model.head.kernel[...], whole.model.head.kernel[...])


def test_checkpoints_of_another_run_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        fit(MeanModel(), make_batcher(), epochs=1, checkpoints=checkpoints, progress=False)
        with pytest.raises(PaddingError, match="got the state of another run: the seed is 4 here and 0 in the state"):
            fit(MeanModel(), make_batcher(seed=4), epochs=2, checkpoints=checkpoints, progress=False)
        with pytest.raises(TrainingError, match="another model or optimizer"):
            fit(MeanModel(5), make_batcher(), epochs=2, checkpoints=checkpoints, progress=False)
        with pytest.raises(TrainingError, match="the checkpoints are of a run with another evaluate_on"):
            fit(
                MeanModel(),
                make_batcher(),
                epochs=2,
                evaluate_on=make_batcher(),
                checkpoints=checkpoints,
                progress=False,
            )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with Checkpoints(folder) as checkpoints:
        fit(MeanModel(), make_batcher(), epochs=1, checkpoints=checkpoints, progress=False)
    return folder


@pytest.mark.parametrize(
    ("model", "batcher", "options"),
    [
        (lambda: MeanModel(5), make_batcher, {}),
        (DeepModel, make_batcher, {}),
        (MeanModel, make_batcher, {"loss": lambda outputs, *_: outputs.mean()}),
        (MeanModel, make_batcher, {"evaluate_on": make_batcher()}),
        (MeanModel, lambda: make_batcher(seed=4), {}),
        (MeanModel, lambda: make_batcher(make_samples(30)), {}),
        (MeanModel, lambda: make_batcher(layout="packed"), {}),
        (MeanModel, lambda: StreamBatcher(make_samples(), Ladder({"audio": [4, 8, 12]}), batch_size=6), {}),
    ],
)
def test_another_run_is_refused_before_anything_is_compiled(trained, model, batcher, options):
    before = sorted(path.name for path in trained.iterdir())
    compiled = []
    options = {"epochs": 2, "on_compile": compiled.append, "progress": False, **options}
    with (
        Checkpoints(trained) as checkpoints,
        CompileLog() as log,
        pytest.raises(PaddingError, match=r"another|without"),
    ):
        fit(model(), batcher(), checkpoints=checkpoints, **options)
    assert not compiled
    assert log["train_step"].lowerings == log["eval_step"].lowerings == 0
    assert sorted(path.name for path in trained.iterdir()) == before


def test_a_damaged_checkpoint_refuses_nothing_and_is_told_of_once(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (newest,) = saved_steps_in(tmp_path / "run")
    shutil.copytree(tmp_path / "run" / str(newest), tmp_path / "run" / str(newest + 1))
    (tmp_path / "run" / str(newest + 1) / "record" / "metadata").write_text("{}")
    with (
        Checkpoints(tmp_path / "run") as checkpoints,
        pytest.warns(CheckpointWarning, match=rf"{newest + 1} is damaged .*/{newest} is taken") as warned,
    ):
        result = fit(MeanModel(), make_batcher(), epochs=2, checkpoints=checkpoints, progress=False)
    assert len(warned) == 1
    assert [record.epoch for record in result.history] == [0, 1]


@pytest.mark.parametrize("options", [{"save_every": 0}, {"save_every": 5}])
def test_when_to_save_is_checked(options, tmp_path):
    given = {"checkpoints": Checkpoints(tmp_path)} if options["save_every"] == 0 else {}
    with pytest.raises(TrainingError, match=f"got save_every={options['save_every']}; it is a number of steps"):
        fit(MeanModel(), make_batcher(), epochs=1, **options, **given, progress=False)


def kill_while_it_trains(folder, layout, kills, seed):
    """Start the training, kill it at a random moment, and start it again, until it has been killed often enough."""
    rng = np.random.default_rng(seed)
    command = [sys.executable, "-m", "tests.helpers.killed", str(folder), layout]
    steps = []
    for number in range(kills + 1):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "training\n", process.stderr.read()
            if number == kills:
                assert process.wait(120) == 0, process.stderr.read()
                return steps
            # Any moment from the first checkpoint of this start on, so that each start gets further.
            newest = max(steps, default=0)
            deadline = time.monotonic() + 60
            while max(saved_steps(folder), default=0) <= newest:
                assert process.poll() is None, "it had come to its end before it was killed"
                assert time.monotonic() < deadline, "it saves nothing"
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 2.0 / kills))
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            steps.append(max(saved_steps(folder)))
        finally:
            process.kill()
            process.communicate()
    raise AssertionError


def saved_steps(folder):
    return saved_steps_in(folder / "checkpoints")


def saved_steps_in(folder):
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []


def check_kills(tmp_path, layout, kills, uninterrupted):
    seed = os.getpid()  # another one each time; shown where the test fails
    print(f"seed {seed}")
    steps = kill_while_it_trains(tmp_path, layout, kills, seed)
    assert steps == sorted(set(steps))
    assert len(steps) == kills
    with np.load(tmp_path / "result.npz") as result:
        assert_same(result, uninterrupted[layout])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_twice_it_comes_to_the_same(tmp_path, layout, uninterrupted):
    check_kills(tmp_path, layout, 2, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_twenty_times_it_comes_to_the_same(tmp_path, layout, uninterrupted):
    check_kills(tmp_path, layout, 20, uninterrupted)


def test_a_batcher_that_stands_in_the_middle_is_refused():
    batcher = make_batcher()
    batcher.restore({**batcher.state(), "step": 3})
    with pytest.raises(TrainingError, match=r"got a batcher that was restored to Position\(epoch=0, step=3\)"):
        fit(MeanModel(), batcher, epochs=1, progress=False)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_train_state_is_held_once(resumed, tmp_path):
    """Of parameters and moments, while it trains: those of the state, and nothing of the one it began with."""
    model, seen = MeanModel(), []
    shape = model.head.kernel.shape

    class Counting(list):
        def __getitem__(self, index):
            seen.append(sum(x.shape == shape for x in jax.live_arrays()))
            return super().__getitem__(index)

    lengths = make_batcher().lengths
    with Checkpoints(tmp_path) as checkpoints:
        if resumed:
            fit(model, make_batcher(), epochs=1, checkpoints=checkpoints, progress=False)
        gc.collect()
        before = sum(x.shape == shape for x in jax.live_arrays())
        batcher = make_batcher(Counting(make_samples()), lengths=lengths, prefetch=0)
        fit(model, batcher, epochs=2, checkpoints=checkpoints, progress=False)
    assert max(seen[-12:]) - before <= 3 + 3, "a parameter and two moments, and those of the step under way"
