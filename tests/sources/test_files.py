"""``Files`` beyond what the suite of all sources holds: tables, splits, targets, and what is wrong with them."""

import json
import logging
import pickle

import numpy as np
import pytest

from multimodal_pad.errors import LengthError, PaddingError, SourceError
from multimodal_pad.sources import Files
from tests.helpers.feature_folders import MER_EMOTIONS, write_mertools

AUDIO = {"audio": "audio"}


@pytest.fixture
def root(tmp_path):
    """A folder with audio of the samples a to d, one frame more each."""
    (tmp_path / "audio").mkdir()
    for length, name in enumerate("abcd", start=1):
        np.save(tmp_path / "audio" / f"{name}.npy", np.full((length, 2), length, np.float32))
    return tmp_path


def table(root, text, name="t.csv"):
    (root / name).write_text(text)
    return {"table": name, "features": AUDIO}


@pytest.fixture(scope="module")
def mertools(tmp_path_factory):
    return write_mertools(tmp_path_factory.mktemp("mertools"))


def as_mertools_reads(folder, name):
    """One feature of one sample, by the rule that MERTools' loader has."""
    path = folder / f"{name}.npy"
    arrays = (
        [np.load(path).squeeze()]
        if path.exists()
        else [np.load(file) for file in sorted(folder.joinpath(name).iterdir())]
    )
    found = np.array(arrays).squeeze()
    return found[None] if found.ndim == 1 else found


def test_features_are_those_that_mertools_reads(mertools):
    options = {"table": "label-6way.npz", "features": {"audio": "features/hubert-FRA"}, "targets": "emo"}
    for split, samples in mertools.splits.items():
        source = Files(mertools.path, split, **options, classes=MER_EMOTIONS, nonfinite="zero")
        for index, sample in enumerate(samples):
            wanted = np.nan_to_num(as_mertools_reads(mertools.path / "features" / "hubert-FRA", sample["id"]))
            np.testing.assert_array_equal(source[index]["audio"], wanted.astype(np.float32))


def test_splits_of_mertools(mertools):
    assert Files.split_names(mertools.path, table="label-6way.npz") == ["train", "val", "test1"]


def test_classes_are_numbered_alike_in_every_split(mertools):
    options = {"table": "label-6way.npz", "features": {"audio": "features/hubert-FRA"}, "targets": "emo"}
    sources = [Files(mertools.path, split, **options) for split in mertools.splits]
    known = {MER_EMOTIONS[sample["targets"]] for samples in mertools.splits.values() for sample in samples}
    for source, samples in zip(sources, mertools.splits.values(), strict=True):
        assert source.classes == source.rules["classes"] == sorted(known)
        wanted = [MER_EMOTIONS[sample["targets"]] for sample in samples]
        assert [source.classes[target] for target in source.targets.tolist()] == wanted


def test_no_label_of_mertools_is_no_target(mertools):
    options = {"table": "label-6way.npz", "features": {"audio": "features/hubert-FRA"}}
    assert Files(mertools.path, "val", **options, targets="val").targets.dtype == np.float32
    with pytest.raises(SourceError, match=r"label-6way\.npz, 'test1_corpus', 'test1_sample_\d+': has no 'val'"):
        Files(mertools.path, "test1", **options, targets="val")
    assert Files(mertools.path, "test1", **options).targets is None


def test_a_corpus_of_bare_labels(root):
    np.savez(root / "l.npz", train=np.array({"a": 1, "b": 0}), test=np.array({b"c": np.float64(2.0)}))
    source = Files(root, "train", table="l.npz", features=AUDIO, targets="label")
    assert (source.ids, source.targets.tolist(), source.targets.dtype) == (["a", "b"], [1, 0], np.float32)
    assert Files(root, "test", table="l.npz", features=AUDIO).ids == ["c"]


def test_an_archive_of_columns(root):
    columns = {"id": np.array(["a", "c"]), "y": np.array([[0, 1], [1, 1]]), "split": np.array(["x", "x"], object)}
    np.savez(root / "l.npz", **columns)
    source = Files(root, "x", table="l.npz", features=AUDIO, targets="y")
    assert (source.ids, source.targets.tolist(), source.targets.dtype) == (["a", "c"], [[0, 1], [1, 1]], np.int32)


