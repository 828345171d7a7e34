"""Progress bars of commands that read and write files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import TaskID, TaskProgressColumn, TimeRemainingColumn

from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.sources.corpus import Progress as Tell
from multimodal_pad.terminal import in_a_line, progress_console


@contextmanager
def telling() -> Iterator[Tell]:
    """Yield a progress callback with a bar for each description, on a terminal."""
    console = progress_console()
    columns = TaskProgressColumn, TimeRemainingColumn
    with progress_bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(in_a_line(what), total=total)
            bars.update(tasks[what], completed=done)

        yield tell
