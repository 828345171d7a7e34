"""Claims that the lengths alone decide: 3.3 on truncation, 6.4 on length distributions."""

from __future__ import annotations

import numpy as np

from experiments.claims.claim import KINDS, Claim, Setting, judge
from experiments.lib.distributions import DISTRIBUTIONS, draw_lengths
from multimodal_pad import (
    Exact,
    Fixed,
    LengthTable,
    Packed,
    PaddingStats,
    Planned,
    Policy,
    make_schedule,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.lengths.samples import EMPTY

FILE_LENGTHS = {"text": 50, "audio": 375, "visual": 500}
"""What the files of CMU-MOSI are padded, and cut, to."""

SAVING = (0.6, 0.8)
"""The memory that the description expects to be saved."""


def no_truncation(setting: Setting) -> Claim:
    """3.3: nothing of a sample is lost."""
    claim = Claim(
        "3.3",
        "No truncation: original lengths and timing are kept, unlike with fixed lengths",
        "Every sample of an epoch is laid out in a batch and taken out of it again, and compared bit by bit; for "
        "fixed lengths, how many samples they cut.",
        "Holds if every sample comes back whole, and one of the fixed lengths cuts some; in part if the former alone.",
    )
    whole = {}
    for kind, policy in {"fixed": "fixed/random", **KINDS}.items():
        batcher, equal = setting.batcher(policy), 0
        schedule, seen = batcher.schedule(0), 0
        for step, (_, row) in enumerate(schedule):
            ids = [int(i) for i in row if i != EMPTY]
            for index, sample in zip(ids, batcher.policy.layout.take_apart(batcher.batch(0, step)), strict=True):
                original = setting.samples[index]
                equal += all(np.array_equal(sample[m], original[m]) for m in setting.lengths.modalities)
                seen += 1
        whole[kind] = bool(claim.add(f"samples whole, {kind}", equal / seen, ".0%")[0] == 1)
    lengths, names = setting.lengths.values, setting.lengths.modalities
    limits = {
        "the longest sample": lengths.max(axis=0),
        "the 95th percentile": np.quantile(lengths, 0.95, axis=0),
        "the lengths of CMU-MOSI's files": np.array([FILE_LENGTHS[name] for name in names]),
    }
    cut = {
        name: claim.add(f"samples cut by {name}", (lengths > limit).any(axis=1).mean(), ".1%")[0]
        for name, limit in limits.items()
    }
    at_95, of_mosi = (claim.text(f"samples cut by {name}") for name in list(limits)[1:])
    return claim.conclude(
        {kind: judge(whole[kind] and any(cut.values()), whole[kind]) for kind in KINDS},
        "Every sample comes out of its batch as it went in, under every policy here. Only fixed lengths below the "
        f"longest sample cut anything: those at the 95th percentile cut {at_95} of the samples, CMU-MOSI's {of_mosi}. "
        "Fixed padding to the longest sample loses nothing either; what it costs is padding, and not content.",
    )


def distributions(setting: Setting, samples: int) -> Claim:
    """6.4: what is saved, over length distributions."""
    claim = Claim(
        "6.4",
        "Performance adapts to, and scales across, diverse length distributions",
        "Bytes of the batches of an epoch, each padded to its own maxima, against fixed padding to the longest "
        f"sample, for {len(DISTRIBUTIONS)} distributions of {samples:,} samples and {setting.seeds} seeds; the same "
        "for 8 planned shapes grouped by length, and for packed batches; and the share of the cost that is real. On "
        "MELD's utterances, "
        "meld is their own lengths, in an order per seed; features are as wide as the model's.",
        "Holds if at least 60 % is saved on every distribution, in part if on some.",
    )
    saved: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for name in DISTRIBUTIONS:
        found: dict[str, dict[str, list[float]]] = {
            kind: {"bytes": [], "shapes": [], "real_cost": []} for kind in KINDS
        }
        for seed in range(setting.seeds):
            own = name == "meld" and setting.corpus.source == "meld"
            table = setting.lengths if own else draw_lengths(name, samples, seed).select(setting.lengths.modalities)
            cost, rows = setting.model_config.cost, setting.corpus.batch_size
            plan = plan_shapes(table, max_shapes=8, cost=cost, grouping="length", batch_size=rows)
            fixed = _epoch(setting, table, Fixed.longest(table), "random", seed)
            epochs = {
                "exact": _epoch(setting, table, Exact(table.modalities), "random", seed),
                "planned": _epoch(setting, table, Planned(plan), "length", seed),
                "packed": _epoch(setting, table, Packed(plan_packing(table, cost=cost, batch_size=rows)), None, seed),
            }
            for kind, epoch in epochs.items():
                epoch["bytes"] = 1 - epoch["bytes"] / fixed["bytes"]
                for figure, values in found[kind].items():
                    values.append(epoch[figure])
        for kind, figures in found.items():
            saved[kind][name] = float(np.median(claim.add(f"{name}: saved, {kind}", figures["bytes"], ".0%")))
            claim.add(f"{name}: real cost, {kind}", figures["real_cost"], ".2f")
        claim.add(f"{name}: shapes, exact", found["exact"]["shapes"], ",.0f")
    enough = {kind: sum(share >= SAVING[0] for share in of_kind.values()) for kind, of_kind in saved.items()}
    least, most = (pick(saved["exact"], key=lambda n: saved["exact"][n]) for pick in (min, max))
    return claim.conclude(
        {kind: judge(enough[kind] == len(saved[kind]), enough[kind] > 0) for kind in KINDS},
        f"What a batch's own maximum saves depends on how far the longest of {setting.corpus.batch_size} samples "
        f"stays below the longest of all: {saved['exact'][least]:.0%} on {least}, {saved['exact'][most]:.0%} on "
        f"{most}. A random batch of a wide distribution nearly always holds a long sample, which grouping by length "
        f"and packing change: 60 % or more is saved on {enough['exact']} of {len(DISTRIBUTIONS)} distributions by "
        f"exact padding, on {enough['planned']} by planned shapes and on {enough['packed']} by packing. Where all "
        "samples are alike nothing can be saved.",
    )


def _epoch(setting: Setting, table: LengthTable, policy: Policy, grouping: str | None, seed: int) -> dict[str, float]:
    cost, rows = setting.model_config.cost, setting.corpus.batch_size
    schedule = make_schedule(table, policy, batch_size=rows, grouping=grouping, seed=seed, cost=cost)
    modalities = [setting.model_config.modalities[name] for name in table.modalities]
    widths = np.array([modality.feature_width or 1 for modality in modalities])  # of 4 bytes, as token ids are
    held = policy.layout.positions(schedule.batch_sizes, schedule.lengths) @ widths
    stats = PaddingStats(table.modalities, cost, policy.layout)
    stats.record(schedule.steps(), table)
    return {"bytes": float(held.sum()), "shapes": len(stats.shapes), "real_cost": stats.cost_efficiency}
