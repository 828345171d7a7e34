"""Saved positions of a run: what they are positions of, and whether this is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.cost import Cost, sampled_prices
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.scheduling.policy import Grouping, Policy, digest

VERSION = 1
"""Version of the rule that deals samples to steps: the steps of another version are other ones."""

_MEANING = {
    "version": "the version of the schedule",
    "lengths": "the dataset (fingerprint of its lengths)",
    "policy": "the policy",
    "shapes": "the plan (fingerprint of its shapes), or the policy's bucket lengths",
    "cost": "the cost function (fingerprint of its values at some lengths)",
    "batch_size": "the batch size",
    "grouping": "the grouping",
    "window": "the shuffle window",
    "seed": "the seed",
    "long_samples": "the option long_samples",
}


def describe_run(
    lengths: LengthTable, policy: Policy, grouping: Grouping, *, cost: Cost, **options: Any
) -> dict[str, Any]:
    """Return all that decides which samples are in which step, as JSON values; ``options`` are the batcher's.

    Policies are compared by their fingerprints, cost functions by their values at some lengths.
    """
    run = {
        "version": VERSION,
        "lengths": lengths.fingerprint,
        "policy": type(policy).__name__,
        "shapes": policy.fingerprint,
        "grouping": grouping.name,
    }
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    if grouping.draws_first:
        return {**run, **plain, "cost": None, "window": None}  # neither makes a difference there
    return {**run, "cost": digest(sampled_prices(cost, len(policy.modalities))), **plain}


def check_state(state: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epoch and step of a saved state, if it is one of this run.

    Raises:
        PaddingError: it is not; everything that differs is named.
    """
    absent = [key for key in run if key not in state] if isinstance(state, Mapping) else list(run)
    if absent:
        raise PaddingError(f"got a state without {absent}; give what batcher.state() returned, whole")
    position = state["epoch"], state["step"]
    if any(type(value) is not int or value < 0 for value in position):
        raise PaddingError(
            f"got a state at epoch {position[0]!r}, step {position[1]!r}; both are whole numbers, at least 0"
        )
    differences = [
        f"{meaning} is {run[key]!r} here and {state[key]!r} in the state"
        for key, meaning in _MEANING.items()
        if state[key] != run[key] and not (key in ("cost", "window") and None in (state[key], run[key]))
    ]
    if differences:
        raise PaddingError(
            f"got the state of another run: {'; '.join(differences)}. Give the batcher what the state was taken with, "
            "or begin at epoch 0 without it"
        )
    return position
