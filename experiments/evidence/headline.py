"""The one sentence of the evidence's page: what to use here, and what it saves."""

from __future__ import annotations

import re
from typing import Any

Results = dict[str, Any]


def headline(found: dict[str, Results]) -> str:
    """Return the figure that matters most of what was measured, with ``**`` around it; empty where there is none.

    >>> headline({})
    ''
    """
    if "training" in found:
        told = _training(found["training"])
    elif "shapes" in found:
        told = _shapes(found["shapes"])
    else:
        told = ""
    return re.sub(r"(?<=\d) (?=(s|%|times|epochs?|shapes?)\b|%)", "\N{NO-BREAK SPACE}", told)


def _training(results: Results) -> str:
    """Return the fastest of this project, against fixed padding and the fastest of PyTorch."""
    rows = results["training"]["rows"]
    epochs = max(rows[0]["seconds"], key=int)

    def seconds(row: Results) -> float:
        return row["seconds"][epochs]

    best = min((row for row in rows if row["library"].startswith("jax")), key=seconds)
    shapes = best["shapes"][epochs]
    programs = "one compiled program" if shapes == 1 else f"{shapes:,} compiled programs"
    name, grouping = best["name"], best["batches"].split("/")[1]
    name = name.replace("packed", "packed batches", 1) if grouping == "balanced" else f"{name}, {grouping} batches"
    corpus = "MELD" if results["training"]["corpus"] == "MELD" else "synthetic utterances"
    told = (
        f"{epochs} epochs of {corpus} ({results['training']['samples']:,} samples) take about "
        f"**{seconds(best):,.0f} s** with **{name}** and {programs}"
    )
    against = []
    fixed = next((row for row in rows if row["batches"].startswith("fixed/") and row["library"] == "jax"), None)
    if fixed is not None and fixed is not best:
        against.append(f"**{seconds(fixed) / seconds(best):.1f} times** as fast as fixed padding")
    torch = min((row for row in rows if row["library"].startswith("torch")), key=seconds, default=None)
    if torch is not None:
        against.append(f"{seconds(torch) / seconds(best):.1f} times as fast as the fastest measured of PyTorch")
    return told + (f": {' and '.join(against)}." if against else ".")


def _shapes(results: Results) -> str:
    """Return the real cost of the largest plan, against fixed padding."""
    rows = [row for row in results["shapes"] if row["distribution"] == "meld" and row["package"] is None]
    plans = [row for row in rows if row["policy"].startswith("planned") and row["grouping"] == "shape"]
    fixed = [row for row in rows if row["policy"].startswith("fixed")]
    if not plans or not fixed:
        return ""
    best = max(plans, key=lambda row: row["cost_efficiency"])
    return (
        f"The real cost of **{best['shapes']} planned shapes** is {100 * best['cost_efficiency']:.0f} %, that of fixed "
        f"padding {100 * fixed[0]['cost_efficiency']:.0f} %."
    )
