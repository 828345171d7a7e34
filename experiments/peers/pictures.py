"""The pictures of the comparison with other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.colours import LIBRARIES, PLANNED, POLICIES
from experiments.peers.contenders import EPOCHS

_OWN = "fixed, own maxima,\npowers of two"
_COLOURS = {
    "planned": PLANNED[0],
    _OWN: POLICIES["fixed"],
    **{name: LIBRARIES[name] for name in ("transformers", "tensorflow", "lhotse")},
}
_LIBRARIES = {"jax": PLANNED[0], "torch": LIBRARIES["torch"], "torch.compile": POLICIES["exact"]}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per section that was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = []
    if "kernel" in results:
        panels.append((_kernel, results["kernel"]))
    if "shapes" in results:
        panels.append((_shapes, results["shapes"]))
    if "training" in results:
        panels += [(_rates, results["training"]), (_seconds, results["training"])]
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(9, 4.2 * len(panels)), layout="constrained", squeeze=False)
    for axis, (panel, measured) in zip(axes[:, 0], panels, strict=True):
        panel(axis, measured)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _kernel(axis: Any, measured: dict[str, Any]) -> None:
    names = [row["name"] for row in measured["rows"]]
    copying = measured["rows"][0]["bytes"] / np.array(measured["rows"][0]["seconds"])
    shares = [row["bytes"] / np.array(row["seconds"]) / copying for row in measured["rows"]]
    _bars(
        axis, names, shares, [PLANNED[0] if "Batcher" in n or "pad_samples" in n else POLICIES["fixed"] for n in names]
    )
    axis.set_xlabel("speed, as a share of np.copyto (median and middle half)")


def _shapes(axis: Any, rows: list[dict[str, Any]]) -> None:
    shown = [row for row in rows if row["distribution"] == "meld"]
    for library, colour in _COLOURS.items():
        found = [row for row in shown if (row["package"] or _kind(row)) == library]
        shapes, real = [row["shapes"] for row in found], [row["cost_efficiency"] for row in found]
        axis.plot(shapes, real, "s" if library == "planned" else "o", color=colour, label=library)
    for row in shown:
        if _kind(row) == "planned" and row["grouping"] == "shape":
            at = row["shapes"], row["cost_efficiency"]
            axis.annotate(
                f"planned, {row['shapes']}", at, textcoords="offset points", xytext=(-6, 8), ha="right", fontsize=8
            )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="batch shapes in an epoch", ylabel="real cost", title="MELD's lengths")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _kind(row: dict[str, Any]) -> str:
    return "planned" if row["policy"].startswith("planned") else _OWN


def _names(measured: dict[str, Any]) -> list[str]:
    return [f"{row['name']}, {row['batches'].split('/')[1]}" for row in measured["rows"]]


def _rates(axis: Any, measured: dict[str, Any]) -> None:
    rates = [np.array(row["samples_per_second"]) for row in measured["rows"]]
    _bars(axis, _names(measured), rates, [_colour(row["library"]) for row in measured["rows"]])
    axis.set_xlabel("samples per second, compiled (median and middle half)")


def _colour(library: str) -> str:
    return _LIBRARIES.get(library, _LIBRARIES[library.split(".")[0]])


def _seconds(axis: Any, measured: dict[str, Any]) -> None:
    for row, name in zip(measured["rows"], _names(measured), strict=True):
        style = "-" if row["library"].startswith("jax") else "--"
        axis.plot(EPOCHS, [row["seconds"][str(epochs)] for epochs in EPOCHS], style, marker=".", label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(EPOCHS, [str(epochs) for epochs in EPOCHS])
    axis.minorticks_off()
    axis.set(xlabel="epochs", ylabel="seconds, compiling included")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _bars(axis: Any, names: list[str], values: list[np.ndarray], colours: list[str]) -> None:
    low, middle, high = np.array([np.percentile(value, [25, 50, 75]) for value in values]).T
    axis.barh(
        range(len(names)), middle, xerr=[middle - low, high - middle], color=colours, ecolor="#55606d", height=0.7
    )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
