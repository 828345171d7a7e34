"""Datasets of Hugging Face as sources and as streams: in memory, no network."""

import os
import pickle

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, LengthTable, PaddingError, StreamBatcher, batches, plan_shapes, unpad
from multimodal_pad.errors import SampleError, SourceError
from multimodal_pad.sources import HuggingFace, HuggingFaceStream

datasets = pytest.importorskip("datasets")
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value  # noqa: E402

RNG = np.random.default_rng(0)
LENGTHS = np.concatenate([[[0, 4], [3, 0]], RNG.integers(0, 9, (28, 2))])
MISSING = (0, 5)
ROWS = [
    {
        "ids": None if i == 0 else list(range(t)),
        "frames": None if i == 5 else [[float(i), float(j), 0.5] for j in range(a)],
        "tags": [j % 3 for j in range(t)],
        "label": i % 4,
        "scores": [i / 2, 1.0],
        "text": f"row {i}",
    }
    for i, (t, a) in enumerate(LENGTHS.tolist())
]
LENGTHS[5, 1] = 0
MODALITIES = {"text": "ids", "audio": "frames"}
FEATURES = Features(
    {
        "ids": List(Value("int32")),
        "frames": Array2D((None, 3), "float32"),
        "tags": List(ClassLabel(names=["a", "b", "c"])),
        "label": ClassLabel(num_classes=4),
        "scores": List(Value("float64"), length=2),
        "text": Value("string"),
    }
)


def as_it_comes():
    return Dataset.from_list(ROWS)


def with_features():
    return Dataset.from_list(ROWS, features=FEATURES)


def in_chunks():
    return datasets.concatenate_datasets([Dataset.from_list(ROWS[:7]), Dataset.from_list(ROWS[7:])])


def a_slice():
    """Of a table, whose arrays begin in the middle of their buffers."""
    return Dataset.from_list([*ROWS[:7], *ROWS, *ROWS], features=FEATURES).select(range(7, 37))


def chosen():
    return Dataset.from_list([*reversed(ROWS), *ROWS]).select(range(29, -1, -1))


def without_text(rows):
    return {name: values for name, values in rows.items() if name != "text"}


FORMATS = {
    "lists": as_it_comes,
    "features": with_features,
    "chunks": in_chunks,
    "slice": a_slice,
    "chosen": chosen,
    "numpy": lambda: as_it_comes().with_format("numpy"),
    "columns": lambda: with_features().with_format("numpy", columns=["label"]),
    "transform": lambda: as_it_comes().with_transform(without_text),
}


@pytest.fixture(scope="module", params=FORMATS)
def dataset(request):
    return FORMATS[request.param]()


def check_sample(sample, i):
    assert sample["text"].dtype == np.int32
    assert sample["audio"].dtype == np.float32
    assert sample["text"].tolist() == (ROWS[i]["ids"] or [])
    assert sample["audio"].shape == (LENGTHS[i, 1], 3)
    np.testing.assert_array_equal(sample["audio"], np.reshape(ROWS[i]["frames"] or [], (-1, 3)))


def test_rows_are_samples_and_lengths_are_theirs(dataset):
    source = HuggingFace(dataset, MODALITIES, targets="label")
    assert source.lengths.modalities == ("text", "audio")
    assert source.lengths.values.tolist() == LENGTHS.tolist()
    assert len(source) == 30
    for i in range(30):
        sample = source[i]
        assert list(sample) == ["text", "audio", "targets"]
        check_sample(sample, i)
        assert (sample["targets"].dtype, sample["targets"].shape, int(sample["targets"])) == (np.int32, (), i % 4)
    for index in (-1, 30):
        with pytest.raises(IndexError, match=f"sample {index} of 30"):
            source[index]


def test_every_row_is_in_a_batch_once(dataset):
    source = pickle.loads(pickle.dumps(HuggingFace(dataset, MODALITIES, targets="scores")))
    batcher = BucketBatcher(source, plan_shapes(source, max_shapes=3, batch_size=4), with_ids=True)
    seen = []
    for batch in batcher:
        for i, sample in zip(batch.ids[batch.sample_mask].tolist(), unpad(batch), strict=True):
            check_sample(sample, i)
            assert sample["targets"].tolist() == [i / 2, 1.0]
            seen.append(i)
    assert sorted(seen) == list(range(30))


def test_lengths_take_no_row(monkeypatch):
    dataset = Dataset.from_dict({"ids": [[1, 2], [3], None], "label": [0, 1, 2]})
    monkeypatch.setattr(Dataset, "__getitem__", lambda *_: pytest.fail("a row was read"))
    assert HuggingFace(dataset, ["ids"], targets="label").lengths.values.ravel().tolist() == [2, 1, 0]


class Untold(Dataset):
    """A dataset of a version that does not tell its indices."""

    def __getattribute__(self, name):
        if name == "_indices" and not self.__dict__.get("flat"):
            raise AttributeError(name)
        return super().__getattribute__(name)

    def flatten_indices(self):
        self.flat = True
        return Dataset.from_list(list(self.with_format(None)))


