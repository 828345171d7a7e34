"""Files that are damaged, or made to take time or memory, are an error."""

import io
import pickle
import random
import struct
import warnings
from contextlib import suppress

import numpy as np
import pytest

from multimodal_pad.errors import SourceError
from tests.helpers.pickles import read

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


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
