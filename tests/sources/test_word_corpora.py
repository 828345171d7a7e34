"""MFN's HDF5 files and MAG-BERT's lists of examples: what they must be."""

import pickle

import numpy as np
import pytest

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.sources import MagBert, Mfn
from tests.helpers.word_corpora import write_mag_bert, write_mfn

h5py = pytest.importorskip("h5py")


def rewrite(folder, name, values):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        if values is not None:
            file["d1"] = values


def values(folder, name):
    with h5py.File(folder / f"{name}.h5") as file:
        return file[next(iter(file))][:]


def test_mfn_lengths_are_the_same_whatever_is_chosen(tmp_path):
    """Words on which a modality has nothing stay, also at the ends."""
    write_mfn(tmp_path, "youtube")
    whole = Mfn(tmp_path, "train", nonfinite="zero")
    assert whole.lengths.values[0].tolist() == [20, 20, 20]
    assert (whole[0]["visual"][0] == 0).all()
    visual = Mfn(tmp_path, "train", modalities=["visual"])
    np.testing.assert_array_equal(visual.lengths.values[:, 0], whole.lengths.values[:, 2])


def test_mfn_columns_of_labels(tmp_path):
    written = write_mfn(tmp_path, "pom")
    targets = np.stack([sample["targets"] for sample in written.splits["train"]])
    np.testing.assert_array_equal(Mfn(tmp_path, "train").targets, targets)
    np.testing.assert_array_equal(Mfn(tmp_path, "train", label_column=3).targets, targets[:, 3])
    np.testing.assert_array_equal(Mfn(tmp_path, "train", label_column=slice(2, 5)).targets, targets[:, 2:5])
    (tmp_path / "y_test.h5").unlink()
    assert Mfn(tmp_path, "test", label_column=None).targets is None
    with pytest.raises(SourceError, match=r"y_test\.h5: no such file; a split without labels is read with label_col"):
        Mfn(tmp_path, "test")


@pytest.mark.parametrize(
    ("corpus", "change", "options", "message"),
    [
        ("pom", ("y_train", np.zeros(5)), {}, r"y_train\.h5: holds labels of shape \(5,\) for 6 samples"),
        (
            "pom",
            ("y_train", np.where(np.arange(102).reshape(6, 17) == 0, np.nan, 1)),
            {},
            r"y_train\.h5: sample 0 \(train\[0\]\) is labelled",
        ),
        ("pom", ("audio_train", np.zeros((6, 19, 4))), {}, r"the files differ in samples and positions: .*\(6, 19\)"),
        ("pom", ("audio_train", np.zeros((6, 20))), {}, r"audio_train\.h5: holds float64 of shape \(6, 20\); it must"),
        ("pom", ("audio_train", np.zeros((6, 20, 0))), {}, r"audio_train\.h5: holds float64 of shape \(6, 20, 0\)"),
        ("pom", ("video_train", None), {}, r"video_train\.h5: holds \[\]; it must hold one array"),
        (
            "mosi",
            ("X_train", np.zeros((6, 20, 9))),
            {},
            r"X_train\.h5: holds features of width 9, and the widths .* 325",
        ),
        ("mosi", None, {"widths": {"text": 0}}, r"got widths=\{'text': 0\}; give the width of each modality"),
        ("pom", None, {"split": "dev"}, r"has no files of the split 'dev', only of \['train', 'valid', 'test'\]"),
        ("pom", None, {"modalities": ["vision"]}, "choose from .*'visual'"),
    ],
)
def test_mfn_files_that_are_none(corpus, change, options, message, tmp_path):
    write_mfn(tmp_path, corpus)
    if change is not None:
        rewrite(tmp_path, *change)
    with pytest.raises(PaddingError, match=message):
        Mfn(tmp_path, **{"split": "train", **options})


def test_mfn_widths_of_another_corpus(tmp_path):
    written = write_mfn(tmp_path, "mosi")
    other = {"text": 300, "audio": 10, "visual": 15}
    found = Mfn(tmp_path, "train", widths=other, nonfinite="zero")
    sample = written.splits["train"][0]
    joined = np.concatenate([sample[name] for name in other], axis=1)
    np.testing.assert_array_equal(np.concatenate([found[0][name] for name in other], axis=1), joined)


def test_mfn_folders_that_are_none(tmp_path):
    with pytest.raises(SourceError, match="holds neither text_train_emb"):
        Mfn(tmp_path, "train")
    with pytest.raises(SourceError, match="nowhere: no such folder"):
        Mfn(tmp_path / "nowhere", "train")
    write_mfn(tmp_path, "youtube")
    (tmp_path / "video_train.h5").unlink()
    with pytest.raises(SourceError, match=r"has no video_train\.h5; name the modalities that are there: \['text', 'au"):
        Mfn(tmp_path, "train")
    assert Mfn(tmp_path, "train", modalities=["audio", "text"]).lengths.modalities == ("audio", "text")


GOOD = (["so", "good"], np.ones((2, 3)), np.ones((2, 4))), np.array([[1.0]]), "a[0]"


