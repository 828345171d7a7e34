import pickle

import numpy as np
import pytest

from multimodal_pad import LengthTable
from multimodal_pad.errors import LengthError, SampleError
from multimodal_pad.sources import Synthetic
from tests.strategies import make_samples


def test_measure_reads_lengths_in_the_order_of_the_first_sample():
    samples = [{"b": np.zeros((3, 2)), "a": [1, 2], "targets": 0}, {"a": [], "b": np.zeros((0, 2)), "targets": 1}]
    table = LengthTable.measure(samples)
    assert table.modalities == ("b", "a")
    assert table.values.tolist() == [[3, 2], [0, 0]]


def test_measure_takes_the_source_at_its_word():
    class Source(list):
        lengths = LengthTable(("a", "b"), np.array([[7, 8]]))

    assert LengthTable.measure(Source([{}]), ["b", "a"]).values.tolist() == [[8, 7]]


def test_the_table_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        LengthTable(("a",), np.array([[1]])).values[0, 0] = 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 2)), "no samples"),
        (np.zeros((3,)), r"shape \(3,\) for 2 modalities"),
        (np.zeros((3, 1)), "one column per modality"),
        (np.array([[1, -4]]), "sample 0, 'audio': got the length -4"),
        (np.array([[1.5, 2]]), "sample 0, 'text': got the length 1.5"),
        (np.array([[1, 2], [np.nan, 2]]), "sample 1, 'text': got the length nan"),
        (np.array([[1, 2], [3, 1e300]]), "sample 1, 'audio': got the length 1e[+]300; .* to 2,147,483,647"),
        (np.array([[2**63 + 5, 1]], np.uint64), "sample 0, 'text': got the length 9223372036854775813"),
        (np.array([["1", "2"]]), "got lengths of dtype .*; lengths are whole numbers of positions"),
    ],
)
def test_bad_lengths_are_named(values, message):
    with pytest.raises(LengthError, match=message):
        LengthTable(("text", "audio"), values)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", "targets"), "ab"])
def test_bad_names(names):
    with pytest.raises(LengthError, match="modalities"):
        LengthTable(names, np.ones((1, 2), int))


def test_columns_of_unequal_size():
    with pytest.raises(LengthError, match="'a': 1, 'b': 2"):
        LengthTable.from_columns({"a": [1], "b": [1, 2]})


def test_select_names_what_is_absent():
    with pytest.raises(LengthError, match=r"not \['smell'\]"):
        LengthTable(("a",), np.array([[1]])).select(["smell"])


def test_measure_without_samples():
    with pytest.raises(LengthError, match="no samples"):
        LengthTable.measure([])


def test_measure_names_the_sample_that_lacks_a_modality():
    with pytest.raises(SampleError, match="sample 1 has no 'audio'"):
        LengthTable.measure([{"text": [1], "audio": [1]}, {"text": [1]}])


def test_measure_names_the_sample_that_has_more_than_the_first():
    samples = [{"text": [1]}, {"text": [1], "audio": [1]}]
    with pytest.raises(SampleError, match=r"sample 1 has \['audio'\], which the first sample lacks"):
        LengthTable.measure(samples)
    assert LengthTable.measure(samples, ["text"]).values.tolist() == [[1], [1]]


@pytest.mark.parametrize("value", [3, "words", ["a", "b"], [[1], [2, 3]]])
def test_measure_refuses_what_is_not_a_sequence_of_numbers(value):
    with pytest.raises(SampleError, match="sample 0, 'text'"):
        LengthTable.measure([{"text": value}])


def test_an_array_that_may_still_change_is_copied():
    values = np.ones((3, 1), np.int64)
    table = LengthTable(("text",), values)
    values[0] = 9
    assert table.values[0] == 1


def test_a_memory_mapped_table_is_mapped_in_other_processes_too(tmp_path):
    values = Synthetic(1000).lengths.values
    np.save(tmp_path / "lengths.npy", values)
    mapped = LengthTable(("text", "audio", "visual"), np.load(tmp_path / "lengths.npy", mmap_mode="r"))
    plain = LengthTable(mapped.modalities, values)
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000 < len(pickle.dumps(plain))
    for table in (pickle.loads(sent), pickle.loads(pickle.dumps(plain))):
        np.testing.assert_array_equal(table.values, values)
        assert not table.values.flags.writeable
        assert table.modalities == mapped.modalities


def test_lengths_of_the_samples_are_those_of_the_table():
    table = LengthTable(("text", "audio"), np.array([[2, 3], [0, 1]]))
    assert LengthTable.measure(make_samples(table)).values.tolist() == table.values.tolist()
