"""Claim 5.2: does less padding make a better model?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from experiments.claims.claim import Claim

LEVEL = 0.05


def model_quality(results: dict[str, Any]) -> Claim:
    """5.2, from what :mod:`experiments.quality` measured."""
    rows = results["rows"]
    paddings = list(dict.fromkeys(row["padding"] for row in rows))
    seeds = results["config"]["seeds"]
    claim = Claim(
        "5.2",
        "Better models: no truncation artifacts, natural lengths, less overfitting",
        f"MELD's text with its real labels, {len(seeds)} seeds, the same configuration under {', '.join(paddings)} "
        "padding: weighted F1 on test at the epoch that is best on dev, and the gap between dev and train loss at "
        "the last epoch. Paired t-tests over the seeds.",
        f"Holds if exact padding has a higher F1 and a smaller gap than fixed padding, both at p < {LEVEL}; in part "
        "if one.",
    )
    scores, gaps = {}, {}
    for padding in paddings:
        of_padding = [row for row in rows if row["padding"] == padding]
        scores[padding] = claim.add(
            f"weighted F1, {padding}", [row["test"]["weighted_f1"] for row in of_padding], ".3f"
        )
        last = [row["history"][-1] for row in of_padding]
        gaps[padding] = claim.add(
            f"dev less train loss, {padding}", [r["evaluation"]["loss"] - r["train_loss"] for r in last], ".3f"
        )
    tests = {}
    for one, other in combinations(paddings, 2):
        for name, values in (("F1", scores), ("gap", gaps)):
            p = _paired(values[one], values[other])
            tests[name, frozenset((one, other))] = p
            claim.add(f"{name}, {one} less {other}", values[one] - values[other], "+.3f")
            claim.add(f"p of {name}, {one} less {other}", p, ".2f")
    pair = frozenset(("exact", "fixed"))
    better = tests["F1", pair] < LEVEL and float((scores["exact"] - scores["fixed"]).mean()) > 0
    tighter = tests["gap", pair] < LEVEL and float((gaps["exact"] - gaps["fixed"]).mean()) < 0
    differ = min(tests["F1", pair], tests["gap", pair]) < LEVEL
    means = ", ".join(f"{padding} {values.mean():.3f} ± {_deviation(values):.3f}" for padding, values in scores.items())
    apart = float((scores["exact"] - scores["fixed"]).mean())
    return claim.conclude(
        better and tighter,
        better or tighter,
        f"Weighted F1, mean and standard deviation over the seeds: {means}. Exact less fixed padding is {apart:+.3f} "
        f"(p = {tests['F1', pair]:.2f}); the gap between dev and train loss differs by "
        f"{float((gaps['exact'] - gaps['fixed']).mean()):+.3f} (p = {tests['gap', pair]:.2f})."
        + ("" if differ else " No difference shows between the two."),
    )


def _paired(one: np.ndarray, other: np.ndarray) -> float:
    """The p value of a paired t-test; 1 where there is nothing to test."""
    if len(one) < 2 or np.allclose(one, other):
        return 1.0
    return float(ttest_rel(one, other).pvalue)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
