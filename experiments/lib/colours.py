"""The colours of all pictures: a policy has the same one in each.

Each stands out from white and from the dark page by 3 to 1 at least, as WCAG 2.1, 1.4.11 requires of graphics.
"""

from __future__ import annotations

from multimodal_pad.planning.picture import POLICIES as PICTURED

COLOURS = ("#3366cc", "#b7791f", "#2f8f4e", "#d1495b", "#8a6d3b", "#8e5bd0", "#2a8c8c", "#6f86d6")

POLICIES = {
    "fixed": PICTURED["fixed"],
    "exact": PICTURED["exact"],
    "powers_of_two": PICTURED["powers of two"],
    "multiples_of_64": "#8a6d3b",
    "quantiles_4": PICTURED["quantiles"],
    "packed": PICTURED["packed"],
}
"""Colours of policies that are not planned; the plan's own picture has the same."""

NEUTRAL = "#7a8594"
"""The colour of what is no policy's, such as a band or a reference."""

PLANNED = (PICTURED["planned"], "#2a8c8c", "#b0568f", "#5f7fae")
"""Colours of plans, in order."""

LIBRARIES = {
    "numpy": "#7a8594",
    "torch": "#c4562e",
    "tensorflow": "#b0568f",
    "transformers": "#2a8c8c",
    "lhotse": "#7d8a2e",
    "grain": "#8a6d3b",
    "axolotl": "#9a6fc0",
}
"""Colours of other libraries, whatever their policy."""

PARTS = {
    "planning": "#8e5bd0",
    "compiling": "#d1495b",
    "stepping": "#3366cc",
    "waiting for data": "#b7791f",
}
"""Colours of the parts of a run's time."""


def policy_colour(policy: str) -> str:
    """Return the colour of a policy by its name, whatever its grouping.

    >>> policy_colour("planned_8/length") == policy_colour("planned, at most 4 shapes") == PLANNED[0]
    True
    """
    if policy.startswith("planned"):
        return PLANNED[0]
    return POLICIES[policy.partition("/")[0]]


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
