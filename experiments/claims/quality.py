"""Claim 5.2: does less padding make a better model?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from experiments.claims.claim import KINDS, Claim, judge

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
        f"Holds if the F1 is higher and the gap smaller than under fixed padding, both at p < {LEVEL}; in part if one.",
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
    verdicts, told = {}, []
    for kind in [kind for kind in KINDS if kind in scores]:
        f1, gap = (float((values[kind] - values["fixed"]).mean()) for values in (scores, gaps))
        p_f1, p_gap = (tests[name, frozenset((kind, "fixed"))] for name in ("F1", "gap"))
        better, tighter = p_f1 < LEVEL and f1 > 0, p_gap < LEVEL and gap < 0
        verdicts[kind] = judge(better and tighter, better or tighter)
        told.append(f"{kind} {f1:+.3f} (p = {p_f1:.2f}) and {gap:+.3f} (p = {p_gap:.2f})")
    means = ", ".join(f"{padding} {values.mean():.3f} ± {_deviation(values):.3f}" for padding, values in scores.items())
    return claim.conclude(
        verdicts,
        f"Weighted F1, mean and standard deviation over the seeds: {means}. Against fixed padding, F1 and the gap "
        f"between dev and train loss differ by: {'; '.join(told)}.",
    )


def _paired(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p value of a paired t-test; 1 where there is nothing to test."""
    if len(one) < 2 or np.allclose(one, other):
        return 1.0
    return float(ttest_rel(one, other).pvalue)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
