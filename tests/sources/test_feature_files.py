import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.feature_files import FeatureFiles
from multimodal_pad.sources.npy_files import NpyFile

DTYPES = ["?", "i1", "u2", ">i4", "i8", "f2", "f4", ">f4", "f8", ">f8"]
IDS = ["a", "b", "c", "video/d"]


def save(folder, name, array, container="npy"):
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if container == "npy":
        np.save(f"{place}.npy", array)
    elif container == "frames":
        place.mkdir()
        for number, frame in enumerate(array):
            np.save(place / f"frame{number}.npy", frame[None] if frame.ndim == 1 and number % 2 else frame)
    else:
        (np.savez_compressed if container == "packed" else np.savez)(f"{place}.npz", audio=array)


def opened(folder, ids=IDS, **options):
    return FeatureFiles.in_folder(folder, "audio", ids, **options)


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(), (3,), (2, 4), (0,), (1,)]),
    lengths=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    containers=st.lists(st.sampled_from(["npy", "npz", "packed", "frames"]), min_size=4, max_size=4),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_array_in_any_container_is_what_was_saved(tmp_path_factory, dtype, shape, lengths, containers, order, seed):
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(seed)
    arrays = [(rng.standard_normal((n, *shape)) * 50).astype(dtype, order=order) for n in lengths]
    written = [c if n and shape else "npy" for c, n in zip(containers, lengths, strict=True)]
    for name, array, container in zip(IDS, arrays, written, strict=True):
        save(folder, name, array, container)
    files = opened(folder, vectors=None if shape else "sequence")
    assert files.lengths.tolist() == lengths
    wanted = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind in "biu" and any(lengths) else None
    for index, array in enumerate(arrays):
        found = files.read(index)
        np.testing.assert_array_equal(found, array.astype(np.float32) if found.dtype.kind == "f" else array)
        assert found.shape == array.shape or not any(lengths)
        assert found.dtype == files.dtype
        assert found.dtype.isnative
        assert wanted is None or found.dtype == wanted
    assert sorted(files.paths) == sorted(path for path in folder.rglob("*") if path.is_file())


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(12):
        np.save(tmp_path / "a" / f"face_{number}.npy", np.full(3, number, np.float32))
    (tmp_path / "a" / "faces.csv").write_text("frame,confidence\n")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"")
    assert opened(tmp_path, ["a"]).read(0)[:, 0].tolist() == list(range(12))


def test_a_squeezed_array_is_one_frame_beside_others(tmp_path):
    save(tmp_path, "a", np.ones((2, 5)))
    save(tmp_path, "b", np.arange(5.0))
    files = opened(tmp_path, ["b", "a"])
    assert files.lengths.tolist() == [1, 2]
    assert files.read(0).tolist() == [[0, 1, 2, 3, 4]]
    with pytest.raises(SourceError, match=r"b\.npy: holds \(5,\) of float64, and a\.npy \(2, 5\)"):
        opened(tmp_path, ["b", "a"], vectors="sequence")


def test_arrays_of_one_axis_are_asked_about(tmp_path):
    save(tmp_path, "a", np.arange(5.0))
    save(tmp_path, "b", np.arange(5.0))
    with pytest.raises(SourceError, match=r"a\.npy: holds one axis of 5 numbers .*vectors='frame'; --vectors frame"):
        opened(tmp_path, ["a", "b"])
    assert opened(tmp_path, ["a", "b"], vectors="frame").read(1).shape == (1, 5)
    assert opened(tmp_path, ["a", "b"], vectors="sequence").read(1).shape == (5,)
    save(tmp_path, "b", np.arange(4.0))
    with pytest.raises(SourceError, match=r"b\.npy: holds \(4,\) of float64, and a\.npy \(5,\)"):
        opened(tmp_path, ["a", "b"], vectors="frame")


def test_token_ids_are_positions_whatever_vectors_says(tmp_path):
    save(tmp_path, "a", np.arange(5))
    save(tmp_path, "b", np.arange(3))
    assert opened(tmp_path, ["a", "b"], vectors="frame").lengths.tolist() == [5, 3]


@pytest.mark.parametrize("empty", [np.zeros(0), np.zeros((0,), int), np.zeros((0, 7)), np.zeros((0, 2, 2), bool)])
def test_nothing_is_a_missing_modality_whatever_its_shape(tmp_path, empty):
    save(tmp_path, "a", empty)
    save(tmp_path, "b", np.ones((3, 2), np.float32))
    files = opened(tmp_path, ["a", "b"])
    assert files.lengths.tolist() == [0, 3]
    assert (files.read(0).shape, files.read(0).dtype) == ((0, 2), np.float32)


