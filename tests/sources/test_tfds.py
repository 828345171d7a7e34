"""TFDS datasets as sources, and our own builder, without TensorFlow."""

import logging
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.sources import Mmsa, Mult, NumpyDir, convert, tfds
from multimodal_pad.sources.tfds_features import top_features
from tests.helpers.corpora import write_meld, write_mmsa, write_mult

package = pytest.importorskip("tensorflow_datasets")

from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion  # noqa: E402 - it needs the package


class SmallDataset(package.core.GeneratorBasedBuilder):
    """Ragged features of several kinds, nested ones too, and some that are not ragged."""

    VERSION = package.core.Version("1.0.0")

    def _info(self):
        features = package.features
        return package.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "name": features.Text(),
                    "label": features.ClassLabel(num_classes=3),
                    "score": features.Scalar(np.float64),
                    "large": features.Scalar(np.int64),
                    "tokens": features.Tensor(shape=(None,), dtype=np.int64),
                    "frames": features.Sequence(features.Tensor(shape=(3,), dtype=np.float32)),
                    "fixed": features.Tensor(shape=(2, 3), dtype=np.float32),
                    "image": features.Tensor(shape=(None, None), dtype=np.float32, encoding="bytes"),
                    "audio": {"mfcc": features.Tensor(shape=(None, 2), dtype=np.float64)},
                    "steps": features.Sequence(
                        {
                            "obs": features.Tensor(shape=(4,), dtype=np.float32),
                            "act": features.Scalar(np.int32),
                            "inner": {"image": features.Tensor(shape=(2, 3), dtype=np.float64)},
                            "word": features.Text(),
                        }
                    ),
                    "rlds": features.Dataset(
                        {"obs": features.Tensor(shape=(4,), dtype=np.float32), "reward": features.Scalar(np.float64)}
                    ),
                    "points": features.Dataset(features.Tensor(shape=(2,), dtype=np.int64)),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(9)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, small_example(number)


