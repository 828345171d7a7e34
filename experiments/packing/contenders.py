"""How full the packs of this library and of others are in the same capacities, and how fast they are laid out.

Both are measured on all modalities, and on text alone, the usual input of packers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table
from experiments.packing.packers import AXOLOTL_MOST, GrainPacking, Packs, check_packs, deal_axolotl
from multimodal_pad import BucketBatcher, LengthTable, Packed, PackingPlan, make_schedule, plan_packing
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.dealing import shuffled
from multimodal_pad.sources.synthetic import WIDTHS

OURS = "multimodal_pad, balanced"

SEED = 1
"""Seed of the epoch that is counted and timed; plans are found on other epochs."""

Epoch = Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Config:
    """Options of one comparison, with every default.

    Attributes:
        batch_size: of the plan whose capacities all packers get.
        alignment: what these are multiples of.
        bins: packs that Grain has open at once; the fewest are timed, since the arrays of many are gigabytes.
        repeats: epochs of each packer that are timed, in turn.
    """

    batch_size: int = 32
    alignment: int = 8
    bins: tuple[int, ...] = (64, 1024)
    repeats: int = 5


def compare(lengths: LengthTable, config: Config, progress: Progress) -> dict[str, Any]:
    """Compare other packers with this one, on all modalities, and on text alone."""
    rows = []
    for names in (lengths.modalities, ("text",)):
        table = lengths.select(names)
        plan = plan_packing(table, batch_size=config.batch_size, alignment=config.alignment, cost=reference_cost)
        packs = _deal(table, plan, config)
        epochs = _epochs(table, plan, config)
        task = progress.add_task(f"packers, {len(names)} modalities", total=config.repeats * len(epochs))
        seconds: dict[str, list[float]] = {name: [] for name in packs}
        for _ in range(config.repeats):
            for name, epoch in epochs.items():
                begun = time.perf_counter()
                for _ in epoch():
                    pass
                seconds[name].append(time.perf_counter() - begun)
                progress.advance(task)
        capacities = plan.lengths[0]
        rows += [
            {"packer": name, **_held(dealt, table, capacities), "seconds": seconds[name]}
            for name, dealt in packs.items()
        ]
    return {"config": asdict(config), "grain": version("grain") if find_spec("grain") else None, "rows": rows}


def _deal(lengths: LengthTable, plan: PackingPlan, config: Config) -> dict[str, Packs]:
    """Deal the packs of each packer."""
    order, capacities = shuffled(len(lengths), SEED, 0), plan.lengths[0]
    steps = make_schedule(lengths, Packed(plan), seed=SEED)
    found = {OURS: [ids[ids != EMPTY].tolist() for _, ids in steps]}
    found |= {packing.name: packing.deal(lengths.values, order, capacities) for packing in _grain(config.bins)}
    if len(lengths.modalities) == 1:
        column, capacity = lengths.values[:, 0], int(capacities[0])
        for decreasing, how in ((False, "as written"), (True, "sorted first")):
            packs = deal_axolotl(column, order, capacity, decreasing=decreasing)
            found[f"Axolotl MultipackBatchSampler, {how}"] = packs
    return found


def _epochs(lengths: LengthTable, plan: PackingPlan, config: Config) -> dict[str, Epoch]:
    """Return functions that deal and lay out an epoch of float32 features."""
    samples, order = _random_samples(lengths), shuffled(len(lengths), SEED, 0)
    capacities = dict(zip(plan.modalities, plan.lengths[0].tolist(), strict=True))
    batcher = BucketBatcher(samples, Packed(plan), lengths=lengths, seed=SEED, prefetch=0)
    found: dict[str, Epoch] = {OURS: lambda: batcher.epoch(0)}
    for packing in _grain((min(config.bins),)):
        found[packing.name] = partial(iter, packing.dataset(samples, order, capacities))
    return found


def _grain(bins: Iterable[int]) -> list[GrainPacking]:
    return [GrainPacking(*each) for each in product(("FirstFit", "BestFit"), bins)] if find_spec("grain") else []


def _random_samples(lengths: LengthTable) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            name: rng.standard_normal((length, WIDTHS[name]), np.float32)
            for name, length in zip(lengths.modalities, row, strict=True)
        }
        for row in lengths.values.tolist()
    ]


def _held(packs: Packs, lengths: LengthTable, capacities: np.ndarray) -> dict[str, Any]:
    """Measure how full packs are."""
    check_packs(packs, lengths.values, capacities)
    real, held = lengths.values.sum(axis=0), len(packs) * capacities
    fill = dict(zip(lengths.modalities, (real / held).tolist(), strict=True))
    counts = [len(pack) for pack in packs]
    return {
        "modalities": list(lengths.modalities),
        "capacities": capacities.tolist(),
        "batches": len(packs),
        "fill": {**fill, "total": float(real.sum() / held.sum())},
        "samples_per_batch": [min(counts), float(np.median(counts)), max(counts)],
        "samples": len(lengths),
    }


def told_fill(fill: dict[str, float]) -> str:
    """Format the fill of each modality, or of the lowest and the highest where there are many."""
    each = [share for name, share in fill.items() if name != "total"]
    return ", ".join(f"{share:.3f}" for share in each) if len(each) <= 3 else f"{min(each):.3f} to {max(each):.3f}"


def table(results: dict[str, Any], corpus: str) -> Table:
    """Make a row per packer, on all modalities and on text alone; ``corpus`` names the source of the lengths."""
    rows = []
    for row in results["rows"]:
        low, middle, high = row["samples_per_batch"]
        rate = f"{row['samples'] / np.median(row['seconds']):,.0f}" if row["seconds"] else ""
        rows.append(
            [
                row["packer"],
                ", ".join(f"{m} {n:,}" for m, n in zip(row["modalities"], row["capacities"], strict=True)),
                told_fill(row["fill"]),
                f"{row['fill']['total']:.3f}",
                f"{row['batches']:,}",
                f"{middle:g} ({low} to {high})",
                rate,
            ]
        )
    config = results["config"]
    wide = ", ".join(f"{n} wide ({m})" for m, n in WIDTHS.items())
    return Table(
        "How well other packers fill the same capacities",
        ["packer", "capacity", "fill by modality", "fill", "batches", "samples in a batch", "samples/s"],
        rows,
        f"{results['rows'][0]['samples']:,} samples ({corpus}) in the capacities of "
        f"`plan_packing(batch_size={config['batch_size']})`; samples in a batch: median, fewest and most. "
        f"Samples per second: an epoch of float32 features, {wide}, dealt and laid out in one thread, median of "
        f"{config['repeats']} epochs in turn. grain {results['grain']}; Axolotl by its rule, computed: at most "
        f"{AXOLOTL_MOST} samples in a batch.",
        text_columns=2,
    )
