"""What tables and figures of the comparison call a policy, and the colour that it has in all of them."""

from __future__ import annotations

from typing import Any

from experiments.lib.colours import policy_colours

Row = dict[str, Any]


def label(row: Row) -> str:
    """Return a policy and its grouping, as tables and figures call it."""
    return f"{row['policy'].replace('_', ' ')}, {row['grouping']}"


def colours(results: dict[str, Any]) -> dict[str, str]:
    """Return the colour of each policy of a run, by its :func:`label`."""
    rows = results["rows"]
    chosen = policy_colours([(row["policy"], row["grouping"]) for row in rows])
    return dict(zip(map(label, rows), chosen.values(), strict=True))
