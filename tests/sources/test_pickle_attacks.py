"""Nothing that a pickle asks for is run: what is no data is refused by its name."""

import copyreg
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad.errors import SourceError
from multimodal_pad.sources import Mult
from multimodal_pad.sources.pickles import read_pickle
from tests.helpers.corpora import write_mult
from tests.helpers.pickles import read


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


def test_a_malicious_split_does_not_wait_to_be_asked_for(tmp_path):
    written = write_mult(tmp_path)
    with written.path.open("rb") as file:
        data = pickle.load(file)
    data["test"]["id"] = Evil(exec, touch(tmp_path / "marker"))
    written.path.write_bytes(pickle.dumps(data))
    with pytest.raises(SourceError, match=r"builtins\.exec"):
        Mult(written.path, "train")
    assert not (tmp_path / "marker").exists()
