"""Pickles are read as data: whatever plain data they hold comes out."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multimodal_pad.errors import SourceError
from multimodal_pad.sources import Mult
from multimodal_pad.sources.pickles import read_pickle
from tests.helpers.corpora import dump_python2
from tests.helpers.pickles import read

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False))
small = st.integers(-(2**63), 2**63)
texts = st.text(max_size=9)
dtypes = st.sampled_from(["f2", "f4", "<f8", ">f8", "i1", "u2", ">i4", "i8", "?", "U3", "S4", "c16"])
arrays = st.builds(
    lambda array, order: np.asarray(array, order=order),
    hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    st.sampled_from("CF"),
)
scalars = arrays.filter(lambda array: array.size).map(lambda array: array.ravel()[0])
plain = st.recursive(
    st.one_of(numbers, texts, st.binary(max_size=300), arrays, scalars, st.sets(small), st.frozensets(texts)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(texts, inner, max_size=4)
    ),
    max_leaves=12,
)


def check_same(found, wanted):
    assert type(found) is type(wanted) or isinstance(wanted, bytes)
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes() or wanted.dtype.kind == "O"
        assert not found.flags.writeable or not found.size
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            check_same(found[key], wanted[key])
    elif isinstance(wanted, np.generic):
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes()
    else:
        assert bytes(found) == wanted if isinstance(wanted, bytes) else found == wanted


@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_data_come_out_as_they_went_in(tmp_path_factory, data, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    check_same(read(pickle.dumps(data, protocol), path), data)


@given(st.recursive(st.one_of(numbers, arrays), lambda inner: st.lists(inner, max_size=4), max_leaves=9))
def test_python_2_too(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "python2.pkl"
    with path.open("wb") as file:
        dump_python2({"data": data}, file)
    ((key, found),) = read_pickle(path)[0].items()
    assert key == b"data"
    check_same(found, data)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_what_python_2_wrote(protocol):
    """Files of cPickle of Python 2.7.18 with NumPy 1.16.6."""
    path = Path(__file__).parent / "golden" / f"python2_protocol{protocol}.pkl"
    source = Mult(path, "train")
    assert source.ids == ["a[0.0,1.5]", "b[1.5,2.0]"]
    assert source.targets.tolist() == [np.float32(0.4), -1]
    assert source.lengths.values.tolist() == [[2, 2, 0], [1, 1, 0]]
    assert source[0]["text"].tolist() == source[0]["audio"].tolist() == [[1.5, -2.0], [0.25, 0.0]]
    assert source[1]["text"].tolist() == [[3, 3]]
    data, _ = read_pickle(path)
    train = {key if isinstance(key, str) else key.decode(): value for key, value in data[b"train"].items()}
    assert train["text"][0, 3, 1] == 1e-300
    assert train["more"] == ["\xe9", b"\xe9\n", None, True, 10**20, np.float32(3), {1, 2}, (1,)]
    assert train["objects"].tolist() == [b"x", [1]]


def test_python_2_text_protocol(tmp_path):
    # As cPickle.dump({'a': 'x\xe9\n', u'b': u'\xe9'}, file, 0) wrote it.
    data = b"(dp1\nS'a'\nS'x\\xe9\\n'\np2\nsVb\nV\xe9\np3\ns."
    assert read(data, tmp_path / "old.pkl") == {b"a": b"x\xe9\n", "b": "\xe9"}


def test_objects_in_arrays_and_shared_ones(tmp_path):
    shared = np.arange(4.0)
    objects = np.array([shared, "text", None, [1]], dtype=object)
    for protocol in PROTOCOLS:
        found = read(pickle.dumps([objects, shared, objects.reshape(2, 2)], protocol), tmp_path / "file.pkl")
        assert found[0][0] is found[1]
        assert found[0][1:].tolist() == ["text", None, [1]]
        assert found[2].shape == (2, 2)
    loop = []
    loop.append(loop)
    found = read(pickle.dumps(loop), tmp_path / "file.pkl")
    assert found[0] is found


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_large_arrays_stay_in_the_file(tmp_path, protocol):
    path = tmp_path / "large.pkl"
    with path.open("wb") as file:
        pickle.dump({"a": np.arange(30_000.0), "b": np.arange(30_000.0).reshape(100, 300).T}, file, protocol)
    data, mapping = read_pickle(path)
    for array in data.values():
        base = array
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        assert base is mapping.bytes
    mapping.looked_at(2**30)  # the system may take the pages back, and gives them again
    np.testing.assert_array_equal(data["b"].T.ravel(), data["a"])


def test_deep_nesting_is_read_and_let_go(tmp_path):
    depth = 100_000
    data = read(b"(" * depth + b"l" * depth + b".", tmp_path / "file.pkl")
    levels = 1
    while data:
        (data,) = data
        levels += 1
    assert levels == depth


def test_a_place_that_is_taken_again_keeps_what_was_put_there(tmp_path):
    data = b"(cnumpy\ndtype\n(Vf8\nI0\nI1\ntRp7\n(I3\nV<\nNNNI-1\nI-1\nI0\ntVnew\np7\n0bg7\nt."
    assert read(data, tmp_path / "file.pkl") == (np.dtype("f8"), "new")


def test_a_folder_and_no_file(tmp_path):
    with pytest.raises(SourceError, match="is a folder; name the file in it"):
        read_pickle(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_pickle(tmp_path / "nothing")