def test_nothing_in_a_pickle_is_run(root):
    class Evil:
        def __reduce__(self):
            return (open, (str(root / "made"), "w"))

    np.savez(root / "l.npz", train_corpus=np.array({"a": Evil()}, object))
    with pytest.raises(SourceError, match=r"l\.npz.*asks for _?io\.open"):
        Files(root, "train", table="l.npz", features=AUDIO)
    assert not (root / "made").exists()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.jsonl"])
def test_tables_of_every_kind(root, name):
    if name == "t.jsonl":
        text = '{"id": "b", "y": 0.5, "split": "train"}\n{"id": "a", "y": 1, "split": "train"}\n'
    else:
        text = "id,y,split\nb,0.5,train\na,1,train\n".replace(",", "\t" if name == "t.tsv" else ",")
    source = Files(root, "train", **table(root, text, name), targets="y")
    assert (source.ids, source.targets.tolist(), source.lengths.values.tolist()) == (["b", "a"], [0.5, 1], [[2], [1]])


def test_a_table_for_each_split(root):
    table(root, "id,y\na,1\nb,2\n", "train_labels.csv")
    options = table(root, "id,y\nc,1.5\n", "test_labels.csv") | {"table": "{split}_labels.csv"}
    assert Files.split_names(root, table="{split}_labels.csv") == ["test", "train"]
    (root / "audio").rename(root / "train")
    train = Files(root, "train", table=options["table"], features={"audio": "{split}"}, targets="y")
    assert (train.ids, train.targets.dtype) == (["a", "b"], np.float32)  # as in the other split


def test_ids_by_a_form(root):
    for name in ("dia0_utt1", "dia12_utt3"):
        np.save(root / "audio" / f"{name}.npy", np.ones((2, 2)))
    options = table(root, "Dialogue_ID,Utterance_ID\n0,1\n12,3\n")
    assert Files(root, "all", **options, ids="dia{Dialogue_ID}_utt{Utterance_ID}").ids == ["dia0_utt1", "dia12_utt3"]


def test_folds(root, caplog):
    options = table(root, "id,y\na,0\nb,1\nc,0\nd,1\n")
    folds = {"train": ["a", "b*"], "test": ["c"]}
    (root / "folds.json").write_text(json.dumps(folds))
    with caplog.at_level(logging.WARNING):
        source = Files(root, "train", **options, folds=root / "folds.json")
    assert (source.ids, source.rules["in no fold"]) == (["a", "b"], 1)
    assert "1 of 4 samples are in no fold" in caplog.text
    assert Files.split_names(root, table="t.csv", folds=folds) == ["train", "test"]
    for wrong, message in (
        ({"train": ["*"], "test": ["c"]}, r"t\.csv: 'c' is in the folds 'train' and 'test'"),
        ({"train": ["x*"]}, r"the fold 'train' names 'x\*', and no sample is called so"),
        ({"train": "a"}, "the folds: must hold the ids of each split"),
    ):
        with pytest.raises(SourceError, match=message):
            Files(root, "train", **options, folds=wrong)
    (root / "folds.json").write_text("{")
    with pytest.raises(SourceError, match=r"folds\.json: not JSON"):
        Files(root, "train", **options, folds=root / "folds.json")
    with pytest.raises(PaddingError, match="got split_field and folds; give one of them"):
        Files(root, "train", **options, folds=folds, split_field="y")


