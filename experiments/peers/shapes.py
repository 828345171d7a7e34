"""The real cost and the number of batch shapes, under the rules of other libraries and ours.

An epoch of each rule is dealt, over length tables alone. A rule of a package is computed here, and where the package is
installed it deals the batches itself as well: both must agree, and the package's batches are counted.

A shape is rows and padded lengths, as for XLA. This project fills the last batch of a shape up with empty rows, whose
cost counts; the others leave it with fewer rows, which is another shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table
from experiments.peers.bucketing import (
    Task,
    deal_bucketed,
    deal_durations,
    deal_grouped,
    deal_rounded,
    run_lhotse,
    run_tensorflow,
)
from multimodal_pad import Exact, Fixed, Ladder, LengthTable, PaddingError, Planned, Policy, make_schedule, plan_shapes
from multimodal_pad.batching.ledger import PaddingStats
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import EMPTY
from multimodal_pad.scheduling.dealing import shuffled
from multimodal_pad.scheduling.groupings import GROUPINGS
from multimodal_pad.scheduling.steps import Steps

KEYS = ("audio", "text")
"""The sort keys of rules that sort by one modality."""

BUCKETS = (4, 8, 16)
MULTIPLES = (8, 64)
SMALLEST_POWER = 8
SEED = 0


Deal = Callable[[Task], Steps]


class Rule(NamedTuple):
    """A rule that groups samples into batches and pads them.

    Attributes:
        policy: the rule, in words.
        grouping: what is alike in a batch; ``"random"`` where nothing is.
        deal: the steps of an epoch by this rule.
        package: whose rule it is; None for this project.
        run: the steps of an epoch as the package deals them, or None where only the rule is computed.
    """

    policy: str
    grouping: str
    deal: Deal
    package: str | None = None
    run: Deal | None = None


def plan(task: Task, grouping: str, count: int) -> Policy:
    """Plan at most ``count`` shapes."""
    options = {"cost": task.cost, "batch_size": task.batch_size, "grouping": grouping}
    return Planned(plan_shapes(task.lengths, max_shapes=count, **options))


def deal_policy(task: Task, make: Callable[[Task, str], Policy], grouping: str) -> Steps:
    """Deal a schedule of this project."""
    options = {"batch_size": task.batch_size, "grouping": grouping, "seed": SEED, "cost": task.cost}
    return make_schedule(task.lengths, make(task, grouping), **options).steps()


def _fixed(task: Task, _: str) -> Policy:
    return Fixed.longest(task.lengths)


def _own_maxima(task: Task, _: str) -> Policy:
    return Exact(task.lengths.modalities)


def _powers(task: Task, _: str) -> Policy:
    return Ladder.powers_of_two(task.lengths, smallest=SMALLEST_POWER)


def _ours(policy: str, make: Callable[[Task, str], Policy], grouping: str = "random") -> Rule:
    return Rule(
        policy, {"random": "random", "length": "shape"}[grouping], partial(deal_policy, make=make, grouping=grouping)
    )


def _rules() -> list[Rule]:
    made = [
        _ours("fixed padding", _fixed),
        _ours("own maxima (Algorithm 1)", _own_maxima),
        _ours("powers of two", _powers),
    ]
    for multiple in MULTIPLES:
        deal = partial(deal_rounded, multiple=multiple)
        made.append(Rule(f"pad_to_multiple_of={multiple}", "random", deal, "transformers"))
    for multiple in (1, *MULTIPLES):
        name = "group_by_length" + (f", pad_to_multiple_of={multiple}" if multiple > 1 else "")
        made += [Rule(name, key, partial(deal_grouped, key=key, multiple=multiple), "transformers") for key in KEYS]
    for to_boundary, count in product((False, True), BUCKETS):
        name = f"bucket_by_sequence_length, {count} buckets" + (", to the boundary" if to_boundary else "")
        options: dict[str, Any] = {"key": KEYS[0], "count": count, "to_boundary": to_boundary}
        deal, run = partial(deal_bucketed, **options), partial(run_tensorflow, **options)
        made.append(Rule(name, KEYS[0], deal, "tensorflow", run))
    for count in BUCKETS:
        deal, run = (partial(each, key=KEYS[0], count=count) for each in (deal_durations, run_lhotse))
        made.append(Rule(f"DynamicBucketingSampler, {count} buckets", KEYS[0], deal, "lhotse", run))
    made.append(_ours("powers of two", _powers, "length"))
    for grouping, count in product(GROUPINGS, BUCKETS):
        made.append(_ours(f"planned, at most {count} shapes", partial(plan, count=count), grouping))
    return made


RULES: tuple[Rule, ...] = tuple(_rules())
"""Every rule that :func:`compare` goes through, for each table."""


def compare(
    tables: dict[str, LengthTable], batch_size: int, tick: Callable[[], None], cost: Cost = reference_cost
) -> list[dict[str, Any]]:
    """Measure a row for each of the :data:`RULES` on each table, of plain JSON values.

    Args:
        tables: lengths of text, audio and whatever else there is, by the name of the distribution.
        batch_size: rows of a batch.
        tick: called after each row.
        cost: what a row costs at its padded lengths.

    Raises:
        PaddingError: a table lacks a modality that rules sort by.
        RuntimeError: a package deals other batches than its rule.
    """
    rows = []
    for distribution, lengths in tables.items():
        if missing := [key for key in KEYS if key not in lengths.modalities]:
            raise PaddingError(f"{distribution}: got no lengths of {missing}, only of {list(lengths.modalities)}")
        task = Task(lengths, shuffled(len(lengths), SEED, 0), batch_size, cost)
        for rule in RULES:
            rows.append({"distribution": distribution, **measure(rule, task)})
            tick()
    return rows


def measure(rule: Rule, task: Task) -> dict[str, Any]:
    """Measure one rule; the seconds are those of dealing an epoch, planning included."""
    begun = time.perf_counter()
    steps = rule.deal(task)
    seconds = time.perf_counter() - begun
    installed = rule.run is not None and rule.package is not None and find_spec(rule.package) is not None
    if rule.run is not None and installed:
        begun = time.perf_counter()
        dealt = rule.run(task)
        seconds = time.perf_counter() - begun
        if as_batches(dealt) != as_batches(steps):
            raise RuntimeError(f"{rule.package}: {rule.policy}: its batches are not those of the rule")
        steps = dealt
    stats = PaddingStats(task.lengths.modalities, task.cost)
    stats.record(steps, task.lengths)
    return {
        "policy": rule.policy,
        "package": rule.package,
        "measured_with_package": installed,
        "version": import_module(rule.package).__version__ if installed and rule.package else None,
        "grouping": rule.grouping,
        "shapes": len(np.unique(np.column_stack([steps.batch_sizes, steps.lengths]), axis=0)),
        "batches": len(steps),
        "cost_efficiency": stats.cost_efficiency,
        "position_efficiency": stats.position_efficiency["total"],
        "samples_dropped": len(task.lengths) - stats.samples,
        "seconds": seconds,
    }


def as_batches(steps: Steps) -> list[tuple[list[int], list[int]]]:
    """Return the batches sorted, for comparing: sorted sample numbers, and padded lengths."""
    return sorted((sorted(ids[ids != EMPTY].tolist()), shape.tolist()) for shape, ids in steps)


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Make one table: real cost and number of shapes of each rule on each distribution."""
    distributions = list(dict.fromkeys(row["distribution"] for row in rows))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        left_out = f"; {row['samples_dropped']:,} left out" if row["samples_dropped"] else ""
        rule = (row["policy"], row["package"] or "multimodal_pad", row["grouping"])
        found = f"{row['cost_efficiency']:.3f} ({row['shapes']:,}{left_out})"
        cells.setdefault(rule, {})[row["distribution"]] = found
    measured = [row for row in rows if row["measured_with_package"]]
    dealt = {f"{row['package']} {row['version']}" for row in measured}
    computed = {row["package"] for row in rows if row["package"]} - {row["package"] for row in measured}
    texts = [
        "Real cost of one epoch, by the reference cost; in brackets the number of its batch shapes, which differ in "
        "rows too, and of samples that the rule can't take. Alike: what the samples of a batch have in common. "
        "`transformers`, `tensorflow` and `lhotse` keep a short last batch of each bucket, whose number of rows makes "
        "another shape; here it is filled up with empty rows, whose cost counts.",
        *([f"Batches dealt by the package itself: {', '.join(sorted(dealt))}."] if dealt else []),
        *([f"Computed by the package's rule: {', '.join(sorted(computed))}."] if computed else []),
    ]
    return [
        Table(
            "Real cost of each rule",
            ["rule", "of", "alike", *distributions],
            [[*rule, *(found.get(name, "") for name in distributions)] for rule, found in cells.items()],
            " ".join(texts),
            text_columns=3,
        )
    ]
