"""Progress bars of commands that read and write files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from multimodal_pad.sources.corpus import Progress as Tell
from multimodal_pad.terminal import as_cell, progress_console


@contextmanager
def telling() -> Iterator[Tell]:
    """A bar for each thing that is done, on a terminal."""
    console = progress_console()
    with Progress(console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(as_cell(what), total=total)
            bars.update(tasks[what], completed=done)

        yield tell
