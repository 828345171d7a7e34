"""What convert takes: the modalities named and nothing else, splits that are alike, inputs that stay as they are."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad.errors import PaddingError, SampleError, SourceError
from multimodal_pad.sources import Mult, NumpyDir, Standardized, convert
from multimodal_pad.sources.verification import verify_cache
from tests.helpers.corpora import make_sample, write_mult, write_numpy_dir


class Described(list):
    """A list with the attributes that corpora have."""


def described(samples, **attributes):
    found = Described(samples)
    found.__dict__.update(attributes)
    return found


def utterance(length, **more):
    return {"text": np.arange(1, length + 1), "targets": np.float32(length), **more}


@pytest.mark.parametrize("value", ["Ross", 3.5, None, {}, np.array(["a", "b"]), object(), [[1], [2, 3]], b"x", {1, 2}])
def test_columns_beside_the_modalities_named_are_not_looked_at(value, tmp_path):
    samples = [utterance(2, note=value), utterance(1), utterance(3, another=value, note=value)]
    convert({"train": samples, "dev": [utterance(1, note=value)]}, tmp_path / "out", modalities=["text"])
    source = NumpyDir(tmp_path / "out", "train")
    assert [sorted(source[index]) for index in range(3)] == [["targets", "text"]] * 3
    convert(
        {"train": [utterance(2.0, audio=np.ones((2, 1)), note=value)]},
        tmp_path / "std",
        modalities=["audio", "text"],
        standardize=["audio"],
    )
    assert list(NumpyDir(tmp_path / "std", "train")[0]) == ["audio", "text", "targets"]


def test_what_is_not_finite_in_a_modality_that_is_left_out(tmp_path):
    written = write_mult(tmp_path, nonfinite=True)
    splits = {split: Mult(written.path, split) for split in written.splits}
    with pytest.raises(SourceError, match=r"holds (nan|-inf) at position"):
        convert(splits, tmp_path / "all")
    manifest = convert(splits, tmp_path / "text", modalities=["text"])
    assert manifest["splits"]["train"]["nonfinite"] == {"text": 0}
    assert manifest["splits"]["train"]["padded_to"] == {"text": 50}
    assert verify_cache(tmp_path / "text") == 3 * 5


def test_a_source_of_its_own_kind_is_read_by_its_own_rule(tmp_path):
    class Louder(NumpyDir):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "audio": sample["audio"] * 2}

    write_numpy_dir(tmp_path)
    convert({"train": Louder(tmp_path, nonfinite="zero")}, tmp_path / "out", modalities=["audio"])
    once, twice = NumpyDir(tmp_path, nonfinite="zero"), NumpyDir(tmp_path / "out", "train")
    np.testing.assert_array_equal(twice[1]["audio"], once[1]["audio"] * 2)


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        (
            [make_sample(2) | {"targets": np.zeros(2)}],
            r"split 'dev': the targets are float64 of shape \(2,\), and those",
        ),
        (
            [make_sample(2) | {"targets": 1.5}],
            r"split 'dev': .*float64 of shape \(\).* split 'train' int32 of shape \(\)",
        ),
        ([make_sample(2) | {"targets": "joy"}], "split 'dev': sample 0, 'targets': got dtype <U3"),
        ([make_sample(2), {"audio": np.ones((1, 2), "f4")}], "split 'dev': sample 1, 'targets': got none"),
        ([{"audio": np.ones((1, 2), "f4")}, make_sample(2)], "split 'dev': sample 1, 'targets': got"),
        ([make_sample(2) | {"targets": {"a": 1}}], "split 'dev': sample 0: has a dict of targets, and a cache"),
        ([make_sample(2, width=3)], r"split 'dev': sample 0, 'audio': has the shape \(2, 3\)"),
        (
            [make_sample(2) | {"audio": np.ones((2, 2), complex)}],
            "split 'dev': sample 0, 'audio': got dtype complex128",
        ),
        ([make_sample(2) | {"audio": np.ones((2, 2), np.longdouble)}], "split 'dev': sample 0, 'audio': got dtype"),
        ([{"targets": np.int32(1)}], "split 'dev'.*modalit"),
        ([3], "split 'dev': sample 0 is no mapping but int"),
    ],
)
def test_what_is_wrong_says_in_which_split(dev, message, tmp_path):
    with pytest.raises(PaddingError, match=message):
        convert({"train": [make_sample(2)], "dev": dev}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_the_source_raises_says_in_which_split(tmp_path):
    class Broken(list):
        def __getitem__(self, index):
            raise RuntimeError("no such clip")

    with pytest.raises(RuntimeError, match="no such clip") as found:
        convert({"train": [make_sample(2)], "dev": Broken([1])}, tmp_path / "out")
    assert "while the split 'dev' was converted" in found.value.__notes__


def test_a_split_whose_targets_are_kept_back(tmp_path):
    blind = [{"audio": np.ones((n, 2), np.float32)} for n in (1, 3)]
    manifest = convert({"test": blind, "train": [make_sample(2)]}, tmp_path / "out")
    assert [manifest["splits"][split]["targets"] for split in ("test", "train")] == [
        None,
        {"dtype": "int32", "shape": []},
    ]
    assert NumpyDir(tmp_path / "out", "test").targets is None
    assert NumpyDir(tmp_path / "out", "train").targets.tolist() == [0]


@pytest.mark.parametrize("nothing", [[], None, np.zeros(0), np.zeros((0, 5), np.int8), np.zeros((0,), object)])
def test_a_first_sample_without_a_modality_decides_nothing(nothing, tmp_path):
    samples = [
        {"audio": nothing, "text": np.array([1])},
        {"audio": np.ones((2, 3), np.float32), "text": np.array([2, 3])},
    ]
    manifest = convert({"dev": samples[:1], "train": samples}, tmp_path / "out", standardize=["audio"])
    assert manifest["modalities"]["audio"] == {"dtype": "float32", "feature_shape": [3]}
    for split in ("dev", "train"):
        assert NumpyDir(tmp_path / "out", split)[0]["audio"].shape == (0, 3)


def test_a_modality_that_is_missing_everywhere(tmp_path):
    samples = [{"audio": [], "text": np.array([1])}, {"audio": np.zeros((0, 4), np.float32), "text": np.array([2, 3])}]
    convert({"dev": samples[:1], "train": samples[1:]}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", "dev")[0]["audio"].shape == (0, 4)
    assert NumpyDir(tmp_path / "out", "dev").lengths.values.tolist() == [[0, 1]]


numbers = st.sampled_from(["?", *"bBhHiIqQefdg", "D", "O", "U3", "M8[s]"])


@settings(deadline=None, max_examples=25)
@given(dtype=numbers, order=st.sampled_from("<>"), what=st.sampled_from(["features", "targets"]))
def test_every_dtype_is_kept_converted_by_the_rule_or_refused(dtype, order, what, tmp_path_factory):
    """Whole numbers stay what they are, floating point is what was asked for, in the byte order of this machine."""
    given_dtype = np.dtype(dtype).newbyteorder(order)
    values = np.array([1, 0, 1]).astype(given_dtype)
    sample = {"x": np.ones((3, 1), np.float32), "targets": values}
    sample = {"x": values} if what == "features" else sample
    out = tmp_path_factory.mktemp("dtypes")
    file, plain = ("x", "x") if what == "features" else ("targets", "targets")
    if given_dtype.kind not in "biuf" or dtype == "g":
        with pytest.raises(SampleError, match=r"split 'train': sample 0, '(x|targets)': got"):
            convert({"train": [sample]}, out / "cache")
        return
    convert({"train": [sample]}, out / "cache")
    found = NumpyDir(out / "cache", "train")[0][file]
    native = given_dtype.newbyteorder("=")
    assert found.dtype == (np.float32 if what == "features" and native.kind == "f" else native)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)
    if what == "features":
        np.save(out / f"{plain}.npy", values)
        np.save(out / f"{plain}.offsets.npy", [0, 3])
    else:
        np.save(out / "x.npy", np.ones(3, np.float32))
        np.save(out / "x.offsets.npy", [0, 1, 2, 3])
        np.save(out / "targets.npy", values)
    read = NumpyDir(out)
    found = read[0]["x"] if what == "features" else read.targets
    assert found.dtype == native
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("when", ["SHA-256 of the input", "writing train", "statistics of text"])
@pytest.mark.parametrize("how", ["longer", "other", "replaced", "gone"])
def test_an_input_that_changes_while_it_is_converted(when, how, tmp_path):
    path = tmp_path / "corpus.bin"
    path.write_bytes(b"as it was")
    source = described([{"text": np.ones((2, 1))}], inputs=[path])

    def change(what, *_):
        if what != when or not path.exists():
            return
        if how == "longer":
            path.write_bytes(b"as it was, and more")
        elif how == "other":
            path.write_bytes(b"as it is.")
            os.utime(path, ns=(0, 0))
        elif how == "replaced":
            (tmp_path / "new").write_bytes(b"as it was")
            (tmp_path / "new").replace(path)
        else:
            path.unlink()

    with pytest.raises(SourceError, match=r"corpus\.bin: changed while it was read; convert again when nothing writes"):
        convert({"train": source}, tmp_path / "out", standardize=["text"], progress=change)
    assert not (tmp_path / "out").exists()


def test_an_input_whose_name_is_no_utf_8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"corpus\xff.bin")  # noqa: PTH118 - bytes
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"data")
    source = described([{"text": np.ones((2, 1))}], inputs=[os.fsdecode(path)])
    manifest = convert({"train": source}, tmp_path / "out")
    assert manifest["source"]["inputs"][0]["path"].endswith(r"corpus\xff.bin")
    assert NumpyDir(tmp_path / "out", "train").manifest == manifest


def test_words_with_half_a_character(tmp_path):
    source = described([{"text": np.array([2, 3])}], vocabularies={"text": {"\ud83d": 2, "né": 3}})
    convert({"train": source}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", "train").vocabularies == source.vocabularies


def test_ids_of_a_source_that_is_standardised_by_hand(tmp_path):
    source = described([make_sample(2), make_sample(1)], ids=["a", "b"])
    convert({"train": Standardized(source, {})}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", "train").ids == ["a", "b"]


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".a", "", "targets", "ids", "a.offsets", "manifest.json", "a\nb", "\x1b[1m", "\ud800", "a" * 300, 7],
)
def test_names_that_make_no_file(name, tmp_path):
    for splits in ({name: [make_sample(2)]}, {"train": [{name: np.ones((2, 1))}]}):
        if name != "targets" or name in splits:
            with pytest.raises(PaddingError):
                convert(splits, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "né", "a.b", "a" * 200, "text-1"])
def test_names_that_make_one(name, tmp_path):
    convert({name: [{name: np.ones((2, 1), np.float32)}]}, tmp_path / "out")
    assert NumpyDir(tmp_path / "out", name).lengths.maxima == {name: 2}
    assert verify_cache(tmp_path / "out") == 2


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"rules": "none"}, "split 'train': its rules is 'none', not a dict; corpora have"),
        ({"padded_to": 3}, r"split 'train': corpora have .* \(TypeError: "),
        ({"padded_to": {"audio": -1}}, "split 'train': its padded_to.audio is -1, not a length"),
        ({"padded_to": {"audio": 1}}, "split 'train': its padded_to.audio is 1, and a sample has 2 positions"),
        ({"padded_to": {"text": 9}}, "split 'train': its padded_to.audio is None, and a sample has 2 positions"),
        ({"nonfinite": {"audio": "two"}}, "split 'train': its nonfinite.audio is 'two', not a whole number"),
        ({"left_out": ["a"]}, r"split 'train': corpora have .* \(AttributeError: "),
    ],
)
def test_what_a_source_says_of_itself_is_looked_at_before_anything_is_written(attributes, message, tmp_path):
    told = []
    with pytest.raises(SourceError, match=message):
        convert(
            {"train": described([make_sample(2)], **attributes)}, tmp_path / "out", progress=lambda *x: told.append(x)
        )
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_and_paths_in_what_a_source_says(tmp_path):
    attributes = {"padded_to": {"audio": np.int64(4), "more": 7}, "rules": {"from": tmp_path, "rate": np.float32(0.5)}}
    manifest = convert({"train": described([make_sample(2)], **attributes)}, tmp_path / "out")
    assert manifest["splits"]["train"]["padded_to"] == {"audio": 4}
    assert manifest["splits"]["train"]["rules"] == {"from": str(tmp_path), "rate": 0.5}
    assert NumpyDir(tmp_path / "out", "train").manifest == manifest