def with_fields(*fields, label=1.0, segment="b[0]"):
    return tuple(fields), label, segment


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (3, r"sample 1 is a int of something else; it must be \(\(words, visual, acoustic\), label, segment\)"),
        ((1, 2, 3), "sample 1 is a tuple of something else"),
        (with_fields(["so"], np.ones((1, 3))), "sample 1 is a tuple of something else"),
        (with_fields([3.5], np.ones((1, 3)), np.ones((1, 4))), "sample 1 has words that are no list of text"),
        (with_fields(np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 4))), "sample 1 has words that are no list"),
        (with_fields(5, np.ones((1, 3)), np.ones((1, 4))), "sample 1 has words that are no list of text"),
        (
            with_fields(["so"], np.ones((1, 5)), np.ones((1, 4))),
            r"sample 1 has visual of shape \(1, 5\), and sample 0 of \(2, 3\); give all the same width",
        ),
        (with_fields(["so"], [["x"]], np.ones((1, 4))), "sample 1 has visual of list; it must be an array of numbers"),
        (with_fields(["so"], np.ones(3), np.ones((1, 4))), r"sample 1 has visual of float64 of shape \(3,\)"),
        (with_fields(["so"], np.array(1), np.ones((1, 4))), r"sample 1 has visual of int64 of shape \(\)"),
        (with_fields(["so"], np.ones((1, 3)), np.ones((1, 4)), label="x"), "sample 1 has the label of str"),
        (
            with_fields(["so"], np.ones((1, 3)), np.ones((1, 4)), label=np.ones(7)),
            "sample 1 has 7 labels and sample 0 1",
        ),
        (with_fields(["so"], np.ones((1, 3)), np.ones((1, 4)), label=np.nan), r"sample 1 \(b\[0\]\) is labelled"),
        (with_fields(["so"], np.ones((1, 3)), np.ones((1, 4)), segment="a[0]"), "samples 0 and 1 are both called"),
        (with_fields(["so"], np.ones((1, 3)), np.ones((1, 4)), segment={}), "sample 1 has the id a dict"),
    ],
)
def test_examples_that_are_none(example, message, tmp_path):
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps({"train": [GOOD, example]}))
    with pytest.raises(SourceError, match=rf"mosi\.pkl, split 'train'.*: {message}"):
        MagBert(tmp_path / "mosi.pkl", "train")


@pytest.mark.parametrize("words", [[7, 9], np.array([7, 9]), np.array([7, 9], "u2")])
def test_words_that_are_numbers_already(words, tmp_path):
    """As in MISA's files, which have a table of words beside them."""
    example = (words, np.ones((2, 3)), np.ones((2, 4)), ["so", "good"]), np.array([[1.0]]), None
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps({"train": [example]}))
    source = MagBert(tmp_path / "mosi.pkl", "train")
    assert source[0]["text"].tolist() == [7, 9]
    assert source[0]["text"].dtype == np.int32
    assert source.ids == ["train[0]"]
    assert source.vocabularies == {}


def test_text_features_in_place_of_words(tmp_path):
    example = (np.full((2, 5), 0.5), np.ones((2, 3)), None), 2, "a"
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps({"train": [example]}))
    source = MagBert(tmp_path / "mosi.pkl", "train")
    assert source[0]["text"].tolist() == [[0.5] * 5] * 2
    assert source.lengths.values.tolist() == [[2, 0, 2]]


@pytest.mark.parametrize("words", [[-1], [2**31], np.array([0.5]), [1, "so"]])
def test_numbers_of_words_that_are_none(words, tmp_path):
    example = (words, np.ones((1, 3)), np.ones((1, 4))), 1.0, "a"
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps({"train": [example]}))
    with pytest.raises(SourceError, match="sample 0 has words that are neither text nor numbers from 0 to"):
        MagBert(tmp_path / "mosi.pkl", "train")


def test_rare_words_and_columns(tmp_path):
    frames = np.ones((2, 3))
    train = [((["so", "so"], frames, frames), np.arange(7.0), 0), ((["so", "good"], frames, frames), np.ones(7), 1)]
    (tmp_path / "mosei.pkl").write_bytes(pickle.dumps({"train": train, "blind": [train[0][:1] + (None, 5)]}))
    source = MagBert(tmp_path / "mosei.pkl", "train", min_count=2, label_column=[0, slice(2, 4)])
    assert [sample["text"].tolist() for sample in (source[0], source[1])] == [[2, 2], [2, 1]]
    assert source.targets.tolist() == [[0, 2, 3], [1, 1, 1]]
    assert MagBert(tmp_path / "mosei.pkl", "blind", label_column=None).targets is None
    with pytest.raises(SourceError, match="split 'blind': sample 0 has the label of NoneType"):
        MagBert(tmp_path / "mosei.pkl", "blind")


def test_one_array_in_all_examples(tmp_path):
    frames = np.zeros((1000, 40))
    examples = [((["so"], frames, frames), 1.0, index) for index in range(2000)]
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps({"train": examples}))
    with pytest.raises(SourceError, match=r"mosi\.pkl, split 'train': would take 640,000,000 bytes"):
        MagBert(tmp_path / "mosi.pkl", "train")


def test_examples_are_data_too(tmp_path):
    written = write_mag_bert(tmp_path)
    data = pickle.loads(written.path.read_bytes())
    data["test"].append(print)
    written.path.write_bytes(pickle.dumps(data))
    with pytest.raises(SourceError, match=r"the pickle asks for builtins\.print, .* nothing of it was run"):
        MagBert(written.path, "train")


def test_mag_bert_features_that_are_whole_numbers_in_the_file(tmp_path):
    example = ((["so"], np.ones((1, 2), np.int32), np.ones((1, 3), np.int16)), np.array([[1.0]]), "a")
    (tmp_path / "small.pkl").write_bytes(pickle.dumps({"train": [example]}))
    sample = MagBert(tmp_path / "small.pkl", "train")[0]
    assert {name: str(array.dtype) for name, array in sample.items()} == {
        "text": "int32",
        "audio": "float32",
        "visual": "float32",
        "targets": "float32",
    }
