"""Options of all batchers of streams, and the buffers and intakes that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TypedDict

from multimodal_pad.batching.streams.balanced_buffer import BalancedBuffer
from multimodal_pad.batching.streams.buffer import StreamBuffer, Taken
from multimodal_pad.batching.streams.intake import Intake, Waiting
from multimodal_pad.batching.streams.length_buffer import LengthBuffer
from multimodal_pad.layouts.arrays import pad_values
from multimodal_pad.layouts.layout import BatchOfLayout, BatchShape
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.scheduling.checks import LongSamples, choose_cost
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.spans import LAY_OUT, span


class StreamKeywords(TypedDict, total=False):
    """The options as keywords, for type checkers, in the signatures that pass them on."""

    batch_size: int | None
    buffer: int
    seed: int
    long_samples: LongSamples
    pad_value: float | Mapping[str, float]
    check_finite: bool
    cost: Cost | None
    with_ids: bool


@dataclass(frozen=True, eq=False)
class StreamOptions:
    """Options for making batches of a stream's samples.

    :class:`~multimodal_pad.StreamBatcher` and :class:`~multimodal_pad.grain.StreamIterDataset` take these options as
    keywords.

    Args:
        policy: rounds lengths up to buckets; its modalities are the ones that are padded.
        batch_size: samples of every batch, where the policy leaves it open (a plan does not).
        buffer: samples that wait at most; more of them leave less padding.
        seed: of the order.
        long_samples: what to do with samples that no bucket holds: ``"error"``, ``"truncate"`` (keep the front) or
            ``"drop"``; a warning names the first one, and :attr:`StreamBatcher.stats` counts all.
        pad_value: what stands in the padding, for all modalities or per modality.
        check_finite: look for NaN and inf in float features.
        cost: cost per sample, for the grouping and the statistics; by default the plan's, or positions.
        with_ids: whether batches hold the numbers of their samples, as ``batch.ids``.

    Raises:
        PaddingError: an option out of range, or a cost of other modalities than the policy's.

    >>> from multimodal_pad import Ladder
    >>> options = StreamOptions(Ladder({"text": [8, 16]}), batch_size=2)
    >>> options.new_buffer().capacity
    2048
    """

    policy: Policy
    _: KW_ONLY
    batch_size: int | None = None
    buffer: int = 2048
    seed: int = 0
    long_samples: LongSamples = "error"
    pad_value: float | Mapping[str, float] = 0
    check_finite: bool = False
    cost: Cost | None = None
    with_ids: bool = False

    def __post_init__(self) -> None:
        self.new_buffer()  # the classes that are made of the options check them
        self.new_intake()
        pad_values(self.pad_value, self.policy.modalities)

    @property
    def sample_cost(self) -> Cost:
        """The cost given, or that of the policy's plan, or positions."""
        return choose_cost(self.policy, self.cost)

    def new_buffer(self, epoch: int = 0, batch: int = 0) -> StreamBuffer[Waiting]:
        """Return an empty buffer: of samples of like shape, or for batches whose samples lie end to end.

        Args:
            epoch: number of the pass over the samples, which changes the order.
            batch: number of the next batch.
        """
        self.policy.layout.check_streamed()
        kind = BalancedBuffer if self.policy.layout.end_to_end else LengthBuffer
        return kind(
            self.policy,
            self.buffer,
            batch_size=self.batch_size,
            cost=self.sample_cost,
            seed=self.seed,
            epoch=epoch,
            batch=batch,
        )

    def new_intake(self) -> Intake:
        """Return an intake that no sample has passed yet."""
        return Intake(self.policy, self.long_samples)

    def example(self, first: Waiting, intake: Intake) -> BatchOfLayout:
        """Lay out a batch of one sample, at its own lengths."""
        padded = tuple(max(1, len(first.sample[name])) for name in self.policy.modalities)
        return self.lay_out(Taken(padded, 1, [0], [first]), intake)

    def lay_out(self, taken: Taken[Waiting], intake: Intake) -> BatchOfLayout:
        """Lay out the batch of the samples taken, which this intake has let in; errors give their numbers."""
        names, layout = self.policy.modalities, self.policy.layout
        samples: list[Sample] = [dict(waiting.sample) for waiting in taken.samples]
        numbers = [waiting.number for waiting in taken.samples]
        with span(LAY_OUT):
            return layout.lay_out(
                intake.alike.arrays(samples, names, numbers),
                samples,
                BatchShape.of(taken.batch_size, dict(zip(names, taken.padded, strict=True)), layout),
                pad_value=self.pad_value,
                check_finite=self.check_finite,
                numbers=numbers,
                with_ids=self.with_ids,
            )
