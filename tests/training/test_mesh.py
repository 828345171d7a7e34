"""Several devices in one process, and several processes."""

import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from multimodal_pad.errors import TrainingError
from multimodal_pad.training import DataMesh, fit
from tests.helpers.devices import cpu_environment
from tests.helpers.pair import train
from tests.helpers.training import LAYOUTS, MeanModel, make_batcher, make_samples

TWO_DEVICES = """
import jax, optax, numpy as np
from multimodal_pad import BucketBatcher, Fixed, LengthTable, Packed, StreamBatcher, plan_packing
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import DataMesh, fit
from tests.helpers.pair import train
from tests.helpers.training import LAYOUTS, MeanModel, make_samples

def naive(outputs, targets, sample_mask):
    # Not a number where no row is real, as on the second device at the last of 37 samples.
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return (losses * sample_mask).sum() / sample_mask.sum()


assert jax.device_count() == 2
for layout in LAYOUTS:
    np.savez("{folder}/" + layout + ".npz", **train(layout))
try:
    DataMesh().share(BucketBatcher(make_samples(), Fixed({{"audio": 12}}), batch_size=5))
except TrainingError as error:
    assert "batcher: got batches of 5 rows for 2 shards; give a number of rows that 2 divides" in str(error)
else:
    raise SystemExit("five rows went onto two devices")
fit(MeanModel(), BucketBatcher(make_samples(37), Fixed({{"audio": 12}}), batch_size=6), epochs=1, loss=naive)
batcher = BucketBatcher(make_samples(), Fixed({{"audio": 12}}), batch_size=5)
fit(MeanModel(), batcher, epochs=1, devices=jax.devices()[1:], progress=False)

def of_stream(policy, rows=6, **options):
    batches = StreamBatcher(make_samples(37), policy, batch_size=rows, buffer=12)
    return fit(MeanModel(), batches, epochs=1, evaluate_on=batches, progress=False, **options).model.head.kernel[...]

one, both = of_stream(Fixed({{"audio": 12}}), devices=jax.devices()[:1]), of_stream(Fixed({{"audio": 12}}))
np.testing.assert_allclose(one, both, atol=1e-6)
packed = Packed(plan_packing(LengthTable.measure(make_samples(37)), batch_size=6, shares=2))
for policy, rows, message in (
    (Fixed({{"audio": 12}}), 5, "batcher: got batches of 5 rows for 2 shards"),
    (packed, None, "batcher: got a packed stream for 2 devices, which is not shared out; give one device"),
):
    try:
        of_stream(policy, rows)
    except TrainingError as error:
        assert message in str(error), error
    else:
        raise SystemExit(f"not refused: {{message}}")
print("well")
"""

ENDS_WITHIN = 25.0
"""Seconds: the heartbeats of ``tests.helpers.pair`` time out after 10, and so does its barrier at the end."""


