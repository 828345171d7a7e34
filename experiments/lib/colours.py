"""The colours of all pictures: a policy has the same one in each.

Each stands out from white and from the dark page by 3 to 1 at least, as WCAG 2.1, 1.4.11 requires of graphics.
"""

from __future__ import annotations

COLOURS = ("#3366cc", "#b7791f", "#2f8f4e", "#d1495b", "#8a6d3b", "#8e5bd0", "#2a8c8c", "#6f86d6")

POLICIES = {
    "fixed": "#7a8594",
    "exact": "#b7791f",
    "powers_of_two": "#d1495b",
    "multiples_of_64": "#8a6d3b",
    "quantiles_4": "#8e5bd0",
    "packed": "#2f8f4e",
}
"""Colours of policies that are not planned."""

PLANNED = ("#4a6fe3", "#2a8c8c", "#b0568f", "#5f7fae")
"""Colours of plans, in order."""

PARTS = {
    "planning": "#8e5bd0",
    "compiling": "#d1495b",
    "stepping": "#3366cc",
    "waiting for data": "#b7791f",
}
"""Colours of the parts of a run's time."""


def policy_colours(policies: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return a colour for each policy and grouping; of two with the same colour, the later one gets one of the plans'.

    >>> policy_colours([("fixed", "random"), ("planned_8", "length"), ("packed", "balanced")])[("packed", "balanced")]
    '#2f8f4e'
    """
    colours: dict[tuple[str, str], str] = {}
    spare = 0
    for policy in policies:
        colour = POLICIES.get(policy[0])
        if colour is None or colour in colours.values():
            colour, spare = PLANNED[spare % len(PLANNED)], spare + 1
        colours[policy] = colour
    return colours
