"""The policy of a batcher, given as it is, as a plan, or as the path of a plan's file."""

from __future__ import annotations

import json
from pathlib import Path

from multimodal_pad.errors import PaddingError
from multimodal_pad.planning.packed import Packed
from multimodal_pad.planning.packing_plan import FORMAT, PackingPlan
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.planned import Planned
from multimodal_pad.scheduling.policy import Policy

PolicyLike = Policy | ShapePlan | PackingPlan | str | Path
"""A policy; a plan, which stands for its policy (:class:`Planned`, :class:`Packed`); or the path of a plan's file."""


def as_policy(policy: PolicyLike) -> Policy:
    """Return the policy given, or the policy of a plan or of a plan's file.

    Raises:
        PaddingError: it is none of these.
        PlanError: the file holds no plan.
        OSError: the file can't be read.

    >>> from multimodal_pad import plan_shapes
    >>> as_policy(plan_shapes({"text": [3, 5, 9]}, max_shapes=2)).lengths().tolist()
    [[5], [9]]
    """
    if isinstance(policy, str | Path):
        policy = load_any_plan(policy)
    if isinstance(policy, ShapePlan):
        return Planned(policy)
    if isinstance(policy, PackingPlan):
        return Packed(policy)
    if not isinstance(policy, Policy):
        raise PaddingError(
            f"got {type(policy).__name__} for the policy; give a policy (Planned, Packed, Ladder, Fixed, Exact), a "
            "plan (of plan_shapes or plan_packing), or the path of a plan's file"
        )
    return policy


def load_any_plan(path: str | Path) -> ShapePlan | PackingPlan:
    """Read a plan from a file, of whichever kind it is.

    Raises:
        PlanError: the file holds no plan.
        OSError: the file can't be read.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        found = None  # ShapePlan.from_json raises for what is no JSON
    kind = PackingPlan if isinstance(found, dict) and found.get("format") == FORMAT else ShapePlan
    return kind.load(path)
