"""Small files that were made to take time or memory: both are bounded by the size of the file."""

import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from multimodal_pad.errors import SourceError
from multimodal_pad.reading import read_npy, read_npz
from multimodal_pad.sources import Csd, Mmsa, Mult
from multimodal_pad.sources.pickles import read_archive, read_pickle
from tests.helpers.corpora import write_sequence


def effort(function):
    """What a call takes, whether it raises a SourceError or not: lines of Python, and bytes at its peak."""
    lines = 0

    def count(_, event, __):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        with suppress(SourceError):
            function()
    finally:
        sys.settrace(before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return lines, peak


def check_bounded(function, size):
    lines, peak = effort(function)
    assert lines <= 200 * size + 2**17
    assert peak <= 300 * size + 2**25


EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
FLOAT = b"cnumpy\ndtype\n(Vf8\nI0\nI1\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb"
LONG = FLOAT.replace(b"f8", b"f16")

PICKLES = {
    "a state in 3,000 places, and built 3,000 times": b"\x80\x04"
    + b"(I1\n(I0\nt"
    + FLOAT
    + b"I00\nC\x00tq\x000"
    + EMPTY
    + b"\x94" * 3000
    + b"2h\x00b0" * 3000
    + b"0N.",
    "numbers of one hash as places": b"".join(b"Np%d\n0" % (place * (2**61 - 1)) for place in range(1, 3000)) + b"N.",
    "numbers of one hash as keys": b"\x80\x04"
    + LONG
    + b"\x940cnumpy.core.multiarray\nscalar\n\x940}("
    + b"".join(
        b"h\x01h\x00C\x10" + (2**63 + key).to_bytes(8, "little") + b"\xff\x3f" + bytes(6) + b"\x86RN"
        for key in range(1000)
    )
    + b"u.",
    "a place far away": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytes that are announced": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"a.",
    "a long array of nothing": b"\x80\x04" + EMPTY + b"(I1\n(I1000000000\nI0\nt" + FLOAT + b"I00\nC\x00tb.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_takes_what_its_size_allows(name, tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(PICKLES[name])
    check_bounded(lambda: read_pickle(path), len(PICKLES[name]))


def test_the_standard_library_would_take_the_memory():
    """Or the test above would show nothing: pickle's own table of places is as long as the largest of them."""
    code = (
        "import io, pickle, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\n"
        "class Allowed(pickle.Unpickler):\n"
        "    def find_class(self, *name): raise pickle.UnpicklingError(name)\n"
        "Allowed(io.BytesIO(b'\\x80\\x02Nr\\xff\\xff\\xff\\x7f.')).load()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


def split_of(count, **changes):
    array = np.ones((count, 1, 1), np.float32)
    split = {"text": array, "audio": array, "vision": array, "labels": array, "id": [f"s{i}" for i in range(count)]}
    return {**split, **changes}


long_text = "a" * 5000
shared = ["b"] * 2000

CORPORA = {
    "one list for all ids": {"train": split_of(2000, id=[shared] * 2000)},
    "one text in all ids": {"train": split_of(1000, id=[[long_text, i] for i in range(1000)])},
    "many names for one split": dict.fromkeys(map(str, range(300)), split_of(50)),
    "ids of nothing": {"train": split_of(2, id=np.zeros((10**8, 0)))},
    "a name of any length": {long_text * 100: split_of(1)},
    "keys without end": {"train": {str(i): 1 for i in range(1000)}},
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_takes_what_its_size_allows(name, tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(CORPORA[name]))

    def read():
        for split in Mult.split_names(path):
            Mult(path, split)

    check_bounded(read, path.stat().st_size)
    with pytest.raises(SourceError, match=r"file\.pkl") as raised:
        read()
    assert len(str(raised.value)) < 2000


def test_arrays_that_many_splits_share(tmp_path):
    """As MMSA has them or MulT, each of its own, but of one large array."""
    array = np.zeros((100, 100, 20))
    splits = {f"fold{i}": {"audio": array, "vision": array, "text": array} for i in range(60)}
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(splits))
    with pytest.raises(SourceError, match=r"file\.pkl: would take 288,000,000 bytes, and the file has 1,6\d\d,\d\d\d"):
        Mmsa(path, "fold0")
    path.write_bytes(pickle.dumps({"train": split_of(3), "valid": split_of(2)} | {"test": split_of(2)}))
    assert len(Mult(path, "test")) == 2


def header(shape, dtype="<f4"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


SHAPES = ["(-1,)", f"({'9' * 400},)", "(True, 3)", "(10**9,)", "(3.0,)", "3", "(1000000000000, 0)", "(" * 90, "(4,"]


@pytest.mark.parametrize("shape", SHAPES)
def test_npy_of_a_shape_that_it_does_not_have(shape, tmp_path):
    data = header(shape) + bytes(12)
    (tmp_path / "file.npy").write_bytes(data if "0, 0" not in shape else data[:-12])
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.write(tmp_path / "file.npy", "audio.npy")
    with pytest.raises(SourceError, match=r"file\.npy: damaged or cut short .*; write it again with np\.save"):
        read_npy(tmp_path / "file.npy")
    with pytest.raises(SourceError, match=r"file\.npz, array 'audio': damaged .*; write it again with np\.savez"):
        read_npz(tmp_path / "file.npz")


def test_a_zip_bomb(tmp_path):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, audio=np.zeros(10**7), text=[1, 2])
    size = path.stat().st_size
    check_bounded(lambda: read_npz(path), size)
    with pytest.raises(SourceError, match=rf"file\.npz: would take 80,000,272 bytes, and the file has {size:,}"):
        read_npz(path)
    assert read_npz(path, ["text"])["text"].tolist() == [1, 2]


def test_objects_in_archives_are_data(tmp_path):
    """As MERTools writes its labels; the pickle in it is no more than data."""
    path = tmp_path / "label.npz"
    labels = {"sample_1": {"emo": "happy", "val": 1.5}}
    np.savez_compressed(path, train=np.array(labels), names=np.array(["a", None], object), n=3)
    found = read_archive(path)
    assert found["train"].item() == labels
    assert found["names"].tolist() == ["a", None]
    assert found["n"] == 3
    with pytest.raises(SourceError, match=r"label\.npz, array 'train': holds Python objects; save numbers or text"):
        read_npz(path)
    np.savez(path, evil=np.array([print, 1], object))
    with pytest.raises(SourceError, match=r"label\.npz, array 'evil': the pickle asks for builtins\.print"):
        read_archive(path)
    np.save(tmp_path / "a.npy", np.array([{}], object))
    with pytest.raises(SourceError, match=r"a\.npy: holds Python objects"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(SourceError, match=r"label\.npz: has no array 'labels', only \['evil'\]"):
        read_npz(path, ["labels"])


def times(count):
    return np.stack([np.arange(count), np.arange(1, count + 1)], 1).astype(float)


def bomb_unallocated(data):
    data.create_dataset("w/features", (4 * 10**8, 2), "f8")
    data.create_dataset("w/intervals", (4 * 10**8, 2), "f8")


def bomb_compressed(data):
    data.create_dataset("w/features", data=np.zeros((10**6, 3)), compression="gzip")
    data.create_dataset("w/intervals", data=np.zeros((10**6, 2)), compression="gzip")


def bomb_linked(data):
    data.create_dataset("w/features", data=np.zeros((10**5, 1)), compression="gzip")
    data.create_dataset("w/intervals", data=np.zeros((10**5, 2)), compression="gzip")
    for number in range(100):
        data[f"w{number}"] = data["w"]


@pytest.mark.parametrize("bomb", [bomb_unallocated, bomb_compressed, bomb_linked])
def test_hdf5_that_says_it_is_large(bomb, tmp_path):
    h5py = pytest.importorskip("h5py")
    write_sequence(tmp_path / "l.csd", "l", {"v": (np.ones((2, 1)), times(2))})
    write_sequence(tmp_path / "a.csd", "a", {"v": (np.ones((2, 1)), times(2))})
    with h5py.File(tmp_path / "a.csd", "r+") as file:
        bomb(file["a/data"])
        with h5py.File(tmp_path / "l.csd", "r+") as labels:
            for video in file["a/data"]:
                if video != "v":
                    labels[f"l/data/{video}"] = labels["l/data/v"]
    size = (tmp_path / "a.csd").stat().st_size
    assert size < 2 * 10**5
    width = {bomb_unallocated: 2, bomb_compressed: 3, bomb_linked: 1}[bomb]
    with h5py.File(tmp_path / "a.csd", "r+") as file:
        del file["a/data/v"]
        file["a/data/v/features"], file["a/data/v/intervals"] = np.ones((2, width)), times(2)

    def read():
        source = Csd(tmp_path, sequences={"a": "a.csd"}, labels="l.csd")
        [source[index] for index in range(len(source))]

    check_bounded(read, size)
    with pytest.raises(SourceError, match=r"a\.csd, 'w\d*', '(features|intervals)': would take [\d,]+ bytes, and the"):
        read()


def test_segments_that_all_hold_all_frames(tmp_path):
    pytest.importorskip("h5py")
    overlapping = np.stack([np.zeros(5000), np.full(5000, 9e9)], 1)
    write_sequence(tmp_path / "l.csd", "l", {"v": (np.ones((5000, 1)), overlapping)})
    write_sequence(tmp_path / "a.csd", "a", {"v": (np.ones((5000, 1)), times(5000)[::-1])})
    with pytest.raises(SourceError, match=r"a\.csd, the frames of 'v\[\d+\]' and before: would take"):
        Csd(tmp_path, sequences={"a": "a.csd"}, labels="l.csd")
