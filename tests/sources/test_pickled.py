"""What MulT's and MMSA's pickles must be, and what their lengths are."""

import pickle

import numpy as np
import pytest

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.sources import Mmsa, Mult
from tests.helpers.corpora import write_mmsa, write_mult


def change(path, edit):
    """Rewrite a pickle with its train split edited in place."""
    with path.open("rb") as file:
        data = pickle.load(file)
    result = edit(data["train"])
    if result is not None:
        data["train"] = result
    path.write_bytes(pickle.dumps(data, 4))
    return path


def without(key):
    return lambda split: {name: value for name, value in split.items() if name != key}


def with_value(key, value):
    return lambda split: {**split, key: value(split[key]) if callable(value) else value}


def nan_at(index):
    def edit(values):
        values = np.array(values, dtype=float)
        values[index] = np.nan
        return values

    return edit


def repeated(ids):
    ids = np.array(ids)
    ids[4] = ids[1]
    return ids


BOTH = [
    (without("audio"), r"has no key 'audio', only \["),
    (without("labels"), "has no key '.*labels'"),
    (with_value("audio", lambda x: x[:-1]), "key '.*' has 7 samples and '.*' has 6; give all as many"),
    (
        with_value("audio", lambda x: x[:, :, 0]),
        r"key 'audio': has the shape \(7, 375\); it must be \(samples, positions",
    ),
    (with_value("audio", lambda x: x.astype(str)), "key 'audio': is an array of <U32"),
    (with_value("audio", {"a": 1}), "key 'audio': is a dict; it must be an array of numbers"),
    (with_value("text", lambda x: x[:0]), "has 0; give all as many|has 0 samples and"),
    (with_value("id", lambda x: x[:-1]), "key 'id': has 6 ids for 7 samples"),
    (with_value("id", 5), "key 'id': is a int; it must be a list or an array of ids"),
    (with_value("id", "abcdefg"), "key 'id': is a str; it must be a list or an array of ids"),
    (with_value("id", np.array("a")), "key 'id': is a ndarray; it must be a list or an array of ids"),
    (with_value("id", [None] * 7), "key 'id': sample 0 has the id a NoneType"),
    (with_value("id", [[["deep"]]] * 7), "key 'id': sample 0 has the id a list"),
    (with_value("id", [10**5000] * 7), "key 'id': sample 0 has the id a int"),
    (with_value("audio", lambda x: x[:, :0]), r"key 'audio': has the shape \(7, 0, 5\); it must be"),
    (with_value("audio", lambda x: x[:, :, :0]), r"key 'audio': has the shape \(7, 375, 0\); it must be"),
    (lambda split: {**split, b"text": 1}, "has the key 'text' twice, as text and as bytes"),
    (with_value("id", [b"a", b"\xff", *map(str, range(5))]), r"key 'id': sample 1 has the id b'\\xff'"),
    (with_value("id", repeated), "key 'id': samples 1 and 4 are both called '"),
    (lambda split: [split], "'train' holds a list; the file must be a dict of splits"),
]


@pytest.mark.parametrize(("edit", "message"), BOTH)
@pytest.mark.parametrize(("write", "source"), [(write_mult, Mult), (write_mmsa, Mmsa)])
def test_what_both_kinds_must_be(write, source, edit, message, tmp_path):
    labels = "labels" if source is Mult else "regression_labels"
    path = write(tmp_path).path
    if edit is BOTH[1][0]:
        edit = without(labels)
    change(path, edit)
    with pytest.raises(SourceError, match=message) as raised:
        source(path, "train")
    assert str(path) in str(raised.value)
    assert "'train'" in str(raised.value)


@pytest.mark.parametrize("source", [Mult, Mmsa])
def test_files_that_hold_something_else(source, tmp_path):
    path = tmp_path / "file.pkl"
    for data, message in [
        ([1, 2], r"file\.pkl: holds a list; it must be a dict of splits, such as train, valid, test"),
        ({}, r"file\.pkl: holds a dict; it must be a dict of splits"),
        ({"train": {}, "test": 3}, "'test' holds a int"),
        ({"valid": {}}, r"has no split 'train', only \['valid'\]"),
        ({"train": {}}, "split 'train': has no key 'text', only"),
    ]:
        path.write_bytes(pickle.dumps(data))
        with pytest.raises(SourceError, match=message):
            source(path, "train")


@pytest.mark.parametrize("source", [Mult, Mmsa])
@pytest.mark.parametrize("modalities", [["text", "vision"], ["text", "text"], [], "text"])
def test_modalities_that_there_are_not(source, modalities, tmp_path):
    with pytest.raises(
        PaddingError, match=r"got the modalities .*; choose from \['text', 'audio', 'visual'\], each once"
    ):
        source(tmp_path / "never read", "train", modalities=modalities)


