import signal
import subprocess
import sys
import threading

import pytest

from multimodal_pad.compiling.interrupts import NotedInterrupt

WARM_UP = """
import os, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
from multimodal_pad import BatchShape, BatchSpec, pad_samples
from multimodal_pad.compiling import warm_up_all, StepTable

def long_step(state, batch):
    x = batch.features["audio"]
    for number in range(300):
        x = jnp.tanh(x @ jnp.ones((3, 3))) + jnp.roll(x, number, axis=1)
    return state + x.sum()

left = int(sys.argv[1])

def interrupt(*_):  # each thread may have compiled one before the first is acted on
    global left
    while left:
        left -= 1
        os.kill(os.getpid(), signal.SIGINT)

example = pad_samples([{"audio": np.ones((2, 3), np.float32)}])
shapes = [BatchShape.of(2, {"audio": length}) for length in (4, 8, 16, 32)]
table = StepTable(long_step)
try:
    warm_up_all([(table, BatchSpec(shapes, example))], np.float32(0), progress=False, threads=2, on_compiled=interrupt)
except KeyboardInterrupt:
    print(f"interrupted, {len(table)} compiled")
    sys.exit(130)
"""


def test_it_is_raised_where_it_is_looked_for():
    with NotedInterrupt() as noted:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            noted.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_ones_own_stays():
    got = []
    before = signal.signal(signal.SIGINT, lambda *_: got.append(1))
    try:
        with NotedInterrupt() as noted:
            signal.raise_signal(signal.SIGINT)
            noted.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert got == [1]


def test_in_another_thread_it_does_nothing():
    results = []

    def run():
        with NotedInterrupt() as noted:
            noted.check()
            results.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [signal.default_int_handler]


def test_in_an_interactive_session_a_second_one_changes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with NotedInterrupt() as noted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            noted.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "out", "err"), [(1, "interrupted, ", ""), (2, "", "ended at once, while XLA was compiling")]
)
def test_ctrl_c_while_xla_compiles(count, out, err):
    process = subprocess.run([sys.executable, "-c", WARM_UP, str(count)], capture_output=True, text=True, timeout=120)
    assert process.returncode == 130, process.stderr
    assert out in process.stdout
    assert err in process.stderr
    assert "Traceback" not in process.stderr
