"""Segments of computational sequences."""

import json
import logging
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.errors import LengthError, PaddingError, SourceError
from multimodal_pad.sources import Csd
from multimodal_pad.sources.csd_sequence import SHORTEST, Times
from tests.helpers.corpora import CSD, FOLDS, LABELS, write_csd, write_sequence

h5py = pytest.importorskip("h5py")

FILES = {name: file for name, (file, *_) in CSD.items()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return write_csd(tmp_path_factory.mktemp("csd"))


@pytest.fixture
def written(shared, tmp_path):
    shutil.copytree(shared.path, tmp_path, dirs_exist_ok=True)
    return tmp_path


def open_all(folder, split="all", **options):
    return Csd(folder, split, **{"sequences": FILES, "labels": LABELS, "nonfinite": "zero", **options})


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file[next(iter(file))]["data"])


def test_frames_belong_to_the_segment_that_they_overlap(written):
    source = open_all(written)
    assert len(source) == 15
    for index, name in enumerate(source.ids):
        for modality in FILES:
            frames = source[index][modality]
            assert (frames[:, 0] == int(name[-2]) + 1).all(), "first features say which segment a frame is of"
            assert len(frames) or (modality == "visual" and name.startswith("v1"))
    assert source.ids[:3] == ["v0[0]", "v0[1]", "v1[0]"]


def test_frames_come_in_the_order_of_their_starts(tmp_path):
    times = np.array([[2, 3], [0, 1], [1, 2], [3, 4.0]])
    write_sequence(tmp_path / "a.csd", "a", {"v": (np.arange(4.0).reshape(4, 1), times)})
    write_sequence(tmp_path / "l.csd", "l", {"v": (np.zeros((2, 1)), np.array([[0.5, 3.0], [1.0, 2.0]]))})
    source = Csd(tmp_path, sequences={"a": "a.csd"}, labels="l.csd")
    assert source[0]["a"].ravel().tolist() == [1, 2, 0]
    assert source[1]["a"].ravel().tolist() == [2]  # touching a segment is not overlapping it


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-1, 9)), max_size=12),
    st.integers(-9, 9),
    st.integers(-1, 9),
)
def test_frames_that_overlap_are_all_that_do(frames, start, duration):
    """Whatever their order is, and whether they overlap each other or end before they start."""
    intervals = np.array([[first, first + length] for first, length in frames], float).reshape(-1, 2)
    stop = start + duration
    overlap = [min(b, stop) - max(a, start) > SHORTEST for a, b in intervals.tolist()]
    expected = sorted(np.flatnonzero(overlap).tolist(), key=lambda row: intervals[row, 0])
    assert Times(intervals).rows(start, stop).tolist() == expected


def test_without_folds_there_is_one_split(written):
    assert Csd.split_names(None) == ["all"]
    assert Csd.split_names(FOLDS) == ["train", "valid", "test"]
    with pytest.raises(SourceError, match=r"got the split 'train'; without folds it is \['all'\]"):
        open_all(written, "train")
    with pytest.raises(SourceError, match=r"got the split 'dev'; the folds are \['train', 'valid', 'test'\]"):
        open_all(written, "dev", folds=FOLDS)


def test_videos_in_no_fold_are_warned_of(written, caplog):
    with caplog.at_level(logging.WARNING):
        source = open_all(written, "train", folds={"train": ["v0", "v1"], "test": ["v4"]})
    assert {name[:2] for name in source.ids} == {"v0", "v1"}
    assert "3 videos are in no fold, such as v2" in caplog.text


def test_videos_without_labels_are_warned_of(written, caplog):
    with caplog.at_level(logging.WARNING):
        source = open_all(written, "train", folds={"train": ["v0", "typo", "v9"]})
    assert len(source) == 2
    assert "has no labels of 2 videos of the fold, such as typo" in caplog.text


def test_damaged_blocks_are_named_by_file_and_video(written):
    with h5py.File(written / FILES["audio"]) as file:
        dataset = file["COVAREP/data/v3/features"]
        place, size = dataset.id.get_chunk_info(0).byte_offset, dataset.id.get_chunk_info(0).size
    with (written / FILES["audio"]).open("r+b") as file:
        file.seek(place + size // 2)
        file.write(bytes(64))
    source = open_all(written)
    with pytest.raises(SourceError, match=r"COVAREP\.csd, 'v3': features can't be read"):
        source[source.ids.index("v3[0]")]


def test_two_entries_that_come_to_one_segment(written):
    rows = np.array([[0, 1.0]])
    write_sequence(written / "twice.csd", "l", {"v0": (np.ones((1, 1)), rows), "v0[0]": (np.ones((1, 1)), rows)})
    with pytest.raises(SourceError, match=r"twice\.csd: samples 0 and 1 are both called 'v0\[0\]'"):
        open_all(written, labels="twice.csd")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"train": ["v0"], "test": ["v0"]}, "the video 'v0' is in the folds 'train' and 'test'"),
        ({"train": ["elsewhere"]}, "labels no segment of the split 'train'"),
    ],
)
def test_folds_that_do_not_fit(written, folds, message):
    with pytest.raises(SourceError, match=message):
        open_all(written, "train", folds=folds)


