"""The packings of other libraries: a number of samples that varies, in a given capacity.

Grain deals its packs itself. Axolotl, which can't be imported without a GPU's libraries, is computed by its rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

AXOLOTL_GROUP = 100_000
"""Number of samples that Axolotl packs at a time (``sample_packing_group_size``)."""

AXOLOTL_MOST = 200
"""Largest number of samples of a pack (``sample_packing_bin_size``)."""

Packs = list[list[int]]
"""Sample numbers of each pack."""


class GrainPacking(NamedTuple):
    """One of Grain's packings, which keeps some packs open, and passes all of them on when a sample fits in none.

    Attributes:
        rule: ``"FirstFit"`` or ``"BestFit"``.
        bins: packs that are open.
    """

    rule: str
    bins: int

    @property
    def name(self) -> str:
        """Return the name for tables."""
        return f"Grain {self.rule}PackIterDataset, {self.bins:,} open"

    def dataset(self, samples: Sequence[dict[str, Any]], order: np.ndarray, capacities: dict[str, int]) -> Any:
        """Make Grain's dataset of packs of samples in an order: features, segment numbers and positions of each.

        Other entries of a sample than the modalities of ``capacities`` come as a list per pack.
        """
        grain = import_module("grain")
        make = getattr(import_module("grain.experimental"), f"{self.rule}PackIterDataset")
        read = grain.MapDataset.source([samples[i] for i in order.tolist()])
        beside = [name for name in samples[0] if name not in capacities]
        return make(
            read.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)),
            length_struct=capacities,
            num_packing_bins=self.bins,
            meta_features=beside,
        )

    def deal(self, lengths: np.ndarray, order: np.ndarray, capacities: np.ndarray) -> Packs:
        """Deal the packs of samples of ``lengths (n, M)``, with the ``capacities (M,)`` of a pack."""
        names = [str(m) for m in range(lengths.shape[1])]
        samples = [
            {**{name: np.zeros(n, np.uint8) for name, n in zip(names, row, strict=True)}, "number": i}
            for i, row in enumerate(lengths.tolist())
        ]
        packs = self.dataset(samples, order, dict(zip(names, capacities.tolist(), strict=True)))
        return [list(pack["number"]) for pack in packs]


def deal_axolotl(lengths: np.ndarray, order: np.ndarray, capacity: int, *, decreasing: bool) -> Packs:
    """Deal packs of samples of one modality, of ``lengths (n,)``, by the rule of Axolotl's ``MultipackBatchSampler``.

    Groups of :data:`AXOLOTL_GROUP` samples are packed by themselves, each sample into the first pack of its group that
    has room for it and fewer than :data:`AXOLOTL_MOST` samples (``axolotl/utils/samplers/multipack.py: pack_group``,
    at commit 067b021c8b of axolotl-ai-cloud/axolotl). The rule is named first-fit-decreasing there, and takes samples
    as they come; ``decreasing`` sorts those of a group first, the longest one in front.

    >>> deal_axolotl(np.array([4, 7, 6, 3]), np.arange(4), 10, decreasing=False)
    [[0, 2], [1, 3]]
    """
    packs: Packs = []
    for start in range(0, len(order), AXOLOTL_GROUP):
        ids = order[start : start + AXOLOTL_GROUP]
        if decreasing:
            ids = ids[np.argsort(-lengths[ids], kind="stable")]
        packs += _first_fit(lengths, ids, capacity)
    return packs


def _first_fit(lengths: np.ndarray, ids: np.ndarray, capacity: int) -> Packs:
    packs: Packs = []
    room = np.zeros(len(ids), np.int64)  # of each pack; -1 where it has its largest number of samples
    for i in ids.tolist():
        place = int((room[: len(packs)] >= lengths[i]).argmax()) if packs else 0
        if not packs or room[place] < lengths[i]:
            place = len(packs)
            packs.append([])
            room[place] = capacity
        packs[place].append(i)
        room[place] = room[place] - lengths[i] if len(packs[place]) < AXOLOTL_MOST else -1
    return packs


def check_packs(packs: Packs, lengths: np.ndarray, capacities: np.ndarray) -> None:
    """Check that each sample is in one pack, and that none exceeds ``capacities (M,)``.

    Raises:
        RuntimeError: a sample is lost or doubled, or a pack exceeds a capacity, so that a comparison would be wrong.
    """
    if sorted(i for pack in packs for i in pack) != list(range(len(lengths))):
        raise RuntimeError("the packs don't hold each sample once")
    if any((lengths[pack].sum(axis=0) > capacities).any() for pack in packs):
        raise RuntimeError(f"a pack is above its capacities of {capacities.tolist()}")