def small_example(number):
    return {
        "name": f"example{number}",
        "label": number % 3,
        "score": number / 2,
        "large": 2**40 + number,
        "tokens": np.arange(number),
        "frames": np.full((number % 4, 3), number, np.float32),
        "fixed": np.zeros((2, 3), np.float32),
        "image": np.zeros((1, 2), np.float32),
        "audio": {"mfcc": np.full((number + 1, 2), np.inf if number == 5 else number, np.float64)},
        "steps": [
            {"obs": np.full(4, i, np.float32), "act": number, "inner": {"image": np.full((2, 3), i / 2)}, "word": "w"}
            for i in range(number % 5)
        ],
        "rlds": [{"obs": np.full(4, -i, np.float32), "reward": i / 4} for i in range(number % 3)],
        "points": [np.full(2, i) for i in range(number % 2)],
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    SmallDataset(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_every_ragged_feature_at_the_top_by_default(prepared):
    source = tfds("small_dataset", "train", data_dir=prepared)
    assert source.lengths.modalities == ("frames", "points", "tokens")
    assert sorted(source.lengths.values[:, 2].tolist()) == list(range(9))
    assert list(source[0]) == ["frames", "points", "tokens"]
    assert source.ids[0] == "train[0]"


def test_features_by_name_nested_ones_too(prepared):
    chosen = {"speech": "audio/mfcc", "face": "frames", "text": "tokens"}
    options = {"features": chosen, "targets": "label", "ids": "name", "data_dir": prepared}
    source = tfds("small_dataset", "train", nonfinite="zero", **options)
    for index, name in enumerate(source.ids):
        number = int(name.removeprefix("example"))
        wanted = small_example(number)
        sample = source[index]
        assert sample["targets"] == number % 3
        assert sample["targets"].dtype == np.int32
        np.testing.assert_array_equal(sample["speech"], np.where(number == 5, 0, wanted["audio"]["mfcc"]))
        np.testing.assert_array_equal(sample["face"], wanted["frames"])
        np.testing.assert_array_equal(sample["text"], wanted["tokens"])
        assert [sample[m].dtype for m in chosen] == [np.float32, np.float32, np.int64]
        assert sample["face"].shape == (number % 4, 3)
    assert source.nonfinite == {"speech": 12, "face": 0, "text": 0}
    source = tfds("small_dataset", "train", **options)
    with pytest.raises(
        SourceError, match=r"small_dataset/1\.0\.0, split 'train', 'audio/mfcc': sample \d \(example5\) holds inf"
    ):
        [source[index] for index in range(len(source))]


NESTED = {
    # of each modality its path, and what an example has there
    "obs": ("steps/obs", lambda n: np.repeat(np.arange(n % 5, dtype=np.float32)[:, None], 4, axis=1)),
    "act": ("steps/act", lambda n: np.full(n % 5, n, np.int32)),
    "image": ("steps/inner/image", lambda n: np.arange(n % 5, dtype=np.float32).repeat(6).reshape(-1, 2, 3) / 2),
    "rl": ("rlds/obs", lambda n: np.repeat(-np.arange(n % 3, dtype=np.float32)[:, None], 4, axis=1)),
    "reward": ("rlds/reward", lambda n: np.arange(n % 3, dtype=np.float32) / 4),
    "points": ("points", lambda n: np.zeros((n % 2, 2), np.int64)),
}


def test_features_in_sequences_and_datasets_of_steps(prepared):
    chosen = {name: key for name, (key, _) in NESTED.items()}
    source = tfds("small_dataset", "train", features=chosen, ids="name", data_dir=prepared)
    for index, name in enumerate(source.ids):
        for modality, (_, wanted) in NESTED.items():
            true, found = wanted(int(name.removeprefix("example"))), source[index][modality]
            np.testing.assert_array_equal(found, true)
            assert (found.dtype, found.shape) == (true.dtype, true.shape)
        assert source.lengths.values[index].tolist() == [len(source[index][modality]) for modality in NESTED]


def test_steps_are_decoded_once_for_all_their_features(prepared, monkeypatch):
    source = tfds("small_dataset", "train", features={"a": "rlds/obs", "b": "rlds/reward"}, data_dir=prepared)
    index = int(source.lengths.values[:, 0].argmax())
    kind = type(source._examples[index]["rlds"])
    read, decode = [], kind.__iter__
    monkeypatch.setattr(kind, "__iter__", lambda steps: read.append(1) or decode(steps))
    source[index]
    assert len(read) == 1


def test_several_targets_are_one_array(prepared):
    source = tfds("small_dataset", "train", targets=["label", "score"], ids="name", data_dir=prepared)
    wanted = [[int(name[-1]) % 3, int(name[-1]) / 2] for name in source.ids]
    np.testing.assert_array_equal(source.targets, np.array(wanted, np.float32))
    assert tfds("small_dataset", "train", targets=["label", "label"], data_dir=prepared).targets.dtype == np.int32


def test_by_the_folder_and_by_part_of_a_split(prepared):
    source = tfds(prepared / "small_dataset" / "1.0.0", "train[:4]", targets="score")
    assert len(source) == 4
    assert source.targets.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("small_dataset", "dev"), {}, r"small_dataset/1\.0\.0, split 'dev': .*splits: \['train'\]"),
        (("small_dataset", "train"), {"features": {"a": "nothing"}}, r"has no feature 'nothing'; it has \["),
        (("small_dataset", "train"), {"features": {"a": "audio/nothing"}}, "has no feature 'audio/nothing'"),
        (("small_dataset", "train"), {"features": {"a": "fixed"}}, r"'fixed' is of shape \(2, 3\), not ragged"),
        (("small_dataset", "train"), {"features": {"a": "image"}}, r"'image' is of shape \(None, None\), not ragged"),
        (("small_dataset", "train"), {"features": {"a": "name"}}, "the feature 'name' is text, not ragged"),
        (("small_dataset", "train"), {"features": {"a": "steps/word"}}, "the feature 'steps/word' is text, not ragged"),
        (
            ("small_dataset", "train"),
            {"features": {"a": "rlds"}},
            r"holds several; name one of \['rlds/obs', 'rlds/rew",
        ),
        (("small_dataset", "train"), {"features": {"a": "steps/no"}}, r"no feature 'steps/no'; it has \['act', 'in"),
        (("small_dataset", "train"), {"targets": ["label", "no"]}, "has no feature 'no'"),
        (("small_dataset", "train"), {"targets": ["label", "fixed"]}, r"\['label', 'fixed'\] have the shapes"),
        (
            ("small_dataset", "train"),
            {"features": {"a": "audio"}},
            r"'audio' holds several; name one of \['audio/mfcc'\]",
        ),
        (("small_dataset", "train"), {"targets": "nothing"}, "has no feature 'nothing'"),
        (("small_dataset", "train"), {"targets": "tokens"}, "targets are numbers of one shape"),
        (("small_dataset", "train"), {"targets": "name"}, "targets are numbers of one shape"),
        (("small_dataset", "train"), {"targets": "large"}, "sample . .* has the target .*; it must be a whole number"),
        (("small_dataset", "train"), {"ids": "label"}, "samples . and . are both called"),
        (("not_a_dataset", "train"), {}, "no TFDS dataset 'not_a_dataset'"),
    ],
)
def test_what_is_not_there_or_not_ragged(prepared, arguments, options, message):
    with pytest.raises(PaddingError, match=message):
        tfds(*arguments, data_dir=prepared, **options)


def test_where_nothing_at_the_top_is_ragged_what_is_further_down_is_named():
    kinds = package.features
    steps = kinds.Sequence({"obs": kinds.Tensor(shape=(4,), dtype=np.float32), "word": kinds.Text()})
    with pytest.raises(
        SourceError, match=r"name some, such as features=\{'obs': 'steps/obs'\}: there are \['steps/obs'\]"
    ):
        top_features(kinds.FeaturesDict({"steps": steps, "label": kinds.Scalar(np.int32)}), "here")
    with pytest.raises(SourceError, match=r"here: no feature at the top is ragged; nor is any other of \['label'\]"):
        top_features(kinds.FeaturesDict({"label": kinds.Scalar(np.int32)}), "here")