def test_rows_of_datasets_whose_indices_are_not_told():
    dataset = chosen()
    dataset.__class__ = Untold
    source = HuggingFace(dataset, MODALITIES)
    assert source.lengths.values.tolist() == LENGTHS.tolist()
    check_sample(source[8], 8)


def test_columns_of_targets_in_a_list_are_one_array():
    rows = {"x": [[1], [2, 3]], "happy": [1, 0], "sad": [0, 2], "valence": [0.5, -1.0], "pair": [[1, 2], [3, 4]]}
    dataset = datasets.Dataset.from_dict(rows)
    for kind in (HuggingFace, HuggingFaceStream):
        found = list(kind(dataset, ["x"], targets=["sad", "happy"]))
        assert [sample["targets"].tolist() for sample in found] == [[0, 1], [2, 0]]
        assert found[0]["targets"].dtype.kind == "i"
        mixed = list(kind(dataset, ["x"], targets={"all": ["happy", "valence"]}))
        assert [sample["targets"]["all"].tolist() for sample in mixed] == [[1, 0.5], [0, -1]]
        assert mixed[0]["targets"]["all"].dtype == np.float32
        with pytest.raises(SampleError, match=r"the columns \['happy', 'pair'\] have the shapes"):
            list(kind(dataset, ["x"], targets=["happy", "pair"]))
        for odd in ([], [1], 1, True, [["happy"]]):
            with pytest.raises(
                PaddingError, match=r"for targets; give the name of a column, a list of names, or a dict"
            ):
                kind(dataset, ["x"], targets=odd)


def test_several_targets_and_targets_per_position():
    named = {"targets": {"emotion": "label", "score": {"both": "scores"}}, "position_targets": {"text": "tags"}}
    rows = [{**row, "ids": row["ids"] or []} for row in ROWS]
    for source in (
        HuggingFace(Dataset.from_list(rows), MODALITIES, **named),
        list(HuggingFaceStream(Dataset.from_list(rows).to_iterable_dataset(), MODALITIES, **named)),
    ):
        sample = source[8]
        assert int(sample["targets"]["emotion"]) == 0
        assert sample["targets"]["score"]["both"].tolist() == [4, 1]
        assert sample["position_targets"]["text"].tolist() == ROWS[8]["tags"]
        assert sample["position_targets"]["text"].dtype == np.int32
    several = {"position_targets": {"text": {"tag": "tags", "again": "ids"}}}
    found = HuggingFace(Dataset.from_list(rows), MODALITIES, **several)[8]["position_targets"]["text"]
    assert {name: array.tolist() for name, array in found.items()} == {"tag": ROWS[8]["tags"], "again": ROWS[8]["ids"]}


@pytest.mark.parametrize("make", [as_it_comes, with_features], ids=["lists", "features"])
def test_a_stream_gives_the_same_samples_and_begins_anew(make):
    stream = HuggingFaceStream(make().to_iterable_dataset(num_shards=2), MODALITIES, targets="label")
    for _ in range(2):
        found = list(stream)
        assert len(found) == 30
        for i, sample in enumerate(found):
            check_sample(sample, i)
            assert (sample["targets"].dtype, int(sample["targets"])) == (np.int32, i % 4)