@pytest.mark.parametrize("text", ["[1]", "{", '{"train": 3}', "{}", '{"train": "v0"}', '{"train": [["v0"]]}'])
def test_folds_that_are_no_json(written, text):
    (written / "bad.json").write_text(text)
    with pytest.raises(SourceError, match=r"bad\.json: (not JSON|must hold the videos of each split)"):
        open_all(written, "train", folds=written / "bad.json")


def test_folds_with_a_byte_order_mark(written):
    (written / "folds.json").write_text(json.dumps(FOLDS), encoding="utf-8-sig")
    assert open_all(written, "valid", folds=written / "folds.json").ids == open_all(written, "valid", folds=FOLDS).ids


def test_sequences_that_are_cut_already(written):
    """``video[row]`` as an entry of its own holds the frames of that segment."""
    frames = {f"v0[{row}]": (np.full((row + 2, 3), row), np.arange(2.0 * row + 4).reshape(-1, 2)) for row in range(2)}
    write_sequence(written / "cut.csd", "cut", frames)
    source = open_all(written, sequences={"cut": "cut.csd"})
    assert source.lengths.values.ravel().tolist() == [2, 3] + [0] * 13
    assert source[1]["cut"].tolist() == [[1, 1, 1]] * 3
    write_sequence(written / "labels2.csd", "l", {"v0[1]": (np.array([[2.5]]), np.array([[0, 9.0]]))})
    source = open_all(written, sequences={"cut": "cut.csd"}, labels="labels2.csd")
    assert (source.ids, source.lengths.values.tolist(), source.targets.tolist()) == (["v0[1]"], [[3]], [2.5])


def test_segments_of_no_duration_are_left_out_and_reported(written, caplog):
    edit(written / LABELS, lambda data: data["v3/intervals"].__setitem__((1, 1), data["v3/intervals"][1, 0]))
    with caplog.at_level(logging.WARNING):
        source = open_all(written)
    assert len(source) == 14
    assert [(row.utterance, row.file) for row in source.left_out] == [("v3[1]", LABELS)]
    assert "left out v3[1]: lasts 0 s" in caplog.text


MOSEI = ["sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"]


@pytest.fixture
def seven(written):
    """Labels of two segments in seven columns, which the file names."""
    rows = np.arange(14.0).reshape(2, 7)
    write_sequence(written / "seven.csd", "Labels", {"v0": (rows, np.array([[0, 1.0], [1, 2]]))}, dimensions=MOSEI)
    return rows


@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        (1, 1),
        ([0, 1], [0, 1]),
        ("happy", 1),
        (["fear", 0], [6, 0]),
        (slice(1, 7), [1, 2, 3, 4, 5, 6]),
        (range(0, 7, 2), [0, 2, 4, 6]),
        (slice(None), [0, 1, 2, 3, 4, 5, 6]),
        (np.int64(3), 3),
    ],
)
def test_columns_of_the_labels(written, seven, chosen, index):
    source = open_all(written, labels="seven.csd", label_column=chosen)
    np.testing.assert_array_equal(source.targets, seven[:, index].astype(np.float32))
    assert source.targets.dtype == np.float32
    json.dumps(source.rules)


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (7, r"seven\.csd: has 7 columns of labels; got label_column=7, and they are counted from 0 to 6"),
        (True, "got label_column=True; give a number from 0, a name"),
        (1.0, r"got label_column=1\.0; give a number from 0, a name"),
        ([0, 1.0], r"got label_column=\[0, 1\.0\]; give a number"),
        ("joy", r"seven\.csd: has no column of labels 'joy', only \['sentiment', 'happy'"),
    ],
)
def test_columns_that_there_are_not(written, chosen, message):
    with pytest.raises(PaddingError, match=message):
        open_all(written, labels="seven.csd", label_column=chosen)