def test_from_inside_of_the_folder_of_tfds(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    assert len(tfds("small_dataset", "train", data_dir=".")) == 9


def test_a_dataset_that_is_not_prepared(tmp_path):
    with pytest.raises(SourceError, match=r"'small_dataset' is not prepared in .*; run download_and_prepare"):
        tfds("small_dataset", "train", data_dir=tmp_path)


def test_a_format_without_random_access(prepared, tmp_path):
    """A dataset that was prepared as TFRecord says so in its metadata."""
    import shutil

    folder = tmp_path / "small_dataset" / "1.0.0"
    shutil.copytree(prepared / "small_dataset" / "1.0.0", folder)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in folder.glob("*array_record*"):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    with pytest.raises(
        SourceError, match=r"random access needs a dataset that was prepared with file_format='array_record'"
    ):
        tfds(folder, "train")


@pytest.mark.parametrize("absent", ["tensorflow_datasets", "array_record"])
def test_without_the_packages(absent, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(
        PaddingError, match=rf"TFDS datasets need {absent}; install it with pip install 'multimodal-pad\[tfds\]"
    ):
        tfds("small_dataset", "train")


WITHOUT_TENSORFLOW = """
import sys
from multimodal_pad import sources
from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion, tfds
folder = sys.argv[1]
builder = UnalignedEmotion(config="mosi", data_dir=folder + "/tfds")
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
source = sources.tfds("unaligned_emotion/mosi", "train", targets="targets", ids="id", data_dir=folder + "/tfds")
sources.convert({"train": source}, folder + "/cache")
assert "tensorflow" not in sys.modules and "jax" not in sys.modules
try:
    builder.as_dataset(split="train")
except Exception as error:
    print(type(error).__name__, error)
print(len(source))
"""


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_tensorflow_is_not_needed_to_build_read_and_convert(tmp_path):
    written = write_mult(tmp_path)
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *complaint, count = done.stdout.splitlines()
    assert int(count) == 7
    assert "tensorflow" in " ".join(complaint).lower()  # what does need it says so
    cached = NumpyDir(tmp_path / "cache", "train")
    wanted = {sample["id"]: sample for sample in written.splits["train"]}
    for index, name in enumerate(cached.ids):
        np.testing.assert_array_equal(cached[index]["audio"], wanted[name]["audio"])


def build(config, folder, **options):
    builder = UnalignedEmotion(config=config, data_dir=folder / "tfds", **options)
    builder.download_and_prepare(download_config=package.download.DownloadConfig(manual_dir=folder))
    return tfds(f"unaligned_emotion/{config}", "train", targets="targets", ids="id", data_dir=folder / "tfds")


@pytest.mark.parametrize("config", ["mosei", "iemocap", "mosi_bert", "mosei_bert", "ch_sims", "meld"])
def test_a_config_for_every_corpus(config, tmp_path, caplog):
    if config == "meld":
        written = write_meld(tmp_path, features=False)
    elif config in ("mosei", "iemocap"):
        written = write_mult(tmp_path, {"mosei": "mosei_senti"}.get(config, config))
    else:
        written = write_mmsa(tmp_path, config.removesuffix("_bert").removeprefix("ch_"))
        if config == "ch_sims":
            written.path.rename(tmp_path / "unaligned_39.pkl")
    with caplog.at_level(logging.WARNING):
        source = build(config, tmp_path, nonfinite="zero")
    wanted = {sample["id"]: sample for sample in written.splits["train"]}
    assert set(source.ids) == set(wanted)
    for index, name in enumerate(source.ids):
        for key, value in wanted[name].items():
            if key != "id":
                np.testing.assert_array_equal(source[index][key], value)
    count = written.nonfinite["train"].get("audio", 0)
    assert (f"split 'train': {count} values of audio that were NaN or inf are 0" in caplog.text) == (count > 0)


def test_the_config_of_another_corpus(tmp_path):
    write_mult(tmp_path, "mosei_senti").path.rename(tmp_path / "mosi_data_noalign.pkl")
    with pytest.raises(SourceError, match=r"audio has features of shape \(74,\), and the config 'mosi' of \(5,\)"):
        build("mosi", tmp_path)


def test_what_is_not_finite_stops_the_builder(tmp_path):
    write_mmsa(tmp_path)
    with pytest.raises(SourceError, match="holds -inf at position 2"):
        build("mosi_bert", tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mosi_data_noalign\.pkl"):
        build("mosi", tmp_path)


def test_a_converted_dataset_keeps_the_order_of_tfds(prepared, tmp_path):
    source = tfds("small_dataset", "train", features={"text": "tokens"}, ids="name", data_dir=prepared)
    convert({"train": source}, tmp_path / "cache")
    assert list(NumpyDir(tmp_path / "cache", "train").ids) == list(source.ids)
    assert {Mult.kind, Mmsa.kind, source.kind} == {"mult", "mmsa", "tfds"}
