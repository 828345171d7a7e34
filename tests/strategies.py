"""Hypothesis strategies for length tables, samples and policies."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from multimodal_pad import Exact, Fixed, Ladder, LengthTable, Planned, Policy, plan_shapes

WIDTHS = {"text": (), "audio": (3,), "visual": (2, 2)}  # token ids, features, features of two axes


@st.composite
def length_tables(draw: st.DrawFn, max_samples: int = 40, max_length: int = 30) -> LengthTable:
    """1 to ``max_samples`` samples of 1 to 3 modalities; length 0 included."""
    names = tuple(WIDTHS)[: draw(st.integers(1, len(WIDTHS)))]
    rows = st.lists(st.integers(0, max_length), min_size=len(names), max_size=len(names))
    return LengthTable(names, np.array(draw(st.lists(rows, min_size=1, max_size=max_samples))))


@st.composite
def uneven_tables(draw: st.DrawFn, max_samples: int = 40) -> LengthTable:
    """Tables with heavy tails, of equal lengths, or with most of them missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = tuple(WIDTHS)[: draw(st.integers(1, len(WIDTHS)))]
    size = (draw(st.integers(1, max_samples)), len(names))
    kind = draw(st.sampled_from(["heavy", "equal", "missing"]))
    if kind == "heavy":
        return LengthTable(names, np.exp(1.5 * rng.standard_normal(size)).astype(int))
    if kind == "equal":
        return LengthTable(names, np.full(size, draw(st.integers(0, 9))))
    return LengthTable(names, rng.integers(0, 30, size) * (rng.random(size) < 0.3))


@st.composite
def policies(draw: st.DrawFn, table: LengthTable, batch_size: int = 32, grouping: str = "random") -> Policy:
    """A policy of each family that covers the table; plans are made for such batches."""
    multiples = st.integers(1, 12).map(lambda n: Ladder.multiples_of(table, n))
    powers = st.integers(1, 8).map(lambda n: Ladder.powers_of_two(table, n))
    quantiles = st.integers(1, 5).map(lambda n: Ladder.quantiles(table, n))
    options: dict[str, Any] = {"batch_size": batch_size, "grouping": grouping, "effort": 0}
    plans = st.integers(1, 6).map(lambda n: Planned(plan_shapes(table, max_shapes=n, **options)))
    return draw(
        st.one_of(st.just(Fixed.longest(table)), st.just(Exact(table.modalities)), multiples, powers, quantiles, plans)
    )


@st.composite
def uneven_lengths(draw: st.DrawFn) -> np.ndarray:
    """``(n, M)`` of 1 to 300 samples and 1 to 4 modalities: equal, heavy-tailed, mostly missing or ordinary."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, columns = draw(st.integers(1, 300)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["equal", "uniform", "heavy", "missing"]))
    if kind == "equal":
        return np.full((count, columns), draw(st.integers(0, 9)))
    if kind == "heavy":
        return np.exp(1.5 * rng.standard_normal((count, columns))).astype(int)
    lengths = rng.integers(0, 60, (count, columns))
    if kind == "missing":
        lengths[rng.random(lengths.shape) < 0.7] = 0
    return lengths


def make_samples(table: LengthTable, seed: int = 0) -> list[dict[str, Any]]:
    """Samples with the lengths of the table; each sample's number is in its targets."""
    rng = np.random.default_rng(seed)
    samples = []
    for index, row in enumerate(table.values.tolist()):
        sample: dict[str, Any] = {"targets": np.int32(index)}
        for name, length in zip(table.modalities, row, strict=True):
            if name == "text":
                sample[name] = rng.integers(1, 100, length).astype(np.int32)
            else:
                sample[name] = rng.standard_normal((length, *WIDTHS[name])).astype(np.float32)
        samples.append(sample)
    return samples


def with_all_targets(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples with targets in nested dicts, and with targets of positions that equal what is at these positions."""
    made = []
    for sample in samples:
        number, modalities = sample["targets"], {name: x for name, x in sample.items() if name != "targets"}
        of_positions: dict[str, Any] = {name: {"same": x, "up": {"bool": x > 0}} for name, x in modalities.items()}
        of_positions["text"] = modalities["text"]
        scores = {"pair": np.array([number, 0.5], np.float32), "sign": np.bool_(number % 2)}
        made.append({**modalities, "targets": {"number": number, "scores": scores}, "position_targets": of_positions})
    return made
