"""How commands end: Ctrl-C that comes where nothing can be raised."""

import sys
import time

from multimodal_pad.cli import exit_status


class Raising:
    """Its destructor fails, which Python can only print."""

    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def test_ctrl_c_within_a_destructor_ends_the_command(capfd):
    before = sys.unraisablehook

    def run():
        Raising(KeyboardInterrupt())
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.01)

    began = time.monotonic()
    assert exit_status(run) == 130
    assert time.monotonic() - began < 10
    assert capfd.readouterr().err == "stopped\n"
    assert sys.unraisablehook is before


def test_other_errors_of_destructors_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    assert exit_status(lambda: Raising(ValueError()) and None) == 0
    assert told == [ValueError]
