"""What the pictures of plans share: how they look, and a file that is there whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multimodal_pad.errors import PaddingError
from multimodal_pad.output import write_file

INK, FAINT, PLAN, BOUND, OTHERS = "#1d2733", "#b9c2cc", "#4269d0", "#efb118", ("#ff725c", "#3ca951", "#9c6b4e")


def check_plots(path: str | Path) -> None:
    """Raise a PaddingError where matplotlib is not installed or doesn't draw this kind of file."""
    if find_spec("matplotlib") is None:
        raise PaddingError("plots need matplotlib: pip install 'multimodal-pad[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lower()[1:] not in kinds:
        raise PaddingError(f"{path}: a plot's name must end in one of {', '.join(f'.{kind}' for kind in kinds)}")


@contextmanager
def picture(path: str | Path, panels: int) -> Iterator[list[Any]]:
    """Give the axes of panels side by side, and write the picture when they are drawn."""
    check_plots(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT}):
        figure = Figure(figsize=(3.6 * panels, 3.5), layout="constrained")
        yield list(figure.subplots(1, panels, squeeze=False)[0])
        drawn = io.BytesIO()
        figure.savefig(drawn, format=Path(path).suffix[1:].lower(), dpi=150)
    write_file(Path(path), drawn.getvalue())
