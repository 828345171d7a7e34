"""What a request may hold, and what is said of one that is not like that."""

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import PaddingError, pack_samples, pad_samples
from multimodal_pad.errors import SampleError
from multimodal_pad.serving.inputs import Inputs, Kind, kinds_of
from multimodal_pad.sources import FeatureStatistics

F4, I4 = np.dtype("float32"), np.dtype("int32")
INPUTS = Inputs({"text": Kind((), I4, 11), "audio": Kind((2,), F4)})
GOOD = {"text": np.int32([3, 10]), "audio": np.float32([[1, 2]])}


def arrays(**changes):
    return INPUTS.arrays({**GOOD, **changes}, 7)


def test_what_fits_is_taken_as_it_is():
    sample = {**GOOD, "targets": 3, "name": "a"}
    found = INPUTS.arrays(sample, 0)
    assert list(found) == ["text", "audio"]
    for name, array in found.items():
        assert array.dtype == sample[name].dtype
        assert array.tolist() == sample[name].tolist()
        assert not np.shares_memory(array, sample[name]), "a request waits, and its sample may be written to meanwhile"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", [3, 10]),
        ("text", np.int64([3, 10])),
        ("text", np.uint8([3, 10])),
        ("audio", [[1.0, 2.0]]),
        ("audio", [[1, 2]]),
        ("audio", np.float64([[1, 2]])),
        ("audio", np.float16([[1, 2]])),
        ("audio", np.asarray(jnp.asarray([[1, 2]], jnp.bfloat16))),
    ],
)
def test_values_are_cast_where_that_keeps_them(name, value):
    found = arrays(**{name: value})[name]
    assert found.dtype == GOOD[name].dtype
    np.testing.assert_array_equal(found, GOOD[name])


@pytest.mark.parametrize(
    ("name", "value"), [("text", []), ("audio", []), ("audio", np.empty((0, 2))), ("audio", np.empty((0, 5)))]
)
def test_nothing_is_a_missing_modality_whatever_its_dtype(name, value):
    found = arrays(**{name: value})[name]
    assert (found.shape, found.dtype) == ((0, *GOOD[name].shape[1:]), GOOD[name].dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": np.ones((3, 5), F4)}, r"sample 7, 'audio': got feature shape \(5,\), and the model takes \(2,\)"),
        ({"audio": np.ones(3, F4)}, r"got feature shape \(\), and the model takes \(2,\)"),
        ({"audio": np.float32([[1, np.nan]])}, r"sample 7, 'audio': position 0 holds NaN or inf"),
        ({"audio": np.float32([[1, 1], [-np.inf, 1]])}, r"position 1 holds NaN or inf"),
        ({"audio": np.float64([[1e300, 1]])}, r"'audio': got float64 with values that float32, which the model"),
        ({"audio": np.array([["a", "b"]])}, "'audio': got dtype <U1, and a batch holds"),
        ({"audio": [[1, 2], [3]]}, r"'audio': not an array of one shape"),
        ({"text": np.float32([1, 2])}, r"'text': got float32 with values that int32"),
        ({"text": np.int64([2**40])}, r"'text': got int64 with values that int32"),
        ({"text": [3, 11]}, r"'text': got the token id 11; ids run from 0 to 10"),
        ({"text": [-1]}, r"'text': got the token id -1; ids run from 0 to 10"),
        ({"text": 3}, r"sample 7, 'text': got shape \(\)"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(SampleError, match=message):
        arrays(**changes)


def test_a_request_that_is_no_sample_is_told():
    with pytest.raises(SampleError, match=r"sample 7 has no 'audio', only \['text'\]"):
        INPUTS.arrays({"text": [1]}, 7)
    with pytest.raises(SampleError, match="sample 7 is no mapping but list"):
        INPUTS.arrays([1], 7)


def test_nan_passes_where_it_is_not_looked_for():
    inputs = Inputs(INPUTS.kinds, check_finite=False)
    assert np.isnan(inputs.arrays({**GOOD, "audio": np.float64([[np.nan, 1]])}, 0)["audio"][0, 0])


def test_features_are_standardised_as_the_corpus_was():
    found = FeatureStatistics(np.array([1.0, 0.1]), np.array([2.0, 3.0]), 5)
    inputs = Inputs(INPUTS.kinds, {"audio": found})
    raw = np.random.default_rng(0).standard_normal((4, 2)).astype(F4)
    standardised = inputs.arrays({**GOOD, "audio": raw}, 0)["audio"]
    np.testing.assert_array_equal(standardised, ((raw - found.mean) / found.std).astype(F4))
    assert standardised.dtype == F4


@pytest.mark.parametrize("name", ["visual", "text", "audio"])
def test_statistics_of_something_else_are_refused(name):
    found = FeatureStatistics(np.zeros(3), np.ones(3), 5)
    with pytest.raises(PaddingError, match=f"statistics to standardise '{name}' by, of shape"):
        Inputs(INPUTS.kinds, {name: found})


@pytest.mark.parametrize("lay_out", [dict, lambda x: pad_samples([x]), lambda x: pack_samples([x])])
def test_kinds_are_those_of_an_example(lay_out):
    example = {"text": np.int64([1]), "audio": np.zeros((2, 5, 3))}
    assert kinds_of(lay_out(example), ("text", "audio")) == {"text": Kind((), I4), "audio": Kind((5, 3), F4)}


def test_an_empty_batch_is_no_example():
    batch = pad_samples([GOOD])._replace(sample_mask=np.array([False]))
    with pytest.raises(PaddingError, match="an example batch without a sample"):
        kinds_of(batch, ("text",))
