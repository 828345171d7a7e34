"""A batch of each policy, drawn row by row: what of it is real and what is padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np

from experiments.compare.naming import colours, label
from experiments.lib.charts import Chart, Figure
from multimodal_pad import LengthTable, Schedule

Row = dict[str, Any]


def middle_batch(schedule: Schedule, lengths: LengthTable, *, packed: bool) -> dict[str, Any]:
    """Return the batch with the middle number of positions: the lengths of its samples, and what they are padded to."""
    costs = schedule.lengths.sum(axis=1) * schedule.batch_sizes
    place = int(np.argsort(costs, kind="stable")[len(costs) // 2])
    padded, ids = schedule[place]
    return {"lengths": lengths.values[ids[ids >= 0]].tolist(), "padded": padded.tolist(), "packed": packed}


def batches(results: dict[str, Any]) -> Figure:
    """Draw a batch of each policy, its modalities beside each other, all at one scale."""
    names = results["modalities"]
    width = np.max(
        [
            row["batch"]["padded"] if not row["batch"]["packed"] else np.max(row["batch"]["lengths"], axis=0)
            for row in results["rows"]
        ],
        axis=0,
    )
    gap = 0.015 * width.sum()
    offsets = np.concatenate([[0], np.cumsum(width + gap)[:-1]])
    edge = float(offsets[-1] + width[-1])
    most = max(_lines(row, width) for row in results["rows"])
    charts = []
    colour_of = colours(results)
    for row in results["rows"]:
        marks = list(_marks(row, names, width, offsets))
        colour = colour_of[label(row)]
        share = _share(row)
        chart = (
            alt.Chart(alt.Data(values=marks))
            .mark_rect(stroke=colour, strokeWidth=0.4, fill=colour)
            .encode(
                x=alt.X("from:Q", scale=alt.Scale(domain=[0, edge], nice=False), axis=None),
                x2="to:Q",
                y=alt.Y("top:Q", scale=alt.Scale(domain=[most, 0], nice=False), axis=None),
                y2="bottom:Q",
                fillOpacity=alt.FillOpacity("shade:Q", scale=None),
                tooltip=["modality:N", "what:N", "positions:Q"],
            )
            .properties(title=f"{label(row)}: {100 * share:.0f} % real")
        )
        described = f"One batch of {len(row['batch']['lengths'])} samples under {label(row)}: {100 * share:.0f} % real."
        charts.append(Chart(chart, described, 170))
    return Figure(
        "One batch of each policy, row by row",
        f"A line per sample, {', '.join(names)} from left to right, at one scale: dark is real, pale is padding. "
        "Packed samples lie end to end, in lines as long as the widest. The batch is the one of middle cost.",
        charts,
        columns=2,
    )


def _share(row: Row) -> float:
    """Return the real share of the batch's positions."""
    batch = row["batch"]
    lines = 1 if batch["packed"] else len(batch["lengths"])
    return float(np.sum(batch["lengths"]) / (lines * np.sum(batch["padded"])))


def _lines(row: Row, width: np.ndarray) -> int:
    batch = row["batch"]
    return int(np.max(np.ceil(batch["padded"] / width))) if batch["packed"] else len(batch["lengths"])


def _marks(row: Row, names: list[str], width: np.ndarray, offsets: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rectangles of real positions and of padding; positions end to end go on in the next line."""
    batch = row["batch"]
    lengths = np.asarray(batch["lengths"])
    for column, name in enumerate(names):
        pieces: list[tuple[int, int, int, bool]] = []  # start, positions, number, real
        if batch["packed"]:
            ends = np.cumsum(lengths[:, column])
            starts = ends - lengths[:, column]
            pieces += [(int(starts[i]), int(n), i, True) for i, n in enumerate(lengths[:, column])]
            pieces.append((int(ends[-1]), int(batch["padded"][column] - ends[-1]), -1, False))
        else:
            for i, n in enumerate(lengths[:, column].tolist()):
                start = i * int(width[column])
                pieces += [(start, n, i, True), (start + n, int(batch["padded"][column]) - n, i, False)]
        for start, positions, number, real in pieces:
            for line, first, last in _wrapped(start, positions, int(width[column])):
                yield {
                    "from": round(float(offsets[column] + first), 1),
                    "to": round(float(offsets[column] + last), 1),
                    "top": line,
                    "bottom": line + 0.86,
                    "shade": (0.72 if number % 2 and batch["packed"] else 0.95) if real else 0.13,
                    "modality": name,
                    "what": f"sample {number + 1}" if real else "padding",
                    "positions": positions,
                }


def _wrapped(start: int, positions: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Line, first and last column of each part of a run of positions in lines of ``width``.

    >>> list(_wrapped(3, 4, 5))
    [(0, 3, 5), (1, 0, 2)]
    """
    end = start + positions
    while start < end:
        line, column = divmod(start, width)
        stop = min(end, (line + 1) * width)
        yield line, column, column + stop - start
        start = stop
