"""The tables, sentences and picture of experiments.scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.lib.tables import Table, paragraphs, spread
from experiments.scaling.fit import PERCENTILES, fit_series

PANELS = {"time": "s", "memory": "B", "compilations": ""}
"""Rows of the picture, with their units."""


class Series(NamedTuple):
    """A figure of each point of an axis.

    Attributes:
        key: of it in a point of ``results.json``: a number, or a list of one for each round.
        name: in sentences and legends.
        unit: in the heading of its column.
        scale: from what is in the file to the unit.
        form: of a number in that unit.
        panel: of the picture, by name; None where it is not drawn.
        fitted: whether it has an exponent.
    """

    key: str
    name: str
    unit: str = ""
    scale: float = 1.0
    form: str = ",.0f"
    panel: str | None = None
    fitted: bool = True

    @property
    def heading(self) -> str:
        """Return the heading of its column."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


class Axis(NamedTuple):
    """A quantity that grows, its letter in formulas, and the measured series."""

    key: str
    title: str
    size: str
    letter: str
    series: tuple[Series, ...]


_STEP = (
    Series("step_seconds", "step", "ms", 1e3, ",.1f", "time"),
    Series("device_bytes", "device memory", "MB", 1e-6, ",.1f", "memory"),
    Series("compile_seconds", "compiling", "s", 1, ",.1f", "compilations"),
    Series("flops", "FLOPs", "billions", 1e-9, ".3g"),
    Series("packed_step_seconds", "packed step", "ms", 1e3, ",.1f", "time"),
    Series("packed_device_bytes", "packed memory", "MB", 1e-6, ",.1f", "memory"),
    Series("packed_compile_seconds", "compiling packed", "s", 1, ",.1f", "compilations"),
)
_USED = Series("used", "shapes in an epoch", fitted=False)
_COMPILES = Series("compiles", "compilations", panel="compilations")

AXES = (
    Axis("length", "Length", "padded length", "L", _STEP),
    Axis("batch_size", "Batch size", "rows", "B", _STEP),
    Axis(
        "modalities",
        "Number of modalities",
        "modalities",
        "M",
        (Series("encoders", "crossmodal encoders", fitted=False), *_STEP),
    ),
    Axis(
        "shapes",
        "Number of shapes",
        "shapes at most",
        "K",
        (
            Series("shapes", "planned", fitted=False),
            _USED,
            Series("efficiency", "real cost", form=".3f", fitted=False),
            Series("bound", "bound", form=".3f", fitted=False),
            Series("plan_seconds", "planning", "s", 1, ",.2f", "time"),
            _COMPILES,
            Series("warm_up_seconds", "warm-up", "s", 1, ",.1f", "time"),
            Series("device_bytes_largest", "memory, largest shape", "MB", 1e-6, ",.1f", "memory"),
            Series("device_bytes_mean", "memory, mean of steps", "MB", 1e-6, ",.1f", "memory"),
        ),
    ),
    Axis(
        "samples",
        "Dataset size",
        "samples",
        "N",
        (
            Series("shapes", "planned", fitted=False),
            _USED,
            _COMPILES,
            Series("plan_seconds", "planning", "s", 1, ",.2f", "time"),
            Series("schedule_seconds", "schedule", "ms", 1e3, ",.1f", "time"),
            Series("packing_seconds", "planning packed", "s", 1, ",.2f", "time"),
            Series("packed_schedule_seconds", "packed schedule", "ms", 1e3, ",.1f", "time"),
            Series("packed_real_cost", "packed: real cost", form=".3f", fitted=False),
            Series("table_bytes", "length table", "MB", 1e-6, ",.3f", "memory"),
        ),
    ),
)
"""All axes."""


def _measured(results: dict[str, Any], axis: Axis) -> list[Series]:
    """Return the series that the points have; an older run may lack some."""
    return [series for series in axis.series if series.key in results["points"][axis.key][0]]


