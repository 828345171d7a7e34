"""The contents of a flat cache, and the padding efficiency of policies on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_pad.lengths.cost import TransformerCost
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.planning.comparison import PolicyEfficiency, policy_efficiency
from multimodal_pad.planning.planned import Planned
from multimodal_pad.planning.planner import plan_shapes
from multimodal_pad.scheduling.policies import Exact, Fixed
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.sources.manifest import require_manifest
from multimodal_pad.sources.numpy_dir import NumpyDir


@dataclass(frozen=True)
class Inspection:
    """The figures that ``multimodal-pad inspect`` prints.

    Attributes:
        manifest: of the cache.
        bytes: of all its files.
        split: the split whose padding is compared.
        policies: padding efficiency by the name of the policy; the cost is that of this package's transformer.
    """

    manifest: dict[str, Any]
    bytes: int
    split: str
    policies: dict[str, PolicyEfficiency]


def inspect_cache(folder: str | Path, *, batch_size: int = 32, max_shapes: int = 8) -> Inspection:
    """Read the manifest and the lengths of a cache, and compare fixed, exact and planned padding.

    Fixed padding is to the length of the files that the cache was made of, where they are padded, and to the longest
    sample of the training split (or the only one); exact padding takes random batches to their own maxima; the plan is
    for batches that are grouped by length.

    Raises:
        SourceError: no cache, or one that is damaged.
        PaddingError: a batch size or number of shapes below 1.

    >>> import tempfile, numpy as np
    >>> from multimodal_pad.sources import convert
    >>> samples = [{"audio": np.ones((n, 2), np.float32)} for n in (3, 1, 4)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert({"train": samples}, folder + "/cache")
    ...     found = inspect_cache(folder + "/cache", batch_size=1)
    >>> {name: round(row.positions[0], 3) for name, row in found.policies.items()}
    {'fixed, longest': 0.667, 'exact, random': 1.0, 'planned 8, length': 1.0}
    """
    folder = Path(folder)
    manifest = require_manifest(folder)
    split = train_split(manifest)
    source = {name: NumpyDir(folder, name) for name in manifest["splits"]}[split]  # raises where one can't be opened
    return Inspection(
        manifest,
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        split,
        compare_policies(source.lengths, source.padded_to, batch_size, max_shapes),
    )


def train_split(manifest: dict[str, Any]) -> str:
    """Return the training split of a cache, or the first one where none has that name."""
    return "train" if "train" in manifest["splits"] else next(iter(manifest["splits"]))


def compare_policies(
    lengths: LengthTable, padded_to: dict[str, int] | None, batch_size: int, max_shapes: int
) -> dict[str, PolicyEfficiency]:
    """Return the padding efficiency of each policy, in positions and in the cost of a transformer."""
    names = lengths.modalities
    cost = TransformerCost(names)
    plan = plan_shapes(lengths, max_shapes=max_shapes, cost=cost, batch_size=batch_size)
    policies: dict[str, tuple[Policy, str]] = {
        "fixed, longest": (Fixed.longest(lengths), "random"),
        "exact, random": (Exact(names), "random"),
        f"planned {max_shapes}, length": (Planned(plan), "length"),
    }
    if padded_to is not None:
        policies = {"fixed, as in the file": (Fixed({name: padded_to[name] for name in names}), "random"), **policies}
    return {
        name: policy_efficiency(policy, lengths, cost, grouping=grouping, batch_size=batch_size)
        for name, (policy, grouping) in policies.items()
    }
