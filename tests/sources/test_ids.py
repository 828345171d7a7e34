"""Names of samples in a flat cache: kept to the byte, and as large as what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad.errors import SourceError
from multimodal_pad.sources import NumpyDir, convert
from multimodal_pad.sources.ids import Ids, NumberedIds, StoredIds, encode_ids
from tests.helpers.corpora import write_numpy_dir

names = st.lists(
    st.text(max_size=6) | st.sampled_from(["a", "a\0", "a\0\0", "", "ć" * 3, "𝄞"]), max_size=8, unique=True
)


class Named(list):
    ids = ()


def named(ids):
    samples = Named({"audio": np.ones((1, 1), np.float32)} for _ in ids)
    samples.ids = ids
    return samples


@settings(deadline=None)
@given(names)
def test_ids_come_back_as_they_were(ids):
    data, offsets = encode_ids(ids, "split 'train'")
    found = StoredIds(data, offsets, "ids.npy")
    assert list(found) == ids
    assert found == ids
    assert found[1:] == ids[1:]
    assert [found[-1 - index] for index in range(len(ids))] == ids[::-1]
    assert len(data) == len("".join(ids).encode())
    with pytest.raises(IndexError):
        found[len(ids)]


@settings(deadline=None)
@given(names.filter(len), st.data())
def test_bytes_that_are_no_utf_8_are_refused(ids, data):
    encoded, offsets = encode_ids(ids, "split 'train'")
    place = data.draw(st.integers(0, len(encoded)))
    damaged = np.insert(encoded, place, data.draw(st.sampled_from([0xFF, 0xC0, 0x80])))
    with pytest.raises(SourceError, match=r"ids\.npy: holds ids that are no UTF-8"):
        StoredIds(damaged, np.append(offsets[:-1], len(damaged)), "ids.npy")


@pytest.mark.parametrize("letter", ["a", "ć", "€", "𝄞"])
def test_letters_across_the_blocks_that_are_looked_at(letter):
    data, offsets = encode_ids(["x" * (2**20 - 1) + letter * 2**18, letter], "split 'train'")
    assert StoredIds(data, offsets, "ids.npy")[1] == letter
    with pytest.raises(SourceError, match="no UTF-8"):
        StoredIds(data[: len(data) - 1] if len(letter.encode()) > 1 else np.append(data[:-1], 0x80), offsets, "ids.npy")


def test_an_offset_within_a_letter_is_refused():
    data, offsets = encode_ids(["ć", "b"], "split 'train'")
    with pytest.raises(SourceError, match="no UTF-8"):
        StoredIds(data, np.array([0, 1, offsets[-1]]), "ids.npy")


def test_a_cache_keeps_nul_and_one_long_id(tmp_path):
    ids = ["a", "a\0", "x" * 1_000_000, *map(str, range(200))]
    convert({"train": named(ids)}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", "train").ids == ids
    assert (tmp_path / "out" / "train" / "ids.npy").stat().st_size < 1_001_000


def test_whole_numbers_are_ids_by_their_digits(tmp_path):
    convert({"train": named([7, np.int32(12)])}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", "train").ids == ["7", "12"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], "split 'train': has 1 ids and 2 samples; give one for each sample, or no ids"),
        (["a", "b", "c"], "split 'train': has 3 ids and 2 samples"),
        (["a", b"b"], "split 'train': sample 1 has the id .*, which is bytes; give text, such as 'sample 1'"),
        (["a", None], "split 'train': sample 1 has the id 'None', which is NoneType"),
        ([True, "b"], "split 'train': sample 0 has the id 'True', which is bool"),
        (["a", "\ud800"], r"split 'train': sample 1 has the id '\\ud800', which UTF-8 has no bytes for"),
        (["1", 1], "split 'train': samples 0 and 1 are both called '1'"),
        (iter("ab"), "split 'train': its ids are str.*iterator; give a list of texts"),
    ],
)
def test_ids_that_are_refused_when_they_are_written(ids, message, tmp_path):
    source = named([0, 1])
    source.ids = ids
    with pytest.raises(SourceError, match=message):
        convert({"train": source}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        (np.array([["a", "b"]] * 6), None, r"ids\.npy: holds <U1 of shape \(6, 2\); ids are text, one for each sample"),
        (np.array("a"), None, r"ids\.npy: holds <U1 of shape \(\); ids are text"),
        (np.ones(6), None, r"ids\.npy: holds float64 of shape \(6,\); ids are text"),
        (
            np.array(["a"] * 6),
            np.arange(7),
            r"ids\.npy: holds <U1 of shape \(6,\), and the offsets end at 6; beside ids",
        ),
        (np.zeros(6, np.uint8), np.arange(6), r"ids\.npy: holds uint8 of shape \(6,\), and the offsets end at 5"),
        (np.zeros(5, np.uint8), np.arange(6), r"different numbers of samples: .*'ids\.npy': 5"),
        (np.frombuffer(b"abcdea", np.uint8), np.arange(7), r"ids\.npy: samples 0 and 5 are both called 'a'"),
    ],
)
def test_ids_of_a_plain_folder_that_do_not_fit(ids, offsets, message, tmp_path):
    write_numpy_dir(tmp_path)
    np.save(tmp_path / "ids.npy", ids)
    if offsets is not None:
        np.save(tmp_path / "ids.offsets.npy", offsets)
    with pytest.raises(SourceError, match=message):
        NumpyDir(tmp_path)


@pytest.mark.parametrize("ids", [np.arange(6), np.frombuffer(b"012345", np.uint8)])
def test_ids_of_a_plain_folder(ids, tmp_path):
    write_numpy_dir(tmp_path)
    np.save(tmp_path / "ids.npy", ids)
    if ids.dtype == np.uint8:
        np.save(tmp_path / "ids.offsets.npy", np.arange(7))
    source = NumpyDir(tmp_path, nonfinite="zero")
    assert list(source.ids) == list("012345")
    assert source.lengths.modalities == ("audio", "text")


def test_ids_are_a_sequence_like_a_list():
    few, many = NumberedIds("dev", 2), NumberedIds("train", 10**9)
    assert few == ["dev[0]", "dev[1]"]
    assert few != ["dev[0]", "dev[2]"]
    assert few != "dev"
    assert "dev[1]" in few
    assert repr(few) == "['dev[0]', 'dev[1]']"
    assert (many[-1], many[7:9]) == ("train[999999999]", ["train[7]", "train[8]"])
    with pytest.raises(TypeError, match="unhashable"):
        hash(few)
    assert isinstance(few, Ids)
