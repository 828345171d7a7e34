"""Pickles are read as data: whatever plain data they hold comes out, and nothing that they ask for is run."""

import copyreg
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multimodal_pad.errors import SourceError
from multimodal_pad.sources import Mult
from multimodal_pad.sources.pickles import read_pickle
from tests.helpers.corpora import dump_python2, write_mult

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


def read(data, path):
    path.write_bytes(data)
    return read_pickle(path)[0]


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


def call(name, *arguments):
    """A pickle of protocol 0 that calls a function on text."""
    module, function = name.rsplit(".", 1)
    return f"c{module}\n{function}\n(".encode() + b"".join(f"V{text}\n".encode() for text in arguments) + b"tR."


class Evil:
    """Pickled, it is a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class EvilArray(np.ndarray):
    """An array that is a call when it is pickled."""

    def __reduce__(self):
        return eval, (self.code,)


def evil_subclass(marker):
    array = np.zeros(2).view(EvilArray)
    array.code = f"open({str(marker)!r}, 'w')"
    return pickle.dumps({"train": {"text": array}})


def touch(marker):
    return f"open({str(marker)!r}, 'w').close()"


def text4(value):
    """Text in protocol 4."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def registered(marker):
    """An entry of copyreg's extension registry, which the reading process has."""
    return b"\x80\x02\x82\xf0X" + struct.pack("<I", len(f"touch {marker}")) + f"touch {marker}".encode() + b"\x85R."


