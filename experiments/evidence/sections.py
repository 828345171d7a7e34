"""What the page of evidence says of each part: an answer made of figures, charts, tables and where they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.claims import __main__ as seed_claims
from experiments.claims.claim import KINDS
from experiments.evidence.figures import FIGURES
from experiments.evidence.headline import headline
from experiments.evidence.page import Section
from experiments.lib.provenance import where_measured
from experiments.lib.tables import Table, spread
from experiments.packing import __main__ as packing
from experiments.peers import __main__ as benchmark_peers
from experiments.peers import training
from experiments.quality import __main__ as quality
from experiments.scaling import __main__ as scaling

RESULTS = "results.json"

Results = dict[str, Any]


def make_sections(found: dict[str, Results], left_out: Sequence[str] = ()) -> list[Section]:
    """Return a section per part that is there; the first one has the headline, and what was left out."""
    sections = []
    for name, (title, answer, tables) in _PARTS.items():
        if name not in found:
            continue
        results = found[name]
        missing = results.get("not_installed")
        sentences = [*answer(results)]
        if missing:
            sentences.append(f"Not installed, and left out: {', '.join(missing)}.")
        sections.append(
            Section(
                name,
                title,
                sentences,
                FIGURES[name](results),
                tables(results),
                where_measured(results),
            )
        )
    if sections:
        first, missing = sections[0], [f"Left out: {line}." for line in left_out]
        sections[0] = first._replace(answer=[*first.answer, *missing], headline=headline(found))
    return sections


def claims_answer(results: Results) -> list[str]:
    """How many claims hold."""
    told = []
    for kind in KINDS:
        counts = Counter(claim["verdicts"].get(kind, "not measured") for claim in results["claims"])
        told.append(f"{kind}: {', '.join(f'{verdict} {count}' for verdict, count in sorted(counts.items()))}")
    return [
        f"Verdicts on {len(results['claims'])} claims, by kind of batches: {'; '.join(told)}.",
        "The description of Algorithm 1 is about eager frameworks, and leaves compiling out; what is measured here is "
        "JAX.",
    ]


def training_answer(results: Results) -> list[str]:
    """Packed batches and the plan of 8 shapes against each of the others."""
    told = []
    for ours, others in training.ratios(results["training"]).items():
        rates = "; ".join(f"{spread(values)} times those of {name}" for name, values in others)
        told.append(f"Samples per second of {ours}, once compiled: {rates}.")
    ranked = sorted(results["training"]["rows"], key=lambda row: row["seconds"]["3"])
    return [
        *told,
        *training.costs(results["training"]),
        "Seconds for 3 epochs, compiling included, from the fewest: "
        + ", ".join(
            f"{row['name']} ({row['batches'].split('/')[1]}) {training.seconds_text(row, '3')}" for row in ranked
        )
        + ".",
    ]


def training_text(results: Results) -> str:
    """Return the same for a page of the documentation."""
    return "\n\n".join(training_answer(results))


def packing_text(results: Results) -> str:
    """:func:`packing_answer` for a page of the documentation."""
    return "\n\n".join(packing_answer(results))


def kernel_answer(results: Results) -> list[str]:
    """Return the batcher against a plain copy."""
    rows = results["kernel"]["rows"]
    copying = rows[0]["bytes"] / np.array(rows[0]["seconds"])
    shares = {row["name"]: spread(row["bytes"] / np.array(row["seconds"]) / copying) for row in rows}
    shown = [name for name in shares if name.startswith(("BucketBatcher", "pad_samples", "torch", "tf.data", "Grain"))]
    return ["Speed as a share of a plain copy: " + "; ".join(f"{name} {shares[name]}" for name in shown) + "."]


def shapes_answer(results: Results) -> list[str]:
    """Return the best rule of others with as few shapes, and with any number."""
    rows = [row for row in results["shapes"] if row["distribution"] == "meld"]
    told = []
    for ours in rows:
        if not (ours["policy"].startswith("planned") and ours["grouping"] == "shape"):
            continue
        others = [row for row in rows if not row["policy"].startswith("planned")]
        few = [row for row in others if row["shapes"] <= ours["shapes"]]
        best, any_number = (max(group, key=_real) for group in (few, others))
        told.append(
            f"On MELD's lengths a plan of {ours['shapes']} shapes has a real cost of {_real(ours):.3f}. Of the other "
            f"rules, the best with as few shapes ({best['policy']}) has {_real(best):.3f}; the best of all "
            f"({any_number['policy']}) has {_real(any_number):.3f} with {any_number['shapes']:,} shapes."
        )
    return told


def packing_answer(results: Results) -> list[str]:
    """Fill of one shape in multiples of 8, and of other packers in the same capacities."""
    told = []
    for row in results["rows"]:
        if row["lengths"] == results["corpus"] and row["max_shapes"] == 1 and row["alignment"] == 8:
            told.append(f"batches of {row['batch_size']} {row['fill']['total']:.3f} ({row['bound']['total']:.3f})")
    ours, *others = [row for row in results["peers"]["rows"] if len(row["modalities"]) > 1]
    sentences = [f"Fill of one capacity in multiples of 8, and its bound, {results['corpus']}: {'; '.join(told)}."]
    if others:
        best = max(others, key=lambda row: row["fill"]["total"])
        low, _, high = best["samples_per_batch"]
        sentences.append(
            f"In the same capacities of {len(ours['modalities'])} modalities {ours['packer']} fills "
            f"{ours['fill']['total']:.3f} with the same number of samples in every batch but the last, and "
            f"{best['packer']}, {best['fill']['total']:.3f} with {low} to {high}."
        )
    return sentences


def _real(row: Results) -> float:
    return row["cost_efficiency"]


def scaling_answer(results: Results) -> list[str]:
    """Nothing but what the table of exponents says."""
    del results
    return ["How time, memory and compilations grow; the last table has the fitted exponents."]


def quality_answer(results: Results) -> list[str]:
    """Weighted F1 under each padding."""
    rows = results["rows"]
    figures = {}
    for row in rows:
        figures.setdefault(row["padding"], []).append(row["test"]["weighted_f1"])
    told = "; ".join(f"{padding} {spread(values, '.3f')}" for padding, values in figures.items())
    return [f"Weighted F1 on MELD's test split, text alone: {told}."]


def _quality_tables(results: Results) -> list[Table]:
    return [quality.table(results)]


_PARTS: dict[str, tuple[str, Callable[[Results], list[str]], Callable[[Results], list[Table]]]] = {
    "claims": (
        "Do the claims of dynamic padding hold?",
        claims_answer,
        lambda results: [*seed_claims.tables(results), seed_claims.methods(results)],
    ),
    "training": ("Why not just PyTorch?", training_answer, benchmark_peers.tables),
    "shapes": ("Why not just powers of two, or one sort key?", shapes_answer, benchmark_peers.tables),
    "packing": ("How full are packed batches?", packing_answer, packing.tables),
    "kernel": ("How fast are samples padded?", kernel_answer, benchmark_peers.tables),
    "scaling": ("What grows how?", scaling_answer, scaling.tables),
    "quality": ("Does padding change what a model learns?", quality_answer, _quality_tables),
}