def test_some_modalities_in_another_order(tmp_path):
    written = write_mult(tmp_path)
    source = Mult(written.path, "valid", modalities=["visual", "text"])
    assert list(source[0]) == ["visual", "text", "targets"]
    np.testing.assert_array_equal(source[1]["visual"], written.splits["valid"][1]["visual"])
    assert source.padded_to == {"visual": 500, "text": 50}
    assert Mult.split_names(written.path) == ["train", "valid", "test"]


def test_only_the_first_real_row_counts_and_nan_is_real(tmp_path):
    text = np.zeros((4, 6, 2))
    text[0, 2, 1] = 5  # and zeros up to the end
    text[1, 5, 0] = -0.0  # is zero
    text[2, 4, 0] = np.nan
    text[3] = 1
    split = {"text": text, "audio": text, "vision": text, "labels": np.zeros((4, 1, 1)), "id": list("abcd")}
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"train": split}))
    source = Mult(tmp_path / "file.pkl", "train", nonfinite="zero")
    assert source.lengths.values[:, 0].tolist() == [4, 0, 2, 6]
    assert source[2]["text"].tolist() == [[0, 0], [0, 0]]
    assert source.nonfinite == {"text": 1, "audio": 1, "visual": 1}


def test_what_float32_cannot_hold_is_not_finite(tmp_path):
    written = write_mult(tmp_path, "mosei_senti")
    change(written.path, lambda split: split["audio"].__setitem__((0, -1, 3), 1e39))
    with pytest.raises(
        SourceError, match=r"key 'audio': sample 0 \(.*\) holds inf at position 499, feature 3, and 1 such"
    ):
        Mult(written.path, "train")[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            with_value("labels", nan_at(3)),
            r"key 'labels': sample 3 \(train-video1\[3.5,7.25\]\) is labelled nan; mend",
        ),
        (
            with_value("labels", lambda x: x.repeat(2, 1).repeat(3, 2)),
            r"key 'labels': has the shape \(7, 2, 3\); labels are \(samples,\) or \(samples, columns\)",
        ),
        (
            with_value("labels", lambda x: x * np.nan),
            "key 'labels': all labels are NaN; a split without labels is read",
        ),
        (
            without("labels"),
            r"has no key 'labels', only \[.*\]; a split without .* with label_column=None \(--unlabeled",
        ),
        (
            with_value("labels", lambda x: x.repeat(4, 1).repeat(2, 2)),
            r"sample 0 .* each of the 4 emotions must be one-hot",
        ),
    ],
)
def test_mult_labels(edit, message, tmp_path):
    path = change(write_mult(tmp_path).path, edit)
    with pytest.raises(SourceError, match=message):
        Mult(path, "train")


@pytest.mark.parametrize("shape", [(7, 1, 1), (7, 1), (7,)])
def test_mult_labels_of_any_rank(shape, tmp_path):
    written = write_mult(tmp_path)
    change(written.path, with_value("labels", lambda x: x.reshape(shape).astype(np.float64)))
    assert Mult(written.path, "train").targets.tolist() == [s["targets"] for s in written.splits["train"]]


def test_mult_progress(tmp_path):
    told = []
    Mult(write_mult(tmp_path).path, "train", progress=lambda *what: told.append(what))
    assert told == [(f"looking through train, {key}", 7, 7) for key in ("text", "audio", "vision")]


def test_mmsa_lengths_by_the_last_row(tmp_path):
    written = write_mmsa(tmp_path)
    declared = Mmsa(written.path, "train").lengths.values
    found = Mmsa(written.path, "train", lengths="last_nonzero").lengths.values
    assert found[0, 2] == declared[0, 2] + 1  # a frame after the declared length
    np.testing.assert_array_equal(found[1:], declared[1:])
    np.testing.assert_array_equal(found[:, :2], declared[:, :2])


def test_mmsa_aligned_files_declare_nothing(tmp_path):
    written = write_mmsa(tmp_path, aligned=True)
    with pytest.raises(SourceError, match="has no key 'audio_lengths', as aligned files; take lengths='last_nonzero'"):
        Mmsa(written.path, "train")
    source = Mmsa(written.path, "train", lengths="last_nonzero", nonfinite="zero")
    for index, sample in enumerate(written.splits["train"]):
        np.testing.assert_array_equal(source[index]["audio"], sample["audio"])