# Each is a file that runs something when pickle loads it, and what the error must name.
ATTACKS = {
    "os.system, protocol 0": (lambda m: call("os.system", f"touch {m}"), "os.system"),
    "os.system, reduced": (lambda m: pickle.dumps(Evil(os.system, f"touch {m}")), "posix.system"),
    "builtins.eval": (lambda m: call("builtins.eval", touch(m)), "builtins.eval"),
    "builtins.exec of Python 2": (lambda m: call("__builtin__.eval", touch(m)), "__builtin__.eval"),
    "builtins.exec, nested": (
        lambda m: pickle.dumps({"train": {"text": [({"a": Evil(exec, touch(m))},)]}}, 2),
        "__builtin__.exec",
    ),
    "subprocess.Popen": (lambda m: pickle.dumps(Evil(subprocess.Popen, ["touch", str(m)])), "subprocess.Popen"),
    "a NumPy function": (lambda m: pickle.dumps(Evil(np.savetxt, str(m), [1.0])), "numpy.savetxt"),
    "a NumPy method by a dotted name": (
        lambda m: (
            b"\x80\x04"
            + text4("numpy")
            + text4("ndarray.tofile")
            + b"\x93("
            + pickle.dumps(np.zeros(1), 4)[11:-1]
            + text4(str(m))
            + b"tR."
        ),
        "numpy.ndarray.tofile",
    ),
    "a memory-mapped file, by NEWOBJ": (
        lambda m: b"\x80\x02cnumpy\nmemmap\n(V" + str(m).encode() + b"\nVuint8\nVw+\nI0\nI1\nt\x81.",
        "numpy.memmap",
    ),
    "in an object array": (lambda m: pickle.dumps(np.array([1, Evil(eval, touch(m))], dtype=object)), "builtins.eval"),
    "a subclass of ndarray": (evil_subclass, "builtins.eval"),
    "copyreg._reconstructor": (
        lambda m: (
            b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncsubprocess\nPopen\n(lVtouch\naV"
            + str(m).encode()
            + b"\natR."
        ),
        "copyreg._reconstructor",
    ),
    "copyreg.__newobj__ of Python 2": (
        lambda m: (
            b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\ncsubprocess\nPopen\n(lVtouch\naV"
            + str(m).encode()
            + b"\natR."
        ),
        "copy_reg._reconstructor",
    ),
    "copyreg's extension registry": (registered, r"extension registry \(EXT1\)"),
    "_codecs.register": (
        lambda m: b"c_codecs\nregister\n(cbuiltins\neval\ntR0c_codecs\nencode\n(Vx\nV" + touch(m).encode() + b"\ntR.",
        "_codecs.register",
    ),
    "codecs.open": (lambda m: call("codecs.open", m, "w"), "codecs.open"),
    "INST": (lambda m: f"(Vtouch {m}\nios\nsystem\n.".encode(), r"an instance of a class \(INST\)"),
    "OBJ": (lambda m: f"(cos\nsystem\nVtouch {m}\no.".encode(), "os.system"),
    "setting an item of os.environ": (lambda m: f"cos\nenviron\nV{m.name}\nV1\ns.".encode(), "os.environ"),
    "the state of an object": (
        lambda m: b"cfunctools\npartial\n(cos\nsystem\ntR(cos\nsystem\n(Vtouch " + str(m).encode() + b"\nt}Ntb.",
        "functools.partial",
    ),
    "a function of pathlib": (lambda m: pickle.dumps(Evil(Path.touch, Path(m))), "pathlib"),
}
DORMANT = {"the state of an object", "_codecs.register"}
"""They only prepare a call: nothing happens while they are loaded."""

LOAD = """
import copyreg, os, pickle, sys
copyreg.add_extension("os", "system", 0xf0)
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            pickle.load(file)
    except Exception:
        pass
    if os.environ.pop(os.path.basename(path)[:-4] + ".marker", None):
        open(path[:-4] + ".marker", "w").close()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
"""


def attack_files(folder):
    paths = {}
    for number, (name, (make, _)) in enumerate(ATTACKS.items()):
        paths[name] = folder / f"attack{number}.pkl"
        paths[name].write_bytes(make(paths[name].with_suffix(".marker")))
    return paths


def test_pickle_would_have_run_them(tmp_path):
    """Or the tests below would show nothing."""
    paths = attack_files(tmp_path)
    subprocess.run([sys.executable, "-c", LOAD, *map(str, paths.values())], check=True, capture_output=True)
    ran = {name for name, path in paths.items() if path.with_suffix(".marker").exists()}
    assert ran == ATTACKS.keys() - DORMANT
    assert len(ran) >= 12


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_pickle_asks_for_is_refused_by_its_name_and_does_not_happen(name, tmp_path):
    copyreg.add_extension("os", "system", 0xF0)
    try:
        make, asked = ATTACKS[name]
        marker = tmp_path / "marker"
        path = tmp_path / "evil.pkl"
        path.write_bytes(make(marker))
        before = set(os.environ)
        for attempt in (lambda: read_pickle(path), lambda: Mult(path, "train")):
            with pytest.raises(SourceError, match=rf"evil\.pkl: the pickle asks for .*{asked}.*nothing of it was run"):
                attempt()
        assert not marker.exists()
        assert set(os.environ) == before
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


def raw(*parts):
    return b"".join(parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw(b"cnumpy\nndarray\n(I3\ntR."), "a call of numpy.ndarray"),
        (raw(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntVb\ntR."), "an array of the class"),
        (raw(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\n(I0\ntVb\ntR."), "numpy.memmap"),
        (raw(b"cnumpy\ndtype\n(VM8[ns]\nI0\nI1\ntR."), r"a dtype 'M8\[ns\]'"),
        (raw(b"cnumpy\ndtype\n(VV12\nI0\nI1\ntR."), "a dtype 'V12'"),
        (pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "i4")])), "a dtype 'V8'"),
        (raw(b"c_codecs\nencode\n(Vabc\nVrot13\ntR."), "_codecs.encode to 'rot13'"),
        (raw(b"Vabc\n(Vx\ntR."), "a call of 'abc'"),
        (raw(b"(lVabc\nb."), "the state of a list"),
        (raw(b"cnumpy\nndarray\n}b."), "the state of numpy.ndarray"),
        (pickle.dumps(3j), "builtins.complex"),
        (raw(b"\x80\x04}((K\x01tK\x02u."), "a tuple as a key"),
        (raw(b"\x80\x04}(I" + b"9" * 30 + b"\nK\x02u."), "a number of more than 64 bits as a key"),
        (raw(b"\x80\x04Pid\n."), "an object outside of the file"),
        (raw(b"\x80\x04K\x01Q."), "an object outside of the file"),
        (raw(b"\x80\x05\x97."), "a buffer outside of the file"),
        (raw(b"\x80\x02cnumpy\nndarray\n)\x81."), r"an instance of numpy.ndarray \(NEWOBJ\)"),
    ],
)
def test_more_that_is_no_data(data, message, tmp_path):
    with pytest.raises(SourceError, match=f"the pickle asks for .*{message}"):
        read(data, tmp_path / "file.pkl")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04rest", r"not a pickle but a zip archive"),
        (b"\x89HDF\r\n", "not a pickle but an HDF5 file"),
        (b"\x1f\x8b\x08", "not a pickle but a gzip file"),
        (b"\x93NUMPY\x01", "not a pickle but a NumPy file"),
        (b"Sr No.,Utterance\n", "not a pickle"),
        (b"hello", "not a pickle"),
        (b"\xff\xff", "not a pickle"),
        (b"\x80\x04", "cut short, at byte 2 of 2"),
        (b"\x80\x04B\xff\xff\xff\x7fabc", "cut short.*2,147,483,647 bytes are announced and 3 are left"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04h\x07.", "damaged"),
        (b"\x80\x04K\x01K\x02u.", "damaged"),
        (b"\x80\x04K\x01K\x02e.", "damaged"),
        (b"\x80\x04N(K\x01e.", "NoneType where a list should be"),
        (b"\x80\x04}(K\x01u.", "damaged"),
        (b"\x80\x04S'open\n.", "a string without quotes"),
        (b"\x80\x04I" + b"9" * 5000 + b"\n.", "damaged"),
    ],
)
def test_what_is_no_pickle_or_is_damaged(data, message, tmp_path):
    with pytest.raises(SourceError, match=rf"file\.pkl: .*{message}"):
        read(data, tmp_path / "file.pkl")