def test_paths_of_the_table(root):
    lines = [{"id": "x", "audio": str(root / "audio" / "b.npy")}, {"id": "y", "audio": "audio/c.npy"}, {"id": "z"}]
    lines[2]["audio"] = None
    options = {"table": "m.jsonl", "paths": {"audio": "audio"}}
    (root / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Files(root, "all", **options, absent="missing")
    assert source.lengths.values.tolist() == [[2], [3], [0]]
    with pytest.raises(SourceError, match=r"m\.jsonl, 'audio': 1 of 3 samples have no 'audio': z"):
        Files(root, "all", **options)
    (root / "m.jsonl").write_text('{"id": "x", "audio": 3}\n')
    with pytest.raises(SourceError, match=r"m\.jsonl, line 1, 'audio': got 3; it must be the path of a file"):
        Files(root, "all", **options)


@pytest.mark.parametrize(
    ("column", "targets", "dtype", "classes"),
    [
        (["1", "0", "2"], [1, 0, 2], np.int32, None),
        (["1", "0.5", "-2"], [1, 0.5, -2], np.float32, None),
        (["sad", "angry", "sad"], [1, 0, 1], np.int32, ["angry", "sad"]),
        ([" sad", " angry", "sad "], [1, 0, 1], np.int32, ["angry", "sad"]),
    ],
)
def test_what_a_column_of_text_holds(root, column, targets, dtype, classes):
    text = "id,y\n" + "".join(f"{name},{value}\n" for name, value in zip("abc", column, strict=True))
    source = Files(root, "all", **table(root, text), targets="y")
    assert (source.targets.tolist(), source.targets.dtype, source.classes) == (targets, dtype, classes)


@pytest.mark.parametrize(
    "arrays",
    [
        {"id": np.array([b"a", b"b"]), "y": np.array([b"sad", b"angry"])},
        {"all_corpus": np.array({b"a": {b"y": b"sad"}, b"b": {b"y": b"angry"}}, object)},
    ],
)
def test_text_may_be_bytes_as_python_2_wrote_it(root, arrays):
    np.savez(root / "t.npz", **arrays)
    source = Files(root, "all", table="t.npz", features=AUDIO, targets="y")
    assert (source.ids, source.targets.tolist(), source.classes) == (["a", "b"], [1, 0], ["angry", "sad"])


def test_classes_in_an_order(root):
    options = table(root, "id,y\na,3\nb,1\n")
    assert Files(root, "all", **options, targets="y", classes=["1", "2", "3"]).targets.tolist() == [2, 0]
    with pytest.raises(SourceError, match=r"t\.csv, line 2, 'y': got '3', which is none of the classes \['1', '2'\]"):
        Files(root, "all", **options, targets="y", classes=["1", "2"])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("id,y\na,0.5\nb,n/a\n", {}, r"t\.csv, line 3, 'y': got 'n/a', where other rows have numbers"),
        ("id,y\na,0.5\nb,\n", {}, r"t\.csv, line 3: has no 'y'; choose targets that every sample has"),
        ("id,y\na,0.5\nb,nan\n", {}, r"t\.csv, 'y': sample 1 \(b\) is labelled nan"),
        ("id,y\na,1\nb,3000000000\n", {}, r"sample 1 \(b\) has the target 3000000000; it must be a whole number"),
        ("id,y,z\na,1,x\nb,2,y\n", {"targets": ["y", "z"]}, r"line 2: 'z' holds names of classes; targets of several"),
        ("id,y\na,1\na,2\n", {}, r"t\.csv, split 'all': samples 0 and 1 are both called 'a'"),
        ("id,y\na,1\n,2\n", {}, r"t\.csv, line 3, 'id': got ''; it must be text or a whole number"),
        ("id,y\na,1\n../audio/b,2\n", {}, r"audio: got the id '../audio/b', which is no name of a file in it"),
        ("id,y\na,1\n", {"targets": "x"}, r"t\.csv, line 2: has no field 'x', only \['id', 'y'\]"),
        ("id,y\na,1\n", {"ids": "name"}, r"t\.csv, line 2: has no field 'name'"),
        ("id,y\na,1\n", {"ids": "{name}_1"}, r"t\.csv, line 2: has no field 'name'"),
        ("id,name,y\na,b,1\n", {}, r"t\.csv, line 2: has both 'id' and 'name'; say which field holds the ids"),
        ("key,y\na,1\n", {}, r"t\.csv, line 2: has neither 'id' nor 'name'; say which .*\['key', 'y'\]"),
        ("id,y\na,1\n", {"split_field": "part"}, r"t\.csv, line 2: has no field 'part'"),
        ("id,y\n", {}, r"t\.csv: has no rows"),
        ("id,y\na,1\nb\n", {}, r"t\.csv, line 3"),
        ("id,y\na,1\nx,1\n", {}, r"audio: 1 of 2 samples have no 'audio': x; add the files"),
        ("id,y\na,1\n", {"features": {"audio": "video"}}, r"video: no such folder; features of 'audio' lie there"),
        ("id,y\na,1\n", {"table": "u.csv"}, r"u\.csv: no such file"),
        ("id,y\na,1\n", {"table": "{split}/u.csv"}, r"u\.csv: no such files"),
        ("id,y\na,1\n", {"table": "audio/a.npy"}, r"kind '\.npy'; a table of samples is one of \.csv"),
    ],
)
def test_tables_that_are_not_as_they_should_be(root, text, options, message):
    with pytest.raises(SourceError, match=message):
        Files(root, "all", **{"targets": "y", **table(root, text), **options})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": np.array({"a": 1}), "test": np.array([1])}, r"l\.npz, 'test': is no dict \{id: \{label: value\}\}"),
        (
            {"id": np.array(["a"]), "y": np.array([1, 2])},
            r"l\.npz: has columns of different lengths: \{'id': 1, 'y': 2\}",
        ),
        ({"train": np.array({3.5: 1}, object)}, r"l\.npz, 'train', 3\.5, 'name': got 3\.5; it must be text"),
    ],
)
def test_archives_that_are_no_tables(root, content, message):
    np.savez(root / "l.npz", **content)
    with pytest.raises(SourceError, match=message):
        Files(root, "train", table="l.npz", features=AUDIO)


