import os
import signal
import time
from multiprocessing.popen_spawn_posix import Popen

import pytest

from experiments.lib.worker import start


def never_ready():
    time.sleep(60)


def fails():
    raise ValueError("no such thing\nand more")


def test_a_worker_that_fails_says_why(capfd):
    with pytest.raises(RuntimeError, match=r"failing: its process ended with ValueError: no such thing$"):  # noqa: SIM117
        with start("failing", fails):
            pass
    assert "Traceback" in capfd.readouterr().err


def squares():
    return "ready", lambda x: x * x


def picky():
    def answer(x):
        if x > 3:
            raise ValueError(f"{x} is too much")
        return x

    return "ready", answer


def test_a_worker_that_fails_at_a_question_says_why():
    with start("picky", picky) as worker:
        assert worker.ask(3) == 3
        with pytest.raises(RuntimeError, match="picky: its process ended with ValueError: 4 is too much"):
            worker.ask(4)
        with pytest.raises(RuntimeError, match="picky: its process ended; the reason stands above"):
            worker.ask(3)


def test_a_worker_answers_until_the_block_ends():
    with start("squares", squares) as worker:
        assert (worker.first, worker.ask(3), worker.ask(4)) == ("ready", 9, 16)


def variable(name):
    return os.environ.get(name), None


def test_a_worker_has_variables_of_its_own():
    for value in ("3", "4"):
        with start("named", variable, "SOME_NAME", environment={"SOME_NAME": value}) as worker:
            assert worker.first == value
    assert "SOME_NAME" not in os.environ


def test_a_worker_that_takes_too_long_is_given_up():
    with (
        pytest.raises(TimeoutError, match=r"sleeper: was not ready after 0\.5 s"),
        start("sleeper", never_ready, patience=0.5),
    ):
        pass


def test_a_worker_that_is_being_born_does_not_see_ctrl_c(monkeypatch, capfd):
    born = Popen._launch

    def interrupted(self, process):
        born(self, process)
        os.kill(self.pid, signal.SIGINT)

    monkeypatch.setattr(Popen, "_launch", interrupted)
    with start("squares", squares) as worker:
        assert worker.ask(3) == 9
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_a_worker_is_being_born(monkeypatch):
    born, pids = Popen._launch, []

    def interrupted(self, process):
        born(self, process)
        pids.append(self.pid)
        signal.raise_signal(signal.SIGINT)
        pids.append(self.pid)

    monkeypatch.setattr(Popen, "_launch", interrupted)
    with pytest.raises(KeyboardInterrupt), start("squares", squares):
        pass
    assert len(pids) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
