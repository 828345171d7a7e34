"""Progress bars whose counts and times stay whole in a narrow terminal."""

from __future__ import annotations

from typing import Any

from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

_WIDEST = 40


def progress_bars(
    *counts: type[ProgressColumn], console: Console | None = None, bar: bool = True, **options: Any
) -> Progress:
    """Make bars, each after its description, which is text and no markup, and before ``counts``.

    Where all of it does not fit, the description goes on in a second line.

    Args:
        counts: kinds of columns, such as ``TimeElapsedColumn``.
        console: by default rich's own.
        bar: whether there is a bar at all.
        options: of ``rich.progress.Progress``.

    >>> from rich.progress import MofNCompleteColumn
    >>> console = Console(width=30, color_system=None)
    >>> bars = progress_bars(MofNCompleteColumn, console=console)
    >>> task = bars.add_task("compiled train_step for 32 x (text 8)", total=12, completed=12)
    >>> with console.capture() as captured:
    ...     console.print(bars.get_renderable())
    >>> for line in captured.get().splitlines():
    ...     print(line.rstrip())
    compiled           ━━━━━ 12/12
    train_step for 32
    x (text 8)
    """
    console = console or get_console()
    shown = BarColumn(min(_WIDEST, console.width // 6), table_column=_whole())
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *([shown] if bar else []),
        *(count(table_column=_whole()) for count in counts),
        console=console,
        **options,
    )


def _whole() -> Column:
    return Column(no_wrap=True)
