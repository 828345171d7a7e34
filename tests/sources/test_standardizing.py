"""Features of mean 0 and variance 1."""

from types import SimpleNamespace

import numpy as np
import pytest

from multimodal_pad import PaddingError
from multimodal_pad.errors import SampleError
from multimodal_pad.sources import FeatureStatistics, Mult, NumpyDir, Standardized, convert
from tests.helpers.corpora import write_mult


def test_statistics_are_those_of_all_real_frames(tmp_path):
    written = write_mult(tmp_path)
    source = Mult(written.path, "train")
    frames = np.concatenate([s["audio"] for s in written.splits["train"]]).astype(np.float64)
    found = FeatureStatistics.measure(source, "audio")
    np.testing.assert_allclose(found.mean, frames.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, frames.std(axis=0), rtol=1e-12)
    assert found.frames == len(frames)
    splits = {name: Mult(written.path, name) for name in written.splits}
    manifest = convert(splits, tmp_path / "out", standardize=["audio", "visual"])
    assert manifest["standardized"]["audio"]["mean"] == found.mean.tolist()
    assert manifest["standardized"]["audio"]["split"] == "train"
    train = NumpyDir(tmp_path / "out", "train")
    whole = np.concatenate([train[i]["audio"] for i in range(len(train))]).astype(np.float64)
    np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(whole.std(axis=0), 1, rtol=1e-6)
    test = written.splits["test"][0]
    cached = NumpyDir(tmp_path / "out", "test")[0]
    np.testing.assert_array_equal(cached["audio"], ((test["audio"] - found.mean) / found.std).astype(np.float32))
    np.testing.assert_array_equal(cached["text"], test["text"])


def test_large_offsets_and_constant_features():
    rng = np.random.default_rng(0)
    features = 1e6 + rng.standard_normal((1000, 2)) * [1e-2, 0]
    parts = [{"audio": part} for part in np.split(features, [0, 3, 500])]
    found = FeatureStatistics.measure(parts, "audio")
    np.testing.assert_allclose(found.std, [features[:, 0].std(), 1], rtol=1e-6)
    tenth = FeatureStatistics.measure([{"audio": np.full((n, 1), 0.1)} for n in (3, 7, 11)], "audio")
    assert tenth.std.tolist() == [1.0], "what rounding leaves of a constant is not divided by"
    standard = Standardized(parts, {"audio": found})
    assert np.abs(standard[2]["audio"][:, 1]).max() < 1e-6
    assert standard[0]["audio"].shape == (0, 2)
    assert standard.lengths.values.ravel().tolist() == [0, 3, 497, 500]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"text": np.array([1, 2])}], "'text' holds int64, such as token ids; only floating point is standardised"),
        ([{"text": np.ones((0, 2))}], "'text' is missing in every sample"),
    ],
)
def test_what_is_not_standardised(samples, message):
    with pytest.raises(PaddingError, match=message):
        FeatureStatistics.measure(samples, "text")


def test_samples_that_are_standardised_may_be_lists_or_lack_the_modality():
    found = FeatureStatistics(np.array([1.0, 2.0]), np.array([1.0, 2.0]), frames=3)
    source = Standardized([{"audio": [[2.0, 4.0]]}, {"audio": None}, {"audio": np.zeros(0)}], {"audio": found})
    assert source[0]["audio"].tolist() == [[1.0, 1.0]]
    assert [len(source[index]["audio"]) for index in (1, 2)] == [0, 0]
    wide = Standardized([{"audio": np.ones((2, 1))}], {"audio": found})
    with pytest.raises(
        SampleError, match=r"sample 0, 'audio': got features of shape \(1,\), and its statistics are of"
    ):
        wide[0]
    named = Standardized([SimpleNamespace(audio=[[2.0, 4.0]])], {"audio": found})
    assert named[0]["audio"].tolist() == [[1.0, 1.0]]
