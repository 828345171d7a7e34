"""What is raised while a file is read, and what becomes of it."""

import errno
import socket

import numpy as np
import pytest

from multimodal_pad.errors import LengthError, SourceError
from multimodal_pad.reading import check_unpacked, file_size, read_npy, reading, some


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        KeyError("odd"),
        MemoryError("odd"),
        RecursionError("odd"),
        OverflowError("odd"),
        OSError("odd"),
        OSError(errno.EINVAL, "odd"),
        AssertionError("odd"),
        RuntimeError("odd\n  over several\n lines " + "x" * 1000),
    ],
)
def test_what_damage_raises_names_the_file(error):
    message = r"^a\.bin: damaged or cut short \(\w+: .*odd.*\); write it anew$"
    with pytest.raises(SourceError, match=message) as raised, reading("a.bin", "write it anew"):
        raise error
    assert raised.value.__cause__ is error
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "x"), PermissionError(errno.EACCES, "x"), OSError(errno.EMFILE, "x")]
    + [KeyboardInterrupt(), SystemExit(3), LengthError("of ours"), SourceError("of ours")],
)
def test_what_is_no_damage_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, reading("a.bin"):
        raise error
    assert raised.value is error


def test_what_is_no_regular_file(tmp_path):
    with pytest.raises(SourceError, match="is a folder; name the file in it"):
        file_size(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(SourceError, match="s: is a socket; name a file"):
            file_size(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        file_size(tmp_path / "nothing")


def test_small_files_have_room():
    check_unpacked(2**24, 1, "a.bin")
    with pytest.raises(SourceError, match=r"a\.bin: would take 16,777,317 bytes, and the file has 1; more than"):
        check_unpacked(2**24 + 101, 1, "a.bin")


def test_lists_of_names_are_short():
    assert len(some(["x" * 10**6] * 1000)) < 3000


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (2, 3), (2, 3, 4)])
def test_npy_files_are_read_as_they_were_written(shape, order, tmp_path):
    for dtype in ("f4", ">i2", "?", "U3", "S2", "c8"):
        array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), order=order)
        np.save(tmp_path / "a.npy", array)
        found = read_npy(tmp_path / "a.npy")
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
        assert not found.size or not found.flags.writeable
