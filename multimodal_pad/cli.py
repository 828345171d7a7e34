"""The console command ``multimodal-pad``."""

from __future__ import annotations

import argparse
import os
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

from multimodal_pad import __version__
from multimodal_pad.commands import convert, inspect, plan
from multimodal_pad.errors import PaddingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: options.run(options))


def exit_status(run: Callable[[], None]) -> int:
    """0 where ``run`` ends well, 1 where the output is closed, 2 for bad input, 130 for Ctrl-C; errors are a line."""
    try:
        with _interrupts_raised_later():
            run()
    except BrokenPipeError:  # as in: multimodal-pad plan ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PaddingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _interrupts_raised_later() -> Iterator[None]:
    """Meanwhile Ctrl-C counts wherever it comes.

    Within a destructor, or a callback of the garbage collector such as JAX's, nothing can be raised: Python prints the
    KeyboardInterrupt with its traceback and forgets it.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            Timer(0.01, interrupt_main).start()  # again, once that is over: here it would be lost as well
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multimodal-pad", description="Batches of multimodal sequences, padded to a small set of planned shapes."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (plan, convert, inspect):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
