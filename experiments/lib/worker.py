"""Work in a process of its own, which waits between questions, so that what is compared doesn't meet in one heap."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

from experiments.lib.births import without_ctrl_c

Answer = Callable[..., Any]
Prepare = Callable[..., tuple[Any, Answer]]
"""From arguments to what is to be told first, and what answers questions after it."""


@dataclass(frozen=True)
class _Failed:
    """What a process tells that could not be made ready."""

    why: str


@dataclass(frozen=True)
class Worker:
    """A process that is ready and waits.

    Attributes:
        name: for errors.
        first: what it told when it was ready.
    """

    name: str
    connection: Connection
    first: Any

    def ask(self, *question: Any) -> Any:
        """The answer to one question; nobody else works meanwhile.

        Raises:
            RuntimeError: the process has ended, or ends with this question; names the exception.
        """
        with suppress(OSError):  # it has ended: there is nobody to receive from, either
            self.connection.send(question)
        return _receive(self.connection, self.name)


@contextmanager
def start(
    name: str,
    prepare: Prepare,
    *arguments: Any,
    patience: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """``prepare(*arguments)`` in a process that ends with the block.

    Args:
        name: for errors.
        prepare: a function that can be imported.
        arguments: of it.
        patience: seconds that it may take to be ready; by default any.
        environment: variables that it has beside those of this process.

    Raises:
        RuntimeError: it ended before it was ready; names the exception.
        TimeoutError: it was not ready in time.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, prepare, arguments), daemon=True)
    resource_tracker.ensure_running()  # its own start would let Ctrl-C through again
    try:
        with without_ctrl_c(), patch.dict(os.environ, environment or {}):
            process.start()
        there.close()
        if not here.poll(patience):
            raise TimeoutError(f"{name}: was not ready after {patience:g} s")
        yield Worker(name, here, _receive(here, name))
    finally:
        if process.pid is not None:
            process.kill()
            process.join()


def _serve(connection: Connection, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
    logging.disable(logging.WARNING)  # what is to be said of the corpus, the parent has said
    try:
        first, answer = prepare(*arguments)
        connection.send(first)
        while True:
            try:
                question = connection.recv()
            except EOFError:
                return
            connection.send(answer(*question))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        connection.send(_Failed(f"{type(error).__name__}: {error}".splitlines()[0]))


def _receive(connection: Connection, name: str) -> Any:
    try:
        received = connection.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"{name}: its process ended; the reason stands above, if it could tell") from None
    if isinstance(received, _Failed):
        raise RuntimeError(f"{name}: its process ended with {received.why}")
    return received