def test_a_shuffled_stream_has_another_order_in_each_pass():
    dataset = as_it_comes().to_iterable_dataset().shuffle(seed=0, buffer_size=30)
    stream = HuggingFaceStream(dataset, MODALITIES, targets="scores")
    orders = [[float(sample["targets"][0]) for sample in stream] for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_stream_batcher_takes_it():
    stream = HuggingFaceStream(as_it_comes().to_iterable_dataset(), MODALITIES, targets="label")
    batcher = StreamBatcher.planned(stream, batch_size=4, max_shapes=3)
    for _ in range(2):
        found = [sample for batch in batcher for sample in unpad(batch)]
        assert sorted(len(sample["audio"]) for sample in found) == sorted(LENGTHS[:, 1].tolist())


def test_modalities_that_are_missing_everywhere_are_empty():
    features = Features({"a": List(List(Value("float32"))), "b": List(Value("int64"))})
    rows = Dataset.from_dict({"a": [None, [[1.0]]], "b": [None, None]}, features=features)
    for samples in (HuggingFace(rows, ["a", "b"]), list(HuggingFaceStream(rows.to_iterable_dataset(), ["a", "b"]))):
        assert [samples[i]["b"].shape for i in range(2)] == [(0,), (0,)]
        assert [samples[i]["a"].shape for i in range(2)] == [(0, 1), (1, 1)]
    assert HuggingFace(rows.select([0]), ["a"])[0]["a"].shape == (0, 0)


def test_images_over_time_and_small_whole_numbers_stay():
    rows = Dataset.from_dict({"video": [np.ones((2, 3, 4), np.uint8).tolist(), []]}).cast(
        Features({"video": List(List(List(Value("uint8"))))})
    )
    source = HuggingFace(rows, ["video"])
    assert [(source[i]["video"].shape, source[i]["video"].dtype) for i in range(2)] == [
        ((2, 3, 4), np.uint8),
        ((0, 3, 4), np.uint8),
    ]


def table(**columns):
    return Dataset.from_dict(columns)


@pytest.mark.parametrize(
    ("dataset", "modalities", "options", "error", "message"),
    [
        (table(text=["a b"]), ["text"], {}, SourceError, "the column 'text' holds text; tokenise it first"),
        (table(words=[["a", "b"]]), ["words"], {}, SourceError, "the column 'words' holds text"),
        (table(ids=[[1]], y=["happy"]), ["ids"], {"targets": "y"}, SourceError, "class_encode_column"),
        (table(x=[{"a": 1}]), ["x"], {}, SourceError, "the column 'x' holds struct"),
        (table(x=[3]), ["x"], {}, SourceError, "'x' has a number in each row; 'x' is a list of positions"),
        (table(x=[[3]]), ["y"], {}, SourceError, r"no column \['y'\], only \['x'\]"),
        (table(x=[[3]]), {"text": "x"}, {"targets": "label"}, SourceError, r"no column \['label'\]"),
        (table(x=[[3]]), "x", {}, PaddingError, "got the string 'x' for the modalities"),
        (table(x=[[3]]), {"targets": "x"}, {}, PaddingError, "none of them 'targets'"),
        (table(x=[[3]]), ["x"], {"position_targets": {"y": "x"}}, PaddingError, r"position_targets for \['y'\]"),
        (table(x=[[3, 4]], t=[[2]]), ["x"], {"position_targets": {"x": "t"}}, SourceError, "row 0: 't' has 1 targets"),
        (table(x=[[3]], t=[1]), ["x"], {"position_targets": {"x": "t"}}, SourceError, "'t' has a number in each row"),
    ],
)  # fmt: skip
def test_columns_that_are_no_modalities(dataset, modalities, options, error, message):
    with pytest.raises(error, match=message):
        HuggingFace(dataset, modalities, **options)


BAD_ROWS = [
    ({"x": [[[1.0, 2.0]], [[1.0, 2.0], [1.0]]]}, r"row 1, column 'x'"),
    ({"x": [[[1.0, 2.0]], [[1.0, 2.0, 3.0]]]}, r"row 1, column 'x': got positions of shape \(3,\).* have \(2,\)"),
    ({"x": [[1, 2], [1, None]]}, r"row 1, column 'x'"),
    ({"x": [[[1.0, 2.0]], [None, [1.0, 2.0]]]}, r"row 1, column 'x'"),
    ({"x": [[1, 2], [2**40]]}, r"row 1, column 'x': 1099511627776 is no whole number that int32 holds"),
    ({"x": [[1, 2], [3]], "y": [1, None]}, r"row 1, column 'y': it is None; leave such rows out"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_ROWS)
def test_the_row_and_the_column_of_a_bad_value_are_named(columns, message):
    rows = Dataset.from_dict(columns)
    targets = "y" if "y" in columns else None
    with pytest.raises(SampleError, match=message):
        HuggingFace(rows, ["x"], targets=targets)[1]
    with pytest.raises(SampleError, match=message):
        list(HuggingFaceStream(rows.to_iterable_dataset(), ["x"], targets=targets))


def test_streams_name_what_is_wrong_with_them():
    with pytest.raises(SourceError, match="the column 'x' holds text"):
        list(HuggingFaceStream(table(x=["a"]).to_iterable_dataset(), ["x"]))
    with pytest.raises(SampleError, match=r"row 0: 't' has 1 targets, and 'x' has 2"):
        list(HuggingFaceStream(table(x=[[1, 2]], t=[[1]]).to_iterable_dataset(), ["x"], position_targets={"x": "t"}))
    with pytest.raises(SourceError, match=r"no column \['y'\]"):
        list(HuggingFaceStream(table(x=[[1]]).to_iterable_dataset(), ["y"]))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (datasets.DatasetDict(train=table(x=[[1]])), r"a DatasetDict of the splits \['train'\]; take one of them"),
        (table(x=[[1]]).to_iterable_dataset(), r"HuggingFaceStream\(\.\.\.\) takes it"),
        ([{"x": [1]}], r"got list; give a datasets\.Dataset"),
    ],
)
def test_other_things_than_datasets(thing, message):
    with pytest.raises(PaddingError, match=message):
        HuggingFace(thing, ["x"])


@pytest.mark.parametrize("kind", [HuggingFace, HuggingFaceStream])
def test_without_the_library_the_error_says_what_to_install(kind, monkeypatch):
    monkeypatch.setattr("multimodal_pad.sources.hugging_face.find_spec", lambda _: None)
    with pytest.raises(PaddingError, match=r"pip install 'multimodal-pad\[huggingface\]'"):
        kind(table(x=[[1]]), ["x"])


def test_one_line_from_rows_to_batches():
    source = HuggingFace(as_it_comes(), MODALITIES, targets="label")
    assert LengthTable.measure(source) is source.lengths
    assert sum(int(batch.sample_mask.sum()) for batch in batches(source, batch_size=8)) == 30
    assert repr(source).startswith("HuggingFace(30 samples, {'text': 'ids'")
