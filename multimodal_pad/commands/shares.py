"""The columns of a table that compares policies: the real share of each modality, or the extremes of many."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_pad.terminal import as_cell

SHOWN = 10
"""Most modalities with a column each; of more, only the least and the largest share are shown."""


def share_headings(modalities: Sequence[str]) -> list[str]:
    """Return the headings of the columns.

    >>> share_headings(("text", "audio")), share_headings([str(n) for n in range(40)])
    (['text', 'audio'], ['least of 40', 'most of 40'])
    """
    if len(modalities) <= SHOWN:
        return [as_cell(name) for name in modalities]
    return [f"least of {len(modalities)}", f"most of {len(modalities)}"]


def shown_shares(cost: float, positions: Sequence[float]) -> list[str]:
    """Return the cells: of the cost, and of the columns of :func:`share_headings`.

    >>> shown_shares(0.5, [0.25, 1.0]), shown_shares(0.5, [0.25, 0.5] * 20)
    (['0.500', '0.250', '1.000'], ['0.500', '0.250', '0.500'])
    """
    shares = positions if len(positions) <= SHOWN else [min(positions), max(positions)]
    return [f"{share:.3f}" for share in (cost, *shares)]