def test_targets_that_are_lists(root):
    (root / "m.jsonl").write_text('{"id": "a", "y": [0, 1]}\n{"id": "b", "y": [1, 0.5]}\n{"id": "c", "y": [1]}\n')
    folds = {"train": ["a", "b"], "odd": ["a", "c"]}
    source = Files(root, "train", table="m.jsonl", features=AUDIO, targets="y", folds={"train": ["a", "b"]})
    assert source.targets.tolist() == [[0, 1], [1, 0.5]]
    del folds["train"]
    with pytest.raises(
        SourceError, match=r"m\.jsonl, line 3, 'y': got \[1\]; a target is a number, or a list of as many"
    ):
        Files(root, "odd", table="m.jsonl", features=AUDIO, targets="y", folds=folds)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"features": {}}, LengthError, "give at least one name"),
        ({"paths": {"audio": "x"}}, LengthError, "each once"),
        ({"features": {"targets": "audio"}}, LengthError, "none of them 'targets'"),
        ({"targets": []}, PaddingError, r"got targets=\[\]; name at least one field"),
        ({"targets": "id", "classes": "ab"}, PaddingError, r"got classes='ab' and targets='id'; give names"),
        (
            {"targets": "id", "classes": ["a", "a"]},
            PaddingError,
            "give names of the classes of the targets, each once",
        ),
        ({"classes": ["a"]}, PaddingError, r"got classes=\['a'\] and targets=None"),
        ({"absent": "zero"}, PaddingError, "got absent='zero'; choose one of"),
        ({"vectors": "token"}, PaddingError, "got vectors='token'; choose one of"),
    ],
)
def test_choices_that_there_are_not(root, options, error, message):
    with pytest.raises(error, match=message):
        Files(root, "all", **{**table(root, "id\na\n"), **options})


def test_a_split_does_not_lead_out_of_the_folder(root):
    options = table(root, "id,split\na,../audio\n") | {"features": {"audio": "x/{split}"}}
    with pytest.raises(SourceError, match=r"got the split '\.\./audio', which is no name of a folder"):
        Files(root, "../audio", **options)


def test_names_that_are_too_long_name_nothing(root):
    (root / "m.jsonl").write_text(json.dumps({"id": "a" * 5000, "audio": "b" * 5000}) + "\n")
    for where in ({"features": AUDIO}, {"paths": AUDIO}):
        with pytest.raises(SourceError, match="holds none of aaa"):
            Files(root, "all", table="m.jsonl", **where)
    (root / "m.jsonl").write_text(json.dumps({"id": "a" * 5000 + "/b"}) + "\n")
    with pytest.raises(SourceError, match="holds none of aaa"):
        Files(root, "all", table="m.jsonl", features=AUDIO)


def test_opening_is_told_of_by_modality_and_split(root):
    told = []
    Files(root, "all", **table(root, "id\na\nb\n"), progress=lambda *what: told.append(what))
    assert told == [("looking through audio, all", 2, 2)]


def test_it_is_found_from_another_folder(root, monkeypatch):
    table(root, "id\na\n")
    monkeypatch.chdir(root)
    source = Files(".", "all", table="t.csv", features=AUDIO)
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(source))[0]["audio"].shape == (1, 2)
