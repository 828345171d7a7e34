"""Reading a flat cache, or a plain folder of arrays: what does not fit is named, and samples are views."""

import json
import os

import numpy as np
import pytest

from multimodal_pad.errors import SourceError
from multimodal_pad.sources import Meld, NumpyDir, Synthetic, convert
from tests.helpers.corpora import make_sample, write_meld, write_numpy_dir


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def saved(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("audio.npy", lambda path: path.unlink(), r"audio\.npy: no such file"),
        ("audio.npy", cut, r"audio\.npy: damaged or cut short"),
        ("audio.npy", lambda path: path.write_bytes(b""), r"audio\.npy: damaged or cut short"),
        ("audio.npy", lambda path: path.write_bytes(b"hello, no array"), r"audio\.npy: damaged or cut short"),
        ("audio.npy", saved(np.zeros((3, 3))), r"audio\.npy: holds float64 of shape \(3, 3\), and the offsets end at"),
        ("audio.npy", saved(np.array(["a"])), r"audio\.npy: holds shape \(1,\): got dtype <U1, and a batch holds bool"),
        ("audio.offsets.npy", saved(np.zeros((2, 2), int)), r"audio\.offsets\.npy: holds int64 of shape \(2, 2\)"),
        ("audio.offsets.npy", saved(np.array([0.0, 2.0])), r"audio\.offsets\.npy: holds float64"),
        ("audio.offsets.npy", saved(np.array([0, 3, 2])), r"offsets\.npy: offsets start at 0 and never fall"),
        ("audio.offsets.npy", saved(np.array([1, 3])), r"offsets\.npy: offsets start at 0 and never fall"),
        ("targets.npy", saved(np.zeros(2)), r"the files have different numbers of samples: \{.*'targets\.npy': 2"),
        ("targets.npy", saved(np.full(6, np.nan)), r"targets\.npy: sample 0 \(s0\) is labelled nan"),
        (
            "targets.npy",
            saved(np.array(list("abcdef"))),
            r"targets\.npy: holds shape \(6,\): got dtype <U1.* give whole",
        ),
        ("targets.npy", saved(np.ones(6, complex)), r"targets\.npy: holds shape \(6,\): got dtype complex128"),
        ("targets.npy", saved(np.array(1.0)), r"targets\.npy: holds a single number"),
        ("targets.npy", saved(np.array([None] * 6)), r"targets\.npy: holds Python objects"),
        ("targets.npy", lambda path: path.unlink() or os.mkfifo(path), r"targets\.npy: is a pipe"),
        ("audio.npy", lambda path: path.unlink() or path.mkdir(), r"audio\.npy: is a folder"),
        ("audio.npy", saved(np.ones((11, 0))), r"audio\.npy: holds shape \(11, 0\), frames without a number"),
        ("audio.npy", saved(np.ones((19, 2), np.longdouble)), r"audio\.npy: holds shape \(19, 2\): got dtype"),
        (".offsets.npy", saved(np.array([0, 3])), "has a modality ''; it names a file"),
        ("targets.offsets.npy", saved(np.array([0, 3])), "has a modality 'targets'; it names a file"),
        ("ids.npy", saved(np.array(list("abcdea"))), r"ids\.npy: samples 0 and 5 are both called 'a'"),
    ],
)
def test_folders_that_do_not_fit(name, change, message, tmp_path):
    write_numpy_dir(tmp_path)
    change(tmp_path / name)
    with pytest.raises(SourceError, match=message):
        NumpyDir(tmp_path)


def test_manifests_that_are_none(tmp_path):
    convert({"train": [make_sample(2)]}, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    whole = json.loads(manifest.read_text())
    with pytest.raises(SourceError, match=r"got the split 'dev'; the cache has \['train'\]"):
        NumpyDir(tmp_path / "out", "dev")
    for text, message in [
        ("{", r"manifest\.json: damaged or cut short \(JSONDecodeError: "),
        (json.dumps({**whole, "version": 3}), r"manifest\.json: is \('multimodal_pad flat cache', 3\), not"),
        ("[]", r"manifest\.json: is None, not"),
        (json.dumps({**whole, "splits": {}}), r"manifest\.json: splits is \{\}, not a dict with something in it"),
        (json.dumps({**whole, "modalities": 3}), r"manifest\.json: modalities is 3, not a dict"),
    ]:
        manifest.write_text(text)
        with pytest.raises(SourceError, match=message):
            NumpyDir(tmp_path / "out", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="nowhere: no such folder"):
        NumpyDir(tmp_path / "nowhere")
    with pytest.raises(
        SourceError, match=r"empty: holds neither manifest\.json nor a pair of files such as audio\.npy"
    ):
        NumpyDir(tmp_path / "empty")


def test_a_vocabulary_that_is_damaged(tmp_path):
    write_meld(tmp_path, features=False)
    convert({"train": Meld(tmp_path, payload="none")}, tmp_path / "out")
    vocabulary = tmp_path / "out" / "text.vocabulary.json"
    vocabulary.write_text(vocabulary.read_text()[:9])
    with pytest.raises(SourceError, match=r"text\.vocabulary\.json: has 9 bytes, and the manifest says"):
        NumpyDir(tmp_path / "out", "train")
    vocabulary.unlink()
    with pytest.raises(SourceError, match=r"text\.vocabulary\.json: no such file"):
        NumpyDir(tmp_path / "out", "train")


def test_a_plain_folder_by_its_dot(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    write_numpy_dir(tmp_path / "train")
    monkeypatch.chdir(tmp_path / "train")
    source = NumpyDir(".", nonfinite="zero")
    assert source.split == "train"
    convert({source.split: source}, tmp_path / "out")


def test_samples_are_views_of_the_files(tmp_path):
    convert({"train": Synthetic(4)}, tmp_path / "out")
    source = NumpyDir(tmp_path / "out", "train")
    first = source[0]["audio"]
    assert not first.flags.writeable
    assert not first.flags.owndata
    assert np.shares_memory(first, source[0]["audio"])


def test_another_byte_order_is_read_as_the_machines_own(tmp_path):
    for name in ("native", "foreign"):
        (tmp_path / name).mkdir()
        write_numpy_dir(tmp_path / name)
    for name in ("audio", "text", "targets", "audio.offsets"):
        array = np.load(tmp_path / "native" / f"{name}.npy")
        np.save(tmp_path / "foreign" / f"{name}.npy", array.astype(array.dtype.newbyteorder()))
    before, source = (NumpyDir(tmp_path / name, nonfinite="zero") for name in ("native", "foreign"))
    for index in range(len(source)):
        for name, value in before[index].items():
            np.testing.assert_array_equal(source[index][name], value)
            assert source[index][name].dtype == value.dtype