@pytest.mark.parametrize("key", ["regression_labels_T", "regression_labels_A", "classification_labels"])
def test_mmsa_other_labels(key, tmp_path):
    path = write_mmsa(tmp_path, "sims").path
    with path.open("rb") as file:
        labels = pickle.load(file)["train"][key]
    source = Mmsa(path, "train", labels=key)
    np.testing.assert_array_equal(source.targets, labels.astype(source.targets.dtype))
    assert source.targets.dtype == (np.int32 if key.startswith("class") else np.float32)


def mask_with_a_hole(tokens):
    tokens[2, 1, :4] = [1, 0, 1, 0]
    return tokens


@pytest.mark.parametrize(
    ("edit", "options", "message"),
    [
        (with_value("audio_lengths", [3.5] + 6 * [1]), {}, r"key 'audio_lengths': sample 0 .* has the length 3.5"),
        (with_value("audio_lengths", 6 * [1] + [-1]), {}, r"sample 6 .* has the length -1"),
        (with_value("vision_lengths", 6 * [1] + [501]), {}, r"has the length 501, and 'vision' is padded to 500"),
        (with_value("vision_lengths", 6 * [1]), {}, r"key 'vision_lengths': has the shape \(6,\) for 7 samples"),
        (with_value("vision_lengths", 7 * ["1"]), {}, "key 'vision_lengths': is a list"),
        (without("text_bert"), {}, "has no key 'text_bert'"),
        (with_value("text_bert", lambda x: x[:, :2]), {}, r"key 'text_bert': has the shape \(7, 2, 50\)"),
        (with_value("text_bert", mask_with_a_hole), {}, r"key 'text_bert': sample 2 .* a mask is ones, and then zeros"),
        (with_value("regression_labels", nan_at(2)), {}, "key 'regression_labels': sample 2 .* is labelled nan"),
        (
            with_value("classification_labels", [0, 1, 2, -1, 0, 0, 0]),
            {"labels": "classification_labels"},
            "sample 3 .* has the target -1.*; it must be a whole number, at least 0",
        ),
        (
            with_value("regression_labels", lambda x: x + 1e300),
            {},
            "key 'regression_labels': sample 0 .* is labelled inf",
        ),
        (with_value("regression_labels", np.float32(3)), {}, "key 'regression_labels': is a float32"),
        (
            with_value("audio", lambda x: x[:, ::-1]),
            {},
            r"key 'audio': \d of 7 samples begin with a row of zeros and end",
        ),
        (with_value("vision_lengths", 6 * [1] + [501]), {}, r"\(lengths='last_nonzero' does without\)"),
        (
            with_value("regression_labels", np.ones((7, 2, 2))),
            {},
            r"key 'regression_labels': has the shape \(7, 2, 2\); labels are",
        ),
        (
            with_value("classification_labels", [0, 1, 2, 0.5, 0, 0, 0]),
            {"labels": "classification_labels"},
            "sample 3 .* has the target 0.5; it must be a whole number, at least 0",
        ),
    ],
)
def test_mmsa_lengths_masks_and_labels_that_are_none(edit, options, message, tmp_path):
    path = change(write_mmsa(tmp_path).path, edit)
    with pytest.raises(SourceError, match=message):
        Mmsa(path, "train", **options)


def test_mmsa_says_one_where_there_is_nothing(tmp_path):
    """Its script writes 1 for a modality that is missing: one row that is all zero."""
    written = write_mmsa(tmp_path)
    source = Mmsa(written.path, "train")
    with written.path.open("rb") as file:
        assert pickle.load(file)["train"]["vision_lengths"][-1] == 1
    assert source.lengths.values[-1, 2] == 0
    assert source.rules["declared 1, all zero, so missing"] == {"audio": 0, "visual": 1}


def test_mmsa_without_token_ids(tmp_path):
    written = write_mmsa(tmp_path)
    change(written.path, without("text_bert"))
    change(written.path, with_value("text", lambda x: np.where(x == 0.25, 0, x)))
    source = Mmsa(written.path, "train", lengths="last_nonzero")
    assert source.lengths.values[:, 0].tolist() == [len(sample["text"]) for sample in written.splits["train"]]


def test_mmsa_padded_on_the_left(tmp_path):
    """Whatever lengths are asked for, and also where the file declares some."""
    path = change(write_mmsa(tmp_path).path, with_value("vision", lambda x: x[:, ::-1]))
    for lengths in ("declared", "last_nonzero"):
        with pytest.raises(SourceError, match=r"key 'vision': . of 7 samples begin .* as if padded on the left"):
            Mmsa(path, "train", lengths=lengths, modalities=["visual"])


