import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import Exact, LengthTable, PaddingStats, Steps, make_schedule
from tests.strategies import length_tables, policies

TABLE = LengthTable(("text", "audio"), np.array([[2, 10], [4, 0], [1, 5]]))
STEPS = Steps(np.array([[4, 16], [1, 8]]), np.array([0, 2, 4]), np.array([0, 1, 2, -1]))


def test_a_hand_counted_ledger():
    stats = PaddingStats(TABLE.modalities, cost=lambda lengths: (lengths**2).sum(axis=1))
    stats.record(STEPS, TABLE)
    assert stats.real.tolist() == [7, 15]
    assert stats.padded.tolist() == [10, 48]
    assert stats.missing.tolist() == [0, 1]
    assert stats.position_efficiency == {"text": 0.7, "audio": 15 / 48, "total": 22 / 58}
    assert stats.cost_efficiency == pytest.approx((104 + 16 + 26) / (2 * (16 + 256) + 2 * (1 + 64)))
    assert dict(stats.shapes) == {(4, 16): 1, (1, 8): 1}
    assert (stats.samples, stats.steps) == (3, 2)


@given(st.data(), length_tables(), st.integers(1, 6))
def test_step_by_step_is_all_at_once(data, table, batch_size):
    steps = make_schedule(table, data.draw(policies(table, batch_size, "length")), batch_size=batch_size).steps()
    whole, parts = PaddingStats(table.modalities), PaddingStats(table.modalities)
    whole.record(steps, table)
    for i in range(len(steps)):
        parts.record(steps.part(i, i + 1), table)
    assert str(whole) == str(parts)
    assert whole.shapes == parts.shapes
    assert 0 <= whole.cost_efficiency <= 1


def test_nothing_is_wasted_on_equal_lengths():
    table = LengthTable(("text",), np.full((8, 1), 5))
    stats = PaddingStats(table.modalities)
    stats.record(make_schedule(table, Exact(["text"]), batch_size=4).steps(), table)
    assert stats.position_efficiency["total"] == stats.cost_efficiency == 1


def test_it_reads_well():
    stats = PaddingStats(TABLE.modalities, dropped=2)
    stats.record(STEPS, TABLE)
    assert str(stats) == (
        "3 samples in 2 steps of 2 shapes\n"
        "padding efficiency: positions text 0.700, audio 0.312, total 0.379; cost 0.379\n"
        "missing: {'audio': 1}\n"
        "dropped: 2, truncated: 0"
    )