def test_absent_files(tmp_path, caplog):
    save(tmp_path, "b", np.ones((3, 2)))
    (tmp_path / "c").mkdir()
    with pytest.raises(SourceError, match=r"2 of 3 samples have no 'audio': a, c; add the files.*--absent missing"):
        opened(tmp_path, ["a", "b", "c"])
    with caplog.at_level(logging.WARNING):
        files = opened(tmp_path, ["a", "b", "c"], absent="missing")
    assert "2 of 3 samples have no audio: a, c" in caplog.text
    assert (files.lengths.tolist(), files.absent, files.path(0)) == ([0, 3, 0], 2, None)
    with pytest.raises(SourceError, match=r"holds none of c\.npy, c\.npz, c/ and so on"):
        opened(tmp_path, ["c"], absent="missing")


@pytest.mark.parametrize("name", ["../b", "/b", "x/../b", "..", "a\0"])
def test_an_id_does_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    save(tmp_path, "b", np.ones((3, 2)))
    with pytest.raises(SourceError, match="which is no name of a file in it"):
        opened(tmp_path / "in", [name])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3)), r"b\.npy: holds \(2, 3\) of float64, and a\.npy \(3, 2\) of float64; give all of 'audio'"),
        (np.ones((3, 2), int), r"b\.npy: holds \(3, 2\) of int64, and a\.npy \(3, 2\) of float64"),
        (np.ones((1, 3, 2)), r"b\.npy: holds \(1, 3, 2\) .*drop the first axis with np\.squeeze"),
        (np.float64(3), r"b\.npy: holds shape \(\) of float64; features are numbers"),
        (np.ones((3, 2), complex), r"b\.npy: holds shape \(3, 2\) of complex128; features are numbers"),
        (np.array(["a", "b"]), r"b\.npy: holds shape \(2,\) of <U1; features are numbers"),
        (np.array([{}]), r"b\.npy: holds Python objects; features are numbers"),
        (np.zeros(2, [("x", "f4")]), r"b\.npy: holds shape \(2,\) of .*; features are numbers"),
    ],
)
def test_arrays_that_are_not_as_the_others(tmp_path, array, message):
    save(tmp_path, "a", np.ones((3, 2)))
    np.save(tmp_path / "b.npy", array, allow_pickle=True)
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, ["a", "b"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.ones(4), r"a/1\.npy: is a frame of shape \(4,\) and float64, and the first one, 0\.npy, of \(3,\)"),
        (np.ones((2, 3)), r"a/1\.npy: is a frame of shape \(2, 3\)"),
        (np.ones(3, np.float32), r"a/1\.npy: is a frame of shape \(3,\) and float32"),
    ],
)
def test_a_frame_that_is_not_as_the_first(tmp_path, frame, message):
    save(tmp_path, "a/0", np.ones(3))
    save(tmp_path, "a/1", frame)
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, ["a"]).read(0)


def test_a_file_that_changes_after_it_was_opened(tmp_path):
    save(tmp_path, "a", np.ones((3, 2)))
    files = opened(tmp_path, ["a"])
    save(tmp_path, "a", np.ones((4, 2)))
    with pytest.raises(SourceError, match=r"a\.npy: has changed since it was opened"):
        files.read(0)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.npy"):
        files.read(0)


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1" + b"0" * 400 + b",), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (3.0, 2), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
    b"{'descr': '<f4', 'fortran_order': 1, 'shape': (3,), }",
    b"{'descr': '<f4', 'shape': (3,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 70 + b"), }",
    b"(" * 5000,
    b"\xff\0",
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_say_what_no_array_is(tmp_path, header):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    with pytest.raises(SourceError, match=r"a\.npy: damaged or cut short .*write it again with np\.save"):
        NpyFile(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(SourceError, match=r"a\.npy: is a pipe"):
        opened(tmp_path, ["a"])


def test_headers_are_read_in_order_and_told_of(tmp_path):
    ids = [f"s{number}" for number in range(150)]
    for number, name in enumerate(ids):
        save(tmp_path, name, np.ones((number + 1, 2)))
    told = []
    files = opened(tmp_path, ids, progress=lambda *what: told.append(what))
    assert files.lengths.tolist() == list(range(1, 151))
    assert [done for _, done, _ in told] == [64, 128, 150]
    assert {(what, total) for what, _, total in told} == {("looking through audio", 150)}


def test_opening_reads_no_values(tmp_path, monkeypatch):
    save(tmp_path, "a", np.ones((3, 2)))
    save(tmp_path, "b", np.ones((2, 2)), "frames")
    monkeypatch.setattr("multimodal_pad.sources.npy_files._values", None)
    assert opened(tmp_path, ["a", "b"]).lengths.tolist() == [3, 2]
    assert Path(opened(tmp_path, ["a", "b"]).path(1)).is_dir()
