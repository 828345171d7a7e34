"""Work in a process of its own, which waits between requests, so that contenders share no heap."""

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
"""A function of arguments that returns a first result, and a function that answers requests."""


@dataclass(frozen=True)
class _Failed:
    """Sent by a process that could not be prepared."""

    why: str


@dataclass(frozen=True)
class Worker:
    """A process that is ready and waits.

    Attributes:
        name: for errors.
        first: its first result.
    """

    name: str
    connection: Connection
    first: Any

    def ask(self, *question: Any) -> Any:
        """Send one request and return the answer; no other process works meanwhile.

        Raises:
            RuntimeError: the process has ended, or ends with this request; names the exception.
        """
        with suppress(OSError):  # it has ended, so nothing can be received, either
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
    """Run ``prepare(*arguments)`` in a process that ends with the block.

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
    resource_tracker.ensure_running()  # its own start would unblock Ctrl-C
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
    logging.disable(logging.WARNING)  # the parent has given the warnings about the corpus
    try:
        first, answer = prepare(*arguments)
        connection.send(first)
        while True:
            try:
                question = connection.recv()
            except EOFError:
                return
            connection.send(answer(*question))
    except Exception as error:  # noqa: BLE001 - any error is sent to the parent
        traceback.print_exc()
        connection.send(_Failed(f"{type(error).__name__}: {error}".splitlines()[0]))


def _receive(connection: Connection, name: str) -> Any:
    try:
        received = connection.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"{name}: its process ended; the reason stands above, if it printed one") from None
    if isinstance(received, _Failed):
        raise RuntimeError(f"{name}: its process ended with {received.why}")
    return received
