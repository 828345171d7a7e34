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

INK, SOFT, FAINT = "#1d2733", "#7a8594", "#c3cbd4"
"""Of text and limits, of what is beside the point, and of padding."""

POLICIES = {
    "planned": "#4a6fe3",
    "fixed": "#7a8594",
    "exact": "#b7791f",
    "powers of two": "#d1495b",
    "quantiles": "#8e5bd0",
    "packed": "#2f8f4e",
}
"""The colour of each policy, the same in all pictures; each stands out from white by 3 to 1 at least."""

OTHER = "#8a6d3b"
"""Of a policy that has no colour of its own."""


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
def picture(width: float, height: float) -> Iterator[Any]:
    """Yield a figure of this width and height, in inches, to draw on.

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
        yield Picture(figsize=(width, height), layout="constrained")


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many characters: the middle of a longer one is left out.

    >>> shortened("text", 12), shortened("facial_action_units_left", 12)
    ('text', 'facial…_left')
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def write_picture(figure: Any, path: str | Path) -> None:
    """Write a figure in the format that the file's name ends in, whole or not at all."""
    write_file(Path(path), _drawn(figure, Path(path).suffix[1:].lower()))


def _drawn(figure: Any, kind: str) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=150)
    return drawn.getvalue()
