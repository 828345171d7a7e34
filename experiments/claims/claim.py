"""A claim: how it was measured, the figures, a verdict by a stated rule for each kind of batch, and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from experiments.lib import corpora, policies
from experiments.lib.tables import spread
from multimodal_pad import BucketBatcher, LengthTable
from multimodal_pad.models import TransformerConfig

Verdict = Literal["holds", "holds in part", "does not hold here"]

KINDS = {"exact": "exact/random", "planned": "planned_8/length", "packed": "packed"}
"""The kinds of dynamic batches, and the policy of :mod:`experiments.lib.policies` that stands for each.

Exact padding, each random batch to its own maxima, is what the description writes down; planned shapes and packed
batches are what else keeps padding low where each shape is compiled.
"""


def judge(whole: bool, part: bool) -> Verdict:
    """Return the verdict on a claim that holds as a whole, or in part.

    >>> judge(False, True)
    'holds in part'
    """
    return "holds" if whole else "holds in part" if part else "does not hold here"


@dataclass
class Claim:
    """One claim, and what was found.

    Attributes:
        section: of the description.
        says: the claim, in a few words.
        method: how it was measured.
        rule: when it holds.
        figures: name to values, one per seed, batch or repetition.
        forms: how to print the values of each figure.
        verdicts: one per kind of batch.
        reason: of the verdicts.
    """

    section: str
    says: str
    method: str
    rule: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    forms: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    reason: str = ""

    def add(self, name: str, values: Sequence[float] | np.ndarray | float, form: str = ".2f") -> np.ndarray:
        """Keep a figure; its values."""
        array = np.atleast_1d(np.asarray(values, float))
        self.figures[name], self.forms[name] = array.tolist(), form
        return array

    def text(self, name: str) -> str:
        """Return a figure for a sentence: the median, and the middle half where there are several values."""
        return spread(self.figures[name], self.forms[name])

    def conclude(self, verdicts: Verdict | Mapping[str, Verdict], reason: str) -> Claim:
        """Keep the verdict of each kind of batch, or the one that holds for all of them, and why."""
        self.verdicts = dict.fromkeys(KINDS, verdicts) if isinstance(verdicts, str) else dict(verdicts)
        self.reason = reason
        return self

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Setting:
    """What all claims are measured on.

    Attributes:
        samples: in memory.
        lengths: of them.
        model_config: of the three-modality model.
        corpus: where they come from.
        repeats: how often a step is timed.
        batches: how many batches are drawn where every one needs a program of its own.
        seeds: how many, where a figure has one value per seed.
    """

    samples: list[dict[str, Any]]
    lengths: LengthTable
    model_config: TransformerConfig
    corpus: corpora.Config
    repeats: int
    batches: int
    seeds: int

    def batcher(self, policy: str, seed: int = 0) -> BucketBatcher:
        """Return the batches of a policy of :mod:`experiments.lib.policies`, as ``"exact/random"``."""
        name, grouping = policies.parse_policy(policy)
        corpus = replace(self.corpus, seed=seed)
        made = policies.make_policy(name, grouping, self.lengths, corpus, self.model_config)
        return policies.make_batcher(made, grouping, self.samples, self.lengths, corpus, self.model_config)
