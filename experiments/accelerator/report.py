"""The tables of a run, from its ``results.json``, for a page that ``experiments.fill_tables`` fills."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.accelerator.config import SECOND_STARTS
from experiments.accelerator.work import shape_of
from experiments.lib.tables import Table, paragraphs, spread

Results = dict[str, Any]

STEPS = ("packed", "float32", "packed_bfloat16", "bfloat16")
"""Parts that measure steps."""


def tables(results: Results) -> list[Table]:
    """Make a table per subject that was measured: first steps, steps, end to end, checks."""
    made = (starts_table(results), steps_table(results), end_to_end_table(results), checks_table(results))
    return [table for table in made if table.rows]


def markdown(results: Results) -> str:
    """Return all tables, what is missing, and where it was measured."""
    from experiments.lib.provenance import measured_on

    parts = [f"### {table.title}\n\n{table.markdown()}" for table in tables(results)]
    return paragraphs(*parts, missing(results), measured_on(results))


def product_rate(results: Results, dtype: str = "bfloat16") -> float | None:
    """Return FLOP/s of the fastest product of two matrices of this dtype, or None where none was measured."""
    rates = [rate for row in results.get("products", []) if row["dtype"] == dtype for rate in row["flops_per_second"]]
    return max(rates, default=None)


def starts_table(results: Results) -> Table:
    """Make a row per model and layout: seconds to its first step, with an empty and with a filled compilation cache."""
    again = {first: results["parts"].get(name, {}) for name, first in SECOND_STARTS.items()}
    rows = []
    for name in STEPS:
        part = results["parts"].get(name, {})
        if "start" not in part:
            continue
        second = again.get(name, {})
        filled = [f"{second[key]:,.0f} s" for key in ("seconds_to_first_step", "seconds_to_prepare") if key in second]
        read = f"{second['cache_hits']} read, {second['compiled']} compiled" if filled else ""
        row = [part["model"], part["layout"], str(len(part["start"]["shapes"]))]
        rows.append([*row, f"{part['start']['seconds_to_first_step']:,.0f} s", *(filled or ["", ""]), read])
    heading = ["model", "layout", "batch shapes", "empty cache", "filled cache", "of it samples and model", "programs"]
    note = (
        "From the start of a process to the end of its first step, with so many batch shapes compiled before it; each "
        "with a compilation cache of its own, and once more with what is in it then."
    )
    return Table("First step", heading, rows, note, text_columns=2)


def steps_table(results: Results) -> Table:
    """Make a row per model and batch shape."""
    rate = product_rate(results)
    rows = []
    for part in _measured(results):
        timed = part.get("steps", [])
        rows += [[part["model"], *_step_cells(row, rate)] for row in timed]
        known = [row["lengths"] for row in timed]
        untimed = [row for row in part.get("compiled", []) if row["lengths"] not in known]
        rows += [
            [part["model"], str(shape_of(row)), "", f"{row['compile_seconds']:,.0f} s", "not timed", "", "", ""]
            + [_megabytes(row["device_bytes"]), ""]
            for row in untimed
        ]
    heading = [
        "model",
        "batch shape",
        "steps of an epoch",
        "compiling",
        "step, ms",
        "real cost",
        "useful FLOP/s",
        "of a product",
        "memory, XLA",
        "same step twice",
    ]
    note = (
        "Compiling: seconds of each program, of which several compile side by side. Step: median and middle half of "
        "rounds of up to 100 steps, the batch on the device; the device is waited for "
        "once a round. Useful FLOP/s: matrix products of real positions alone, forward and backward, in the mean over "
        "the shape's steps"
        + ("" if rate is None else f"; of a product: over {_rate(rate)} of a large bfloat16 one")
        + ". Memory: arguments, results and temporaries by XLA's analysis. Same step twice: the largest difference in "
        "the new state."
    )
    return Table("Steps", heading, rows, note, text_columns=2)


def _step_cells(row: Results, rate: float | None) -> list[str]:
    """Make the cells of a timed shape, except the model."""
    real = 1e3 * row["real_flops"] / float(np.median(row["step_ms"]))
    return [
        str(shape_of(row)),
        f"{row['steps_of_epoch']:,}",
        f"{row['compile_seconds']:,.0f} s",
        spread(row["step_ms"], ".2f"),
        f"{row['real_flops'] / row['paid_flops']:.2f}",
        _rate(real),
        _share(real, rate),
        _megabytes(row["device_bytes"]),
        _difference(row["repeat_changes"]),
    ]


def end_to_end_table(results: Results) -> Table:
    """Make a row per model, library, policy and feed."""
    rate = product_rate(results)
    rows = []
    for part in _measured(results):
        for name, row in part.get("policies", {}).items():
            estimated = row["shapes_compiled"] < row["shapes"]
            shapes = f"{row['shapes_compiled']} of {row['shapes']}" if estimated else f"{row['shapes']}"
            rows.append(
                [part["model"], f"JAX, {name}", row["batches"], shapes]
                + _rates(row, estimated, rate)
                + [spread(row["stepping_share"]), _megabytes(row["peak_bytes_in_use"])]
            )
    for row in results["parts"].get("torch", {}).get("rows", []):
        feed = ", padded before" if row["feed"] == "ready" else ""
        rows.append(
            [row["model"], f"PyTorch eager, own maxima, {row['precision']}{feed}", row["batches"], "any"]
            + _rates(row, not row["whole"], rate)
            + ["", _megabytes(row["peak_bytes_in_use"])]
        )
    heading = [
        "model",
        "",
        "batches",
        "shapes",
        "samples/s",
        "waiting for a batch",
        "useful FLOP/s",
        "of a product",
        "stepping",
        "peak memory",
    ]
    note = (
        "Laying out, transfer and steps together, median and middle half of windows of steps; the device is waited for "
        "once a window. Waiting for a batch: share of the time; steps go on meanwhile. Stepping: share of the time "
        "that the same steps take alone. Peak memory: as the device reports it, so far in the process. `~`: not all "
        "shapes were compiled, or not all steps of an epoch run, and the rate is estimated from those. Padded before: "
        "the batches lie in pinned memory before the clock starts."
    )
    return Table("End to end", heading, rows, note, text_columns=3)


def checks_table(results: Results) -> Table:
    """Make a row per check."""
    figures = ("output_apart", "gradient_apart", "nan_changes", "repeat_changes")
    rows = [
        [
            row["what"],
            row["implementation"],
            row["dtype"],
            row["precision"] or "default",
            *([row["failed"], "", "", ""] if "failed" in row else [_difference(row[name]) for name in figures]),
        ]
        for row in results["parts"].get("checks", {}).get("rows", [])
    ]
    note = (
        "Output: the largest difference from float64 on the host. Gradient: the norm of the difference over that of "
        "the gradient; of the model estimated from random directions. NaN and twice: the largest change of outputs and "
        "gradients where NaN stands in the padding, and where the same is computed again."
    )
    heading = ["", "attention", "dtype", "matmul precision", "output", "gradient", "NaN in the padding", "twice"]
    return Table("Against float64", heading, rows, note, text_columns=4)


def missing(results: Results) -> str:
    """List in Markdown what was not measured, or only in part; empty where nothing is missing."""
    lines = [f"- {name}: {why}" for name, why in results["unfinished"].items()]
    lines += [f"- {name}: {note}" for name, part in results["parts"].items() for note in part.get("notes", [])]
    return "\n".join(["Not measured, or less than there is:", "", *lines]) if lines else ""


def _measured(results: Results) -> list[Results]:
    return [results["parts"][name] for name in STEPS if name in results["parts"]]


def _rates(row: Results, estimated: bool, product: float | None) -> list[str]:
    real = float(np.median(row["samples_per_second"])) * row["real_flops_per_sample"]
    return [
        ("~" if estimated else "") + spread(row["samples_per_second"], ",.0f"),
        spread(row["waiting_share"]),
        _rate(real),
        _share(real, product),
    ]


def _rate(flops_per_second: float) -> str:
    """Format a rate with three digits, in TFLOP/s, GFLOP/s or MFLOP/s.

    >>> _rate(2.5e12), _rate(3.21e9)
    ('2.50 T', '3.21 G')
    """
    unit, factor = next(((u, f) for u, f in (("T", 1e12), ("G", 1e9)) if flops_per_second >= f), ("M", 1e6))
    scaled = flops_per_second / factor
    return f"{scaled:,.{max(0, 2 - int(np.log10(max(scaled, 1))))}f} {unit}"


def _share(part: float, whole: float | None) -> str:
    return "" if whole is None else f"{100 * part / whole:.2f} %"


def _megabytes(value: float | None) -> str:
    return "not known" if value is None else f"{value / 1e6:,.0f} MB"


def _difference(value: float) -> str:
    """Format a difference; ``0`` where nothing differs at all."""
    return f"{value:.0e}" if value else "0"