def doubled(levels):
    """A list that holds itself twice, level by level: few bytes, and endless to print."""
    return b"(lp0\n" + b"".join(f"(g{n}\ng{n}\nlp{n + 1}\n".encode() for n in range(levels))


def array_of_objects(inner):
    """An object array of one element, around the opcodes of another."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    dtype = b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR(I3\nV|\nNNNI-1\nI-1\nI63\ntb"
    return empty + b"(I1\n(I1\nt" + dtype + b"I00\n(l" + inner + b"atb"


BOMBS = {
    "a dtype that is endless to print": doubled(60) + b"0cnumpy\ndtype\n(g60\ntR.",
    "a name that is endless to print": doubled(60) + b"g60\nVx\n\x93.",
    "an encoding that is endless to print": doubled(60) + b"0c_codecs\nencode\n(Va\ng60\ntR.",
    "a key that is endless to hash": b"(K\x01tp0\n"
    + b"".join(f"(g{n}\ng{n}\ntp{n + 1}\n".encode() for n in range(60))
    + b"0}g60\nK\x01s.",
    "a shape of large numbers": b"I"
    + b"9" * 4000
    + b"\np0\n0cnumpy.core.numeric\n_frombuffer\n(Va\nN("
    + b"g0\n" * 60
    + b"tVC\ntR.",
    "a shape of many dimensions": b"cnumpy.core.numeric\n_frombuffer\n(Va\nN(" + b"K\x01" * 99 + b"tVC\ntR.",
    "copies of copies": b"V"
    + b"a" * 10**5
    + b"\np0\n0c_codecs\nencode\np1\n0(g0\nVlatin1\ntp2\n0"
    + b"g1\ng2\nR0" * 3000
    + b"N.",
    "sets of one list": b"("
    + b"".join(f"I{n}\n".encode() for n in range(20000))
    + b"lp0\n0cbuiltins\nfrozenset\np1\n0(g0\ntp2\n0"
    + b"g1\ng2\nR0" * 3000
    + b"N.",
    "arrays of objects in each other": array_of_objects(array_of_objects(b"N")) + b".",
    "an array that was never built": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR.",
    "a set of what is in the file": b"cbuiltins\nset\n(B" + struct.pack("<I", 10**6) + bytes(10**6) + b"tR.",
    "a name for itself": b"(lcnumpy\nndarray\na.",
    "a key of text and bytes": b"}(Va\nI1\nVb\ncnumpy\nndarray\nu.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_take_no_time_and_no_memory(name, tmp_path):
    with pytest.raises(SourceError, match=r"file\.pkl") as raised:
        read(BOMBS[name], tmp_path / "file.pkl")
    assert len(str(raised.value)) < 600 + len(str(tmp_path))


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


@pytest.mark.parametrize(
    "change", [{"shape": (5, 2)}, {"shape": (-1,)}, {"shape": (2**70,)}, {"shape": [8]}, {"dtype": 3}]
)
def test_arrays_that_are_not_as_large_as_their_bytes(change, tmp_path):
    file = io.BytesIO()

    class Liar:
        def __reduce__(self):
            reconstruct, arguments, state = np.zeros(8).__reduce__()
            version, shape, dtype, fortran, data = state
            return (
                reconstruct,
                arguments,
                (version, change.get("shape", shape), change.get("dtype", dtype), fortran, data),
            )

    pickle.dump(Liar(), file, 3)
    with pytest.raises(SourceError, match="damaged"):
        read(file.getvalue(), tmp_path / "file.pkl")


def test_every_way_to_cut_a_file_short_is_noticed(tmp_path):
    data = pickle.dumps({"train": {"text": np.arange(6.0), "id": ["a", "b"], "n": 3}}, 4)
    for size in range(len(data)):
        with pytest.raises(SourceError, match=r"file\.pkl"):
            read(data[:size], tmp_path / "file.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_damage_gets_further_than_an_error(protocol, tmp_path):
    """Any byte may be any other: there is data, or a SourceError."""
    whole = pickle.dumps({"train": {"text": np.arange(6.0), "id": [b"a", "b"], "o": np.array([None, 2])}}, protocol)
    rng = random.Random(protocol)
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in literals that are none
            with suppress(SourceError):
                read(bytes(data), tmp_path / "file.pkl")


def test_a_malicious_split_does_not_wait_to_be_asked_for(tmp_path):
    written = write_mult(tmp_path)
    with written.path.open("rb") as file:
        data = pickle.load(file)
    data["test"]["id"] = Evil(exec, touch(tmp_path / "marker"))
    written.path.write_bytes(pickle.dumps(data))
    with pytest.raises(SourceError, match=r"builtins\.exec"):
        Mult(written.path, "train")
    assert not (tmp_path / "marker").exists()