def _values(point: dict[str, Any], key: str) -> list[float]:
    """Return the values of each round; none where nothing is known."""
    value = point[key]
    return value if isinstance(value, list) else [] if value is None else [value]


def fit_all(points: dict[str, list[dict[str, Any]]], seed: int) -> dict[str, dict[str, Any]]:
    """Fit a power law to every series, by axis and key; None where there is none."""
    return {
        axis.key: {series.key: _fit(points[axis.key], series.key, seed) for series in axis.series if series.fitted}
        for axis in AXES
    }


def _fit(points: list[dict[str, Any]], key: str, seed: int) -> dict[str, Any] | None:
    repeats = [_values(point, key) for point in points]
    return fit_series([point["size"] for point in points], repeats, seed) if all(repeats) else None


def sentence(results: dict[str, Any], axis: Axis, series: Series) -> str:
    """Describe how one series grows."""
    fit = results["exponents"][axis.key][series.key]
    if fit is None:
        return f"{series.name}: not fitted"
    first, last = fit["between"]
    return (
        f"{series.name} ~ {axis.letter}^{_number(fit['exponent'])} over all, "
        f"{axis.letter}^{_number(fit['last'])} between {first:,} and {last:,}"
    )


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table per axis, with its points and their growth, and one of all exponents."""
    return [*(_points(results, axis) for axis in AXES), _exponents(results)]


def _points(results: dict[str, Any], axis: Axis) -> Table:
    rows, shown = [], _measured(results, axis)
    for point in results["points"][axis.key]:
        values = [np.array(_values(point, series.key)) * series.scale for series in shown]
        cells = [spread(v, s.form) if len(v) else "-" for v, s in zip(values, shown, strict=True)]
        rows.append([f"{point['size']:,}", *cells])
    told = "; ".join(sentence(results, axis, series) for series in shown if series.fitted)
    heading = [axis.size, *(series.heading for series in shown)]
    return Table(axis.title, heading, rows, f"{_setting(results, axis)} {told[0].upper()}{told[1:]}.", 0)


def _setting(results: dict[str, Any], axis: Axis) -> str:
    """Describe what the points of an axis have in common."""
    config = results["config"]
    lengths, rows, count = f"{config['length']} positions each", f"{config['batch_size']} rows", _several(config)
    step = (
        f"width {config['d_model']}, {_plural(config['num_heads'], 'head')}, {_plural(config['layers'], 'layer')} in "
        "each encoder and memory; every position real. Medians of steps in turn, and the middle half of them in "
        "brackets; memory: XLA's analysis of the program; compiling: tracing and lowering included; FLOPs: matrix "
        "products, by the model's cost."
    )
    return {
        "length": f"A train step of {count}, {rows}; {step}",
        "batch_size": f"A train step of {count}, {lengths}; {step}",
        "modalities": f"A train step of {rows}, {lengths}; {step}",
        "shapes": (
            f"{results['samples']:,} samples ({results['corpus']}), batches of {config['planned_rows']}, grouped by "
            f"length. Real cost, by the reference cost; bound: what no plan exceeds. Compilations: as JAX "
            f"reports them, for the warm-up and a step at each shape of an epoch, of a small model that pools all "
            f"modalities at width {config['pooled_width']}; memory: of its train step."
        ),
        "samples": (
            f"Synthetic lengths that follow MELD's, at most {_plural(config['planned_shapes'], 'shape')}, batches of "
            f"{config['planned_rows']}, grouped by length, or packed. Schedule: the dealing of an epoch. "
            "Compilations: as JAX reports them, for a step that counts positions, at each shape of an epoch."
        ),
    }[axis.key]


def _several(config: dict[str, Any]) -> str:
    return "one modality" if config["modality_count"] == 1 else f"{config['modality_count']} modalities"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _exponents(results: dict[str, Any]) -> Table:
    rows = []
    for axis in AXES:
        for series in (series for series in _measured(results, axis) if series.fitted):
            fit = results["exponents"][axis.key][series.key]
            cells = [f"{axis.size} {axis.letter}", series.name]
            if fit is None:
                rows.append([*cells, *["-"] * 4])
                continue
            first, last = fit["between"]
            rows.append(
                [
                    *cells,
                    _with_spread(fit["exponent"], fit["spread"]),
                    f"{100 * fit['off']:.0f} %",
                    _with_spread(fit["last"], fit["last_spread"]),
                    f"{first:,} to {last:,}",
                ]
            )
    low, high = PERCENTILES
    note = (
        "Each exponent is a least-squares fit of logarithms through the medians of all points. Off: the largest "
        f"distance of a median from that line. Brackets hold the {low}th to {high}th percentile over bootstrap "
        "resamples of the rounds; there are none where a point has one round or nothing is timed."
    )
    heading = ["grows", "figure", "exponent over all", "off", "between the two largest", "which are"]
    return Table("Exponents", heading, rows, note, 2)


def _with_spread(value: float, limits: list[float] | None) -> str:
    return _number(value) + (f" ({_number(limits[0])} to {_number(limits[1])})" if limits else "")


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def exponents(results: dict[str, Any]) -> str:
    """Return the exponents, and where they were measured, for a page."""
    from experiments.lib.provenance import measured_on

    return paragraphs(_exponents(results).markdown(), measured_on(results))


def markdown(results: dict[str, Any]) -> str:
    """Return all tables, and where they were measured."""
    from experiments.lib.provenance import measured_on

    parts = [f"### {table.title}\n\n{table.markdown()}" for table in tables(results)]
    return paragraphs(*parts, measured_on(results))


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per axis for time, memory and compilations, log-log, with the fitted lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(PANELS), len(AXES), figsize=(3.4 * len(AXES), 9), layout="constrained")
    for column, axis in enumerate(AXES):
        for line, panel in enumerate(PANELS):
            _draw_panel(panels[line, column], results, axis, panel)
        panels[0, column].set_title(axis.title, fontsize=12)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_panel(axes: Any, results: dict[str, Any], axis: Axis, panel: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

    from experiments.lib.colours import COLOURS

    points = results["points"][axis.key]
    drawn = [series for series in _measured(results, axis) if series.panel == panel]
    low, high = np.inf, 0.0
    for place, series in enumerate(drawn):
        known = [(point["size"], _values(point, series.key)) for point in points if _values(point, series.key)]
        if not known:
            continue
        fit = results["exponents"][axis.key][series.key]
        label = series.name + (f" ~ ${axis.letter}^{{{_number(fit['exponent'])}}}$" if fit else "")
        sizes = np.array([size for size, _ in known], float)
        medians = np.array([np.median(values) for _, values in known])
        low, high = min(low, medians.min()), max(high, medians.max())
        colour = COLOURS[(place + 4 * list(PANELS).index(panel)) % len(COLOURS)]
        axes.plot(sizes, medians, "o", color=colour, label=label)
        for size, values in known:
            axes.plot([size] * len(values), values, ".", color=colour, alpha=0.3, markersize=3)
        if fit:
            axes.plot(sizes, fit["factor"] * sizes ** fit["exponent"], "--", color=colour, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=f"{axis.size} {axis.letter}")
    names = {series.key for series in drawn}
    seconds = panel == "compilations" and "compiles" not in names
    axes.set_ylabel("compile time" if seconds else panel)
    sizes = [point["size"] for point in points]
    axes.set_xticks(sizes, [EngFormatter(sep="")(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    if high:
        room = max((high / low) ** 0.12, 1.6)  # the legend is above the points
        axes.set_ylim(low / room, high * room ** (1 + len(drawn)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axes.yaxis.set_major_formatter(EngFormatter(unit="s" if seconds else PANELS[panel]))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
