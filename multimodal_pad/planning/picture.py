"""The common parts of pictures of plans: how they look, and a file that is there whole or not at all."""

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


def check_plots(path: str | Path | None = None) -> None:
    """Raise a PaddingError where matplotlib is not installed, or doesn't draw this kind of file."""
    if find_spec("matplotlib") is None:
        raise PaddingError("plots need matplotlib: pip install 'multimodal-pad[plot]'")
    if path is None:
        return
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lower()[1:] not in kinds:
        raise PaddingError(f"{path}: a plot's name must end in one of {', '.join(f'.{kind}' for kind in kinds)}")


@contextmanager
def picture(panels: int) -> Iterator[tuple[Any, list[Any]]]:
    """Yield a figure of panels side by side, and their axes to draw on.

    Raises:
        PaddingError: matplotlib is not installed.
    """
    check_plots()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows, whether pyplot is used or not."""

        def _repr_png_(self) -> bytes:
            return _drawn(self, "png")

    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT}):
        figure = Picture(figsize=(3.6 * panels, 3.5), layout="constrained")
        yield figure, list(figure.subplots(1, panels, squeeze=False)[0])


def write_picture(figure: Any, path: str | Path) -> None:
    """Write a figure in the format that the file's name ends in, whole or not at all."""
    write_file(Path(path), _drawn(figure, Path(path).suffix[1:].lower()))


def _drawn(figure: Any, kind: str) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=150)
    return drawn.getvalue()
