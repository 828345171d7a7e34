"""Laying given samples out in the smallest batch shape of a plan or a policy that holds them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError, UncoveredLengthError
from multimodal_pad.layouts.arrays import array_lengths, taken_together
from multimodal_pad.layouts.layout import BatchOfLayout, BatchShape, Layout
from multimodal_pad.lengths.samples import Sample


class Shapes(Protocol):
    """A plan or a policy: anything that has batch shapes."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102  names of the M columns

    @property
    def layout(self) -> Layout: ...  # noqa: D102

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the cheapest batch shape that holds samples of ``lengths (n, M)`` together."""
        ...


class Covering(Protocol):
    """Anything that says which lengths it covers, and why it doesn't cover others."""

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def layout(self) -> Layout: ...  # noqa: D102

    def covers(self, lengths: np.ndarray) -> np.ndarray: ...  # noqa: D102

    def why_not(self, lengths: np.ndarray) -> str: ...  # noqa: D102


def fit_samples(
    samples: Sequence[Sample],
    plan: Shapes,
    *,
    batch_size: int | None = None,
    modalities: Sequence[str] | None = None,
    pad_value: float | Mapping[str, float] = 0,
    check_finite: bool = False,
    ids: Sequence[int] | None = None,
    with_ids: bool = False,
) -> BatchOfLayout:
    """Lay samples out in the cheapest batch shape of a plan that holds them all.

    Args:
        samples: at least one, as for :func:`~multimodal_pad.pad_samples`.
        plan: a plan or a policy.
        batch_size: samples of the batch where the plan leaves it open; by default as many as there are.
        modalities: those of the plan, in the order in which they are laid out; by default in the plan's.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        ids: the numbers of the samples, which errors give; by default their places in ``samples``.
        with_ids: whether the batch holds the numbers too.

    Raises:
        UncoveredLengthError: a sample is longer than every shape, or the samples together need one that there is not.
        SampleError: samples that are not alike, or more than a batch has.
        PaddingError: other modalities, or another batch size, than the plan's.

    >>> from multimodal_pad import Ladder
    >>> fit_samples([{"text": [5, 6, 7]}, {"text": [8]}], Ladder({"text": [4, 8]}), batch_size=3).shape
    BatchShape(batch_size=3, lengths=(('text', 4),), layout=PaddedLayout(name='padded'))
    """
    names = plan.modalities if modalities is None else tuple(modalities)
    if set(names) != set(plan.modalities):
        raise PaddingError(f"got modalities={list(names)} with a plan of {list(plan.modalities)}; leave them out")
    samples, arrays, _, numbers = taken_together(samples, None, names, ids)
    lengths = np.stack([array_lengths(arrays[name]) for name in plan.modalities], axis=1)
    shape = plan.shape_for(lengths, batch_size=batch_size, numbers=numbers)
    return plan.layout.lay_out(
        arrays, samples, shape, pad_value=pad_value, check_finite=check_finite, numbers=numbers, with_ids=with_ids
    )


def check_plan(plan: Any, layout: str, instead: str) -> None:
    """Raise a PaddingError unless it has batch shapes, of this layout; ``instead`` makes batches of the other one."""
    if not hasattr(plan, "shape_for"):
        raise PaddingError(
            f"got {type(plan).__name__} for the plan; give a ShapePlan, a PackingPlan or a policy (options such as "
            "batch_size= are given by their names)"
        )
    if plan.layout.name != layout:
        raise PaddingError(f"got {plan!r}, whose batches are {plan.layout.name} and not {layout}; use {instead}")


def check_together(shapes: Covering, lengths: np.ndarray, numbers: Sequence[int] | None) -> np.ndarray:
    """Return the least lengths ``(M,)`` of a shape that holds samples of ``lengths (n, M)`` in one batch.

    Raises:
        UncoveredLengthError: none holds one of the samples, or all of them together.
    """
    numbers = range(len(lengths)) if numbers is None else numbers
    covered = shapes.covers(lengths)
    if not covered.all():
        row = int(np.argmin(covered))
        raise UncoveredLengthError(
            f"sample {numbers[row]}: {shapes.why_not(lengths[row])}; plan for samples as long as this, or cut or leave "
            "out the longer ones on purpose"
        )
    needed = shapes.layout.together(lengths)
    if not shapes.covers(needed[None])[0]:
        first = ", ".join(str(number) for number in list(numbers)[:8]) + (", ..." if len(lengths) > 8 else "")
        advice = (
            "give fewer samples, or let BucketBatcher or StreamBatcher deal them, so that all batches are alike"
            if shapes.layout.end_to_end
            else 'plan with grouping="random", which holds any samples together, or let BucketBatcher or StreamBatcher '
            "choose which samples share a batch"
        )
        raise UncoveredLengthError(
            f"each of the {len(lengths)} samples ({first}) has a shape, and all together have none: "
            f"{shapes.why_not(needed)}; {advice}"
        )
    return needed


def check_rows(count: int, batch_size: int, given: int | None = None) -> int:
    """Return the batch size of a plan.

    Raises:
        SampleError: there are more samples.
        PaddingError: another batch size is given.
    """
    if given is not None and given != batch_size:
        raise PaddingError(f"got batch_size={given} with a plan of batches of {batch_size}; leave it out")
    if count > batch_size:
        raise SampleError(
            f"got {count} samples for a batch of {batch_size} rows; give at most as many as the plan's batches have "
            f"(for a loader: batch_size={batch_size})"
        )
    return batch_size