def test_labels_and_ids_in_arrays_of_objects(tmp_path):
    written = write_mult(tmp_path)
    change(written.path, with_value("labels", lambda x: np.array([float(v) for v in x.ravel()], dtype=object)))
    change(written.path, with_value("id", lambda x: x.astype(object)))
    source = Mult(written.path, "train")
    assert source.targets.tolist() == [sample["targets"] for sample in written.splits["train"]]
    assert source.ids == [sample["id"] for sample in written.splits["train"]]
    assert not source.targets.flags.writeable


def test_it_is_found_again_from_another_folder(tmp_path, monkeypatch):
    write_mult(tmp_path)
    monkeypatch.chdir(tmp_path)
    dumped = pickle.dumps(Mult("mosi_data_noalign.pkl", "train"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(dumped)) == 7


def test_mmsa_lengths_as_arrays_of_one(tmp_path):
    """Some files have a list of arrays of one number."""
    written = write_mmsa(tmp_path)
    expected = Mmsa(written.path, "train").lengths.values
    change(written.path, with_value("audio_lengths", lambda x: [np.array([n]) for n in x]))
    np.testing.assert_array_equal(Mmsa(written.path, "train").lengths.values, expected)


@pytest.mark.parametrize("shape", [(7, 3), (7, 1, 3), (7, 3, 1)])
@pytest.mark.parametrize(
    ("chosen", "index"), [(slice(None), [0, 1, 2]), (1, 1), ([2, 0], [2, 0]), (slice(1, 3), [1, 2])]
)
def test_columns_of_labels_of_mult(shape, chosen, index, tmp_path):
    values = np.arange(21, dtype=np.float32).reshape(7, 3)
    path = change(write_mult(tmp_path).path, with_value("labels", values.reshape(shape)))
    source = Mult(path, "train", label_column=chosen)
    np.testing.assert_array_equal(source.targets, values[:, index])
    assert source[3]["targets"].shape == np.shape(index)


def test_columns_of_iemocap_are_emotions(tmp_path):
    path = write_mult(tmp_path, "iemocap").path
    every = Mult(path, "train").targets
    np.testing.assert_array_equal(Mult(path, "train", label_column="sad").targets, every[:, 2])
    np.testing.assert_array_equal(Mult(path, "train", label_column=["angry", "happy"]).targets, every[:, [3, 1]])
    with pytest.raises(SourceError, match=r"no column of labels 'joy', only \['neutral', 'happy', 'sad', 'angry'\]"):
        Mult(path, "train", label_column="joy")


@pytest.mark.parametrize("corpus", [Mult, Mmsa])
@pytest.mark.parametrize("chosen", [True, 1.0, [0, None]])
def test_what_is_no_column_of_labels(corpus, chosen, tmp_path):
    path = (write_mult if corpus is Mult else write_mmsa)(tmp_path).path
    with pytest.raises(PaddingError, match=r"got label_column=.*; give a number from 0, a name"):
        corpus(path, "train", label_column=chosen)


def test_labels_of_several_keys_of_mmsa_are_columns(tmp_path):
    path = write_mmsa(tmp_path, "sims").path
    keys = ["regression_labels", "regression_labels_T", "regression_labels_A", "regression_labels_V"]
    each = [Mmsa(path, "train", labels=key).targets for key in keys]
    every = Mmsa(path, "train", labels=keys)
    np.testing.assert_array_equal(every.targets, np.stack(each, axis=1))
    assert every.rules["labels"] == keys
    chosen = Mmsa(path, "train", labels=keys, label_column="regression_labels_A")
    np.testing.assert_array_equal(chosen.targets, each[2])


def test_columns_of_labels_of_mmsa(tmp_path):
    values = np.arange(21.0).reshape(7, 3)
    path = change(write_mmsa(tmp_path).path, with_value("classification_labels", values))
    source = Mmsa(path, "train", labels="classification_labels", label_column=slice(1, 3), nonfinite="zero")
    np.testing.assert_array_equal(source.targets, values[:, 1:])
    assert source.targets.dtype == np.int32


@pytest.mark.parametrize(("corpus", "key"), [(Mult, "labels"), (Mmsa, "regression_labels")])
def test_blind_test_sets(corpus, key, tmp_path):
    written = (write_mult if corpus is Mult else write_mmsa)(tmp_path)
    path = change(written.path, without(key))
    source = corpus(path, "train", label_column=None, nonfinite="zero")
    assert source.targets is None
    assert "targets" not in source[0]
    assert list(source.ids) == [sample["id"] for sample in written.splits["train"]]
    assert source.rules["label_column"] is None