def assert_trained_alike(one, other):
    np.testing.assert_allclose(one["kernel"], other["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def one_cpu(tmp_path_factory):
    """What one CPU comes to: in this process, or where its default device is another, in one of its own."""
    if jax.default_backend() == "cpu":
        return {layout: train(layout) for layout in LAYOUTS}
    folder = tmp_path_factory.mktemp("one")
    code = "import sys, numpy as np; from tests.helpers.pair import train; np.savez(sys.argv[1], **train(sys.argv[2]))"
    for layout in LAYOUTS:
        command = [sys.executable, "-c", code, str(folder / f"{layout}.npz"), layout]
        subprocess.run(command, check=True, env=cpu_environment())
    return {layout: np.load(folder / f"{layout}.npz") for layout in LAYOUTS}


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path, one_cpu):
    command = [sys.executable, "-W", "error", "-c", TWO_DEVICES.format(folder=tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cpu_environment(devices=2))
    assert done.returncode == 0, done.stderr
    for layout in LAYOUTS:
        assert_trained_alike(one_cpu[layout], np.load(tmp_path / f"{layout}.npz"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes on this machine, with two devices each: what each printed, where it saved what it came to, and how
    long the survivor outlived the other.
    """
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    try:
        for index in range(2):
            command = [sys.executable, "-m", "tests.helpers.pair", str(port), str(index), str(folder)]
            with (folder / f"{index}.out").open("w") as out:
                environment = cpu_environment(devices=2)
                processes.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment))
        processes[1].wait(200)
        died = time.monotonic()
        processes[0].wait(2 * ENDS_WITHIN)
        outlived = time.monotonic() - died
    finally:
        for process in processes:
            process.kill()
    said = [(folder / f"{index}.out").read_text() for index in range(2)]
    return said, folder, outlived


def lines(said, what):
    return [next((line for line in text.splitlines() if line.startswith(what)), text) for text in said]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_as_one(pair, layout, one_cpu):
    """Padded batches on a device of each, packed ones on all four."""
    for index in range(2):
        assert_trained_alike(one_cpu[layout], np.load(pair[1] / f"{layout}-{index}.npz"))


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(pair, one_cpu):
    first, second = lines(pair[0], "stop:")
    assert first == second
    code, epoch, step = map(int, first.removeprefix("stop:").split())
    assert (code, epoch) == (143, 1)
    assert 0 < step < 7
    line = f"stopped by SIGTERM at epoch 1, step {step}; saved in {pair[1] / 'stopped' / str(7 + step)}"
    assert [line in said for said in pair[0]] == [True, False], "the first process says so, once"
    for index in range(2):
        assert_trained_alike(one_cpu["padded"], np.load(pair[1] / f"stopped-{index}.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("model", "the initial parameters or the optimizer"),
        ("epochs", "the settings"),
        ("data", "the batcher"),
        ("samples", "the samples"),
    ],
)
def test_processes_that_are_given_different_things_are_told(pair, what, named):
    for line in lines(pair[0], f"{what}:"):
        assert f"{what}: the processes differ in {named}; give each the same" in line


@pytest.mark.slow
def test_a_wrong_shape_in_one_process_is_an_error_in_both(pair):
    for index, line in enumerate(lines(pair[0], "shapes:")):
        assert "one has 3 x (audio 12) and one has 3 x (audio 13); make the batcher from the same source" in line
        assert f"process {index} of 2" in line


@pytest.mark.slow
def test_a_process_that_has_a_step_more_is_an_error_in_both(pair):
    for line in lines(pair[0], "steps:"):
        assert "one has 3 x (audio 12) and one has no more batches" in line


@pytest.mark.slow
def test_what_one_process_fails_by_ends_both(pair):
    healthy, failed = lines(pair[0], "source:")
    assert "one failed to make its batch (its own error says why) and one has 3 x (audio 12)" in healthy
    assert "the disk is damaged while sample" in failed


@pytest.mark.slow
def test_the_death_of_one_process_ends_the_other(pair):
    survivor, dead = pair[0]
    assert "dying" in dead
    assert "death: process 0 of 2 failed in a step that all of them take; if another has died" in survivor
    assert pair[2] < ENDS_WITHIN


def test_a_shard_that_is_not_this_processes_is_refused():
    with pytest.raises(TrainingError, match=r"got shard 1 of 2 with devices=1, in process 0 of 1 with 1 devices; give"):
        DataMesh(jax.devices()[:1]).share(make_batcher(make_samples()).shard(1, 2))


@pytest.mark.parametrize("devices", [[], jax.devices()[:1] * 2])
def test_devices_that_cannot_be(devices):
    with pytest.raises(TrainingError, match=r"got \d devices, \[\d\] of the processes 0 to 0; give as many of every"):
        DataMesh(devices)


@pytest.mark.slow
def test_one_device_may_be_named():
    result = fit(MeanModel(), make_batcher(make_samples()), epochs=1, devices=jax.devices()[:1], progress=False)
    again = fit(MeanModel(), make_batcher(make_samples()), epochs=1, progress=False)
    assert result.history[0].train_loss == pytest.approx(again.history[0].train_loss, rel=1e-5)
