"""The console command ``multimodal-pad``."""

from __future__ import annotations

import argparse
import os
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any, NoReturn

from multimodal_pad import __version__
from multimodal_pad.commands import convert, inspect, plan
from multimodal_pad.errors import PaddingError
from multimodal_pad.signals import signals_raised, status_of
from multimodal_pad.terminal import plain, tell_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""

    def run() -> None:
        options = _parser().parse_args(arguments)
        options.run(options)

    with signals_raised():
        return exit_status(run)


def exit_status(run: Callable[[], None]) -> int:
    """Return 0 where ``run`` ends well, 1 where the output is closed, 2 for bad input, 130 for Ctrl-C.

    An error is printed as a line. Where SIGTERM and SIGHUP raise :class:`~multimodal_pad.signals.Ended`, they are 143
    and 129.
    """
    try:
        with _interrupts_raised_later():
            run()
            _flush()
    except BrokenPipeError:  # as in: multimodal-pad plan ... | head
        _discard_output()
        return 1
    except (PaddingError, OSError) as error:
        tell_error(f"error: {error}")
        _end_output()
        return 2
    except KeyboardInterrupt as stop:
        tell_error("stopped")
        _end_output()
        return status_of(stop)
    except SystemExit:  # of what argparse has printed, such as --help
        _end_output()
        raise
    return 0


def _flush() -> None:
    if sys.stdout is not None:  # None where the output was closed before the command began
        sys.stdout.flush()


def _end_output() -> None:
    """Flush the output now: Python itself would do so after the end, and print its own error there."""
    try:
        _flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _interrupts_raised_later() -> Iterator[None]:
    """Raise Ctrl-C again while the block runs, where it came at a moment at which it can't be raised.

    Within a destructor, or a callback of the garbage collector such as JAX's, nothing can be raised: Python prints the
    KeyboardInterrupt with its traceback and forgets it.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            number = status_of(unraisable.exc_value or KeyboardInterrupt()) - 128
            Timer(0.01, interrupt_main, [number]).start()  # again, once that is over: here it would be lost as well
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


class _Parser(argparse.ArgumentParser):
    """A parser that shows what it was given as text alone."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="multimodal-pad", description="Batches of multimodal sequences, padded to a small set of planned shapes."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (plan, convert, inspect):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
