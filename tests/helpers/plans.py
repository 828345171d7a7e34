"""Tables to plan for, and what every plan promises."""

import numpy as np
import pytest

from multimodal_pad import LengthTable, ShapePlan, position_count

NAMES = ("text", "audio", "visual")


def table_of(*rows):
    return LengthTable(NAMES[: len(rows[0])], np.array(rows))


def padded_cost(values, shapes, cost=position_count):
    """The definition: each sample pays the cheapest shape that holds it."""
    prices = np.where((values[:, None] <= shapes).all(axis=2), cost(shapes), np.inf)
    return prices.min(axis=1).sum()


def weighted(lengths):
    """A cost in which the modalities differ and mix."""
    lengths = np.asarray(lengths, float)
    return lengths @ np.arange(1, lengths.shape[1] + 1) + 0.1 * lengths.sum(axis=1) ** 2


def paid(plan):
    return float(plan.costs @ plan.samples)


def check_plan(plan, table, max_shapes):
    """What every plan promises."""
    assert 1 <= len(plan) <= max_shapes
    assert (plan.place(table.values) >= 0).all(), "every sample is covered"
    assert (np.diff(plan.costs) >= -1e-9 * plan.costs[1:]).all(), "cheapest first"
    assert ShapePlan.from_json(plan.to_json(), plan.cost).to_json() == plan.to_json()
    assert plan.lengths.min() >= 1
    for column, name in enumerate(plan.modalities):
        assert (plan.lengths[:, column] % plan.alignment[name] == 0).all()
    assert plan.samples.sum() == pytest.approx(len(table))
    assert len(plan.efficiencies) == len(plan.bounds)
    assert (np.diff(plan.efficiencies) >= 0).all(), "more shapes are never worse"
    assert (plan.efficiencies <= plan.bounds * (1 + 1e-9)).all(), "no plan beats the bound"
    assert plan.gap == pytest.approx(1 - plan.efficiency / plan.bound if plan.bound else 0)