@pytest.mark.parametrize("names", [None, "sentiment", ["a"], ["a"] * 7, [1] * 7, {"a": 1}])
def test_columns_without_names(written, names):
    write_sequence(written / "l.csd", "l", {"v0": (np.ones((1, 7)), np.array([[0, 1.0]]))}, dimensions=names)
    assert open_all(written, labels="l.csd", label_column=6).targets.tolist() == [1]
    with pytest.raises(
        SourceError, match="no column of labels 'a', and its columns no names; give numbers, from 0 to 6"
    ):
        open_all(written, labels="l.csd", label_column="a")


def test_a_blind_test_set(written):
    times = np.array([[0.5, 1.5], [2.5, 3.5]])
    write_sequence(written / "blind.csd", "l", {"v0": (np.full((2, 1), np.nan), times)})
    with pytest.raises(
        SourceError, match=r"blind\.csd: all labels are NaN; .* is read with label_column=None \(--unlabeled"
    ):
        open_all(written, labels="blind.csd")
    source = open_all(written, labels="blind.csd", label_column=None)
    assert source.targets is None
    assert set(source[0]) == set(FILES)
    assert source.ids == ["v0[0]", "v0[1]"]


def replace(entry, name, value):
    def change(data):
        del data[f"{entry}/{name}"]
        if value is not None:
            data[f"{entry}/{name}"] = value

    return change


def link_elsewhere(data):
    del data["v0/features"]
    data["v0/features"] = h5py.ExternalLink("other.csd", "/secret")


def link_inside(data):
    del data["v0"]
    data["v0"] = h5py.SoftLink(data["v1"].name)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("audio", replace("v0", "features", None), "'v0': has no array 'features'"),
        (
            "audio",
            replace("v2", "intervals", np.zeros((3, 2))),
            r"'v2': has features of shape .* and intervals of shape \(3, 2",
        ),
        (
            "audio",
            replace("v1", "features", np.zeros((670, 9))),
            r"'v1': has features of shape \(9,\), and 'v0' of \(74,\)",
        ),
        ("audio", replace("v0", "features", b"text"), "'v0': holds text"),
        ("audio", link_elsewhere, "'v0': has no array 'features'"),
        ("audio", link_inside, "'v0': has no array 'features'"),
        ("audio", lambda data: data["v4/intervals"].__setitem__((3, 1), np.nan), r"'v4': row 3 has the interval \["),
        (
            "labels",
            lambda data: data["v4/features"].__setitem__((1, 0), np.nan),
            r"sample 11 \(v4\[1\]\) is labelled nan",
        ),
        ("audio", lambda data: [data.__delitem__(video) for video in list(data)], "holds no videos"),
    ],
)
def test_files_that_are_not_as_they_should_be(written, file, change, message):
    path = written / (LABELS if file == "labels" else FILES[file])
    edit(path, change)
    with pytest.raises(SourceError, match=message) as raised:
        open_all(written)
    assert str(path) in str(raised.value)


def test_words_are_not_features(written):
    with pytest.raises(SourceError, match=r"CMU_MOSI_TimestampedWords\.csd, 'v0': holds text \(\|S32, float64\); name"):
        open_all(written, sequences={"text": "CMU_MOSI_TimestampedWords.csd"})


def test_a_sequence_of_another_corpus(written):
    write_sequence(written / "other.csd", "other", {"w0": (np.zeros((2, 3)), np.zeros((2, 2)))})
    with pytest.raises(
        SourceError, match=r"other\.csd: holds none of the 15 segments of the split 'all', such as v0\[0\]"
    ):
        open_all(written, sequences={"other": "other.csd"})


def test_files_that_are_none(written):
    with pytest.raises(SourceError, match=r"nothing\.csd: no such file; name the \.csd files of the folder"):
        open_all(written, labels="nothing.csd")
    (written / "text.csd").write_text("hello")
    with pytest.raises(SourceError, match=r"text\.csd: not an HDF5 file, or one that is cut short"):
        open_all(written, labels="text.csd")
    data = (written / LABELS).read_bytes()
    (written / "cut.csd").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"cut\.csd: not an HDF5 file, or one that is cut short"):
        open_all(written, labels="cut.csd")
    with h5py.File(written / "empty.csd", "w") as file:
        file.create_group("something")
    with pytest.raises(SourceError, match=r"empty\.csd: is no computational sequence"):
        open_all(written, labels="empty.csd")


def test_no_sequences(written):
    with pytest.raises(LengthError, match="give at least one name"):
        open_all(written, sequences={})


def test_without_h5py(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        PaddingError, match=r"\.csd files need h5py; install it with pip install 'multimodal-pad\[csd\]'"
    ):
        open_all(written)


def test_progress(written):
    told = []
    open_all(written, sequences={"text": FILES["text"]}, progress=lambda *what: told.append(what))
    assert told[-1] == ("looking through all, text", 15, 15)
