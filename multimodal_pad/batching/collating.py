"""A collate function of a plan, for loaders that decide themselves which samples share a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from multimodal_pad.layouts.arrays import pad_values
from multimodal_pad.layouts.fitting import fit_samples
from multimodal_pad.layouts.layout import BatchOfLayout
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.plan_policy import PolicyLike, as_policy


class Collator:
    """A collate function: lays samples that a loader has drawn out in a plan's cheapest batch shape that holds them.

    As a ``collate_fn`` of ``torch.utils.data.DataLoader`` it is pickled for worker processes, and a last batch that is
    short is filled up, so that no more shapes come than the plan has. Where JAX runs, start the workers with
    ``multiprocessing_context="spawn"``, since a process with threads must not be forked.

    A loader draws samples at random: plan with ``grouping="random"``, whose shapes hold any of them together. A batcher
    decides itself which samples share a batch, and pads less.

    Args:
        plan: a :class:`~multimodal_pad.ShapePlan`, a :class:`~multimodal_pad.PackingPlan`, a policy, or the path of a
            plan's file.
        batch_size: samples of every batch, where the policy leaves it open; by default as many as are given.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.

    Attributes:
        policy: that of the plan.

    Raises:
        PaddingError: it is no plan and no policy, or a pad value that is no number.
        UncoveredLengthError: from the call: no shape holds a sample, named by its place, or all of them together.
        SampleError: from the call: samples that are not alike, or more of them than a batch has.

    >>> import numpy as np
    >>> from multimodal_pad import plan_shapes
    >>> plan = plan_shapes({"text": [1, 3, 4, 9]}, max_shapes=2, batch_size=4, grouping="random")
    >>> collate = Collator(plan)
    >>> batch = collate([{"text": np.arange(3)}, {"text": np.arange(1)}])
    >>> str(batch.shape), batch.sample_mask.tolist()
    ('4 x (text 9)', [True, True, False, False])
    """

    def __init__(
        self,
        plan: PolicyLike,
        *,
        batch_size: int | None = None,
        pad_value: float | Mapping[str, float] = 0,
        check_finite: bool = False,
    ) -> None:
        if isinstance(plan, ShapePlan | PackingPlan):
            plan = replace(plan, cost=None)  # often a function that can't be pickled, and nothing is priced here
        self.policy, self.batch_size = as_policy(plan), batch_size
        pad_values(pad_value, self.policy.modalities)
        self.pad_value, self.check_finite = pad_value, check_finite

    def __call__(self, samples: Sequence[Sample]) -> BatchOfLayout:
        """Lay some samples out as a batch."""
        options: dict[str, Any] = {"pad_value": self.pad_value, "check_finite": self.check_finite}
        return fit_samples(samples, self.policy, batch_size=self.batch_size, **options)

    def __repr__(self) -> str:
        return f"Collator({self.policy!r})"
