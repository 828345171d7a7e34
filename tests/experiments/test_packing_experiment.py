import json
from collections import Counter

import numpy as np
import pytest

from experiments.evidence.sections import packing_answer
from experiments.packing import __main__ as packing
from experiments.packing.packers import AXOLOTL_MOST, GrainPacking, check_packs, deal_axolotl
from multimodal_pad import LengthTable


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("packing") / "run"
    assert packing.main(["--quick", "--out", str(out)]) == 0
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


@pytest.mark.experiment
def test_no_fill_is_above_its_bound(quick):
    assert len(quick["rows"]) == 3 * 2 * 2
    for row in quick["rows"]:
        for name, share in row["fill"].items():
            assert 0 < share <= row["bound"][name]
        assert 0 < row["fill_in_cost"] <= 1
        assert row["full_batches"] >= 300 // 8 - row["extra"]
        assert len(row["capacities"]) <= row["max_shapes"]
        for capacity in row["capacities"]:
            assert not any(n % row["alignment"] for n in capacity)


@pytest.mark.experiment
def test_all_packers_get_the_same_lengths_and_capacities(quick):
    rows = quick["peers"]["rows"]
    assert Counter(row["packer"].split()[0] for row in rows) == {"multimodal_pad,": 2, "Grain": 4, "Axolotl": 2}
    for names in (["text", "audio", "visual"], ["text"]):
        same = [row for row in rows if row["modalities"] == names]
        assert len({tuple(row["capacities"]) for row in same}) == 1
        ours, *others = same
        assert ours["samples_per_batch"][1:] == [8, 8]
        assert max(row["samples_per_batch"][2] for row in others) > 8
    assert all(bool(row["seconds"]) == ("Axolotl" not in row["packer"]) for row in rows)


@pytest.mark.experiment
def test_a_row_where_a_second_shape_pays(quick):
    text = packing.markdown(quick)
    assert "| like MELD | 8 | 2 |" in text
    assert "| equal | 8 | 1 |" in text
    assert "| equal | 8 | 2 |" not in text


@pytest.mark.experiment
def test_the_answer_names_the_fullest_other_packer(quick):
    fills, packers = packing_answer(quick)
    assert fills.startswith("Fill of one capacity in multiples of 8, and its bound, like MELD: batches of 8 0.")
    assert "multimodal_pad, balanced fills 0." in packers
    assert "PackIterDataset, 4 open, 0." in packers


def test_the_bound_by_hand():
    table = LengthTable(("text", "audio"), np.array([[9, 4], [2, 4], [1, 4], [2, 4]]))
    assert packing.fill_bound(table, 2) == pytest.approx({"text": 14 / 18, "audio": 1, "total": 30 / 34})
    assert packing.fill_bound(table, 2, alignment=8) == pytest.approx({"text": 14 / 32, "audio": 1, "total": 30 / 48})
    assert packing.fill_bound(table, 2, shapes=2) == {"text": 1, "audio": 1, "total": 1}


def test_axolotl_by_hand():
    lengths, order = np.array([4, 7, 6, 3]), np.array([3, 1, 0, 2])
    assert deal_axolotl(lengths, order, 10, decreasing=False) == [[3, 1], [0, 2]]
    assert deal_axolotl(lengths, np.array([3, 0, 1, 2]), 10, decreasing=False) == [[3, 0], [1], [2]]
    assert deal_axolotl(lengths, order, 10, decreasing=True) == [[1, 3], [2, 0]]


def test_axolotl_has_so_many_samples_in_a_pack():
    packs = deal_axolotl(np.ones(500, np.int64), np.arange(500), 1000, decreasing=False)
    assert [len(pack) for pack in packs] == [AXOLOTL_MOST, AXOLOTL_MOST, 100]


@pytest.mark.parametrize(("rule", "wanted"), [("FirstFit", [[0, 2, 4], [1], [3]]), ("BestFit", [[0, 3], [1, 2], [4]])])
def test_grain_keeps_to_all_capacities(rule, wanted):
    pytest.importorskip("grain")
    lengths = np.array([[4, 1], [6, 2], [2, 7], [1, 8], [3, 1]])
    packs = GrainPacking(rule, 8).deal(lengths, np.arange(5), np.array([9, 9]))
    assert sorted(map(sorted, packs)) == wanted


def test_packs_that_lose_or_double_a_sample_or_exceed_a_capacity_are_refused():
    lengths, capacities = np.array([[3], [4]]), np.array([6])
    check_packs([[1], [0]], lengths, capacities)
    for packs in ([[0]], [[0], [1], [0]]):
        with pytest.raises(RuntimeError, match="don't hold each sample once"):
            check_packs(packs, lengths, capacities)
    with pytest.raises(RuntimeError, match=r"above its capacities of \[6\]"):
        check_packs([[0, 1]], lengths, capacities)
