import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad import pad_samples, unpad
from multimodal_pad.errors import SampleError
from tests.helpers.batches import assert_same_samples
from tests.strategies import length_tables, make_samples

TWO = [
    {"text": np.array([1, 2], np.int32), "audio": np.ones((3, 4), np.float32), "targets": 0},
    {"text": np.array([5], np.int32), "audio": np.ones((0, 4), np.float32), "targets": 1},
]


@given(st.data(), length_tables(max_samples=8))
def test_pad_then_unpad_is_the_identity(data, table):
    samples = make_samples(table)
    extra = {m: data.draw(st.integers(0, 5)) for m in table.modalities}
    pad_to = {m: max(1, n) + extra[m] for m, n in table.maxima.items()}
    batch = pad_samples(samples, pad_to=pad_to, batch_size=len(samples) + data.draw(st.integers(0, 3)))
    assert_same_samples(unpad(batch), samples)


@given(length_tables(max_samples=8), st.sampled_from([0, 7, -1]), st.integers(0, 2))
def test_masks_and_padding(table, pad_value, empty_rows):
    samples = make_samples(table)
    batch = pad_samples(samples, pad_value=pad_value, batch_size=len(samples) + empty_rows)
    for column, name in enumerate(table.modalities):
        mask, features = batch.masks[name], batch.features[name]
        lengths = [*table.values[:, column], *[0] * empty_rows]
        assert mask.sum(axis=1).tolist() == lengths
        assert mask.shape == (len(lengths), max(1, *lengths))
        assert not (np.diff(mask.astype(int), axis=1) > 0).any(), "real positions come first"
        assert (features[~mask] == pad_value).all()
    assert batch.sample_mask.tolist() == [True] * len(samples) + [False] * empty_rows


def test_a_zero_frame_inside_a_sample_is_data():
    batch = pad_samples([{"audio": np.zeros((2, 3))}, {"audio": np.ones((3, 3))}])
    assert batch.masks["audio"].tolist() == [[True, True, False], [True, True, True]]


def test_equals_torch_on_the_batch_of_algorithm_1():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    widths = {"text": 300, "visual": 35, "audio": 74}
    samples = [
        {m: rng.standard_normal((length, width)).astype(np.float32) for m, width in widths.items()}
        for length in (8, 3, 12)
    ]
    batch = pad_samples(samples)
    for name in widths:
        sequences = [torch.from_numpy(sample[name]) for sample in samples]
        wanted = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=0)
        np.testing.assert_array_equal(batch.features[name], wanted.numpy())
        masks = torch.zeros(wanted.shape[:2])
        for i, sequence in enumerate(sequences):
            masks[i, : sequence.shape[0]] = 1
        np.testing.assert_array_equal(batch.masks[name], masks.bool().numpy())


def test_buffers_are_aligned_contiguous_and_fresh():
    first, second = pad_samples(TWO), pad_samples(TWO)
    for batch in (first, second):
        for array in (*batch.features.values(), *batch.lengths.values(), batch.targets, batch.sample_mask):
            assert array.ctypes.data % 64 == 0
            assert array.flags.c_contiguous
    assert not np.shares_memory(first.features["audio"], second.features["audio"])
    assert not np.shares_memory(first.features["audio"], TWO[0]["audio"])


def test_samples_without_targets():
    batch = pad_samples([{"text": [1, 2]}, {"text": [3]}])
    assert batch.targets is None
    assert "targets" not in unpad(batch)[0]


def test_targets_of_several_values_are_zero_in_empty_rows():
    batch = pad_samples([{"text": [1], "targets": np.array([0.5, 2.0])}], batch_size=2)
    assert batch.targets is not None
    assert batch.targets.tolist() == [[0.5, 2.0], [0.0, 0.0]]


def test_the_shape_names_the_modalities_in_order():
    assert str(pad_samples(TWO).shape) == "2 x (audio 3, text 2)"
    assert pad_samples(TWO, modalities=["text", "audio"]).shape == pad_samples(TWO).shape


def test_nan_is_a_pad_value_for_floats():
    batch = pad_samples(TWO, modalities=["audio"], pad_value=float("nan"))
    assert np.isnan(batch.features["audio"][1]).all()


def test_a_pad_value_per_modality():
    batch = pad_samples(TWO, pad_value={"text": 9})
    assert batch.features["text"][1].tolist() == [5, 9]
    assert batch.features["audio"][1, 2].tolist() == [0, 0, 0, 0]


def changed(**changes):
    return [TWO[0], {**TWO[1], **changes}]


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "no samples"),
        ([TWO[0], {"text": TWO[1]["text"]}], {}, "sample 1 has no 'audio'.*array of length 0"),
        ([{"text": TWO[1]["text"]}, TWO[0]], {}, r"sample 1 has \['audio'\], which the first sample lacks"),
        ([TWO[0], [1, 2]], {}, r"sample 1 is no mapping but list; name its parts \(2\), such as named_samples"),
        (changed(audio=np.ones((2, 5), np.float32)), {}, r"sample 1, 'audio': got feature shape \(5,\), but sample 0"),
        (changed(audio=np.ones(2, np.float32)), {}, "sample 1, 'audio': got rank 1, but sample 0 has 2"),
        (changed(audio=np.ones((2, 4))), {}, "sample 1, 'audio': got dtype float64, but sample 0 has float32"),
        (changed(audio=np.float32(1)), {}, r"sample 1, 'audio': got shape \(\)"),
        (changed(targets=[1, 2]), {}, r"sample 1, 'targets': got shape \(2,\)"),
        ([TWO[0], {m: TWO[1][m] for m in ("text", "audio")}], {}, "sample 1 has no 'targets' and others have"),
        (TWO, {"batch_size": 1}, "2 samples for a batch of 1"),
        (TWO, {"pad_to": {"text": 1, "audio": 9}}, "sample 0, 'text': 2 positions do not fit pad_to=1"),
        (TWO, {"pad_to": {"text": 8}}, "pad_to has no 'audio'"),
        (TWO, {"pad_value": 0.5}, "'text': the pad value 0.5 is not a value of dtype int32"),
        (TWO, {"pad_value": float("nan"), "modalities": ["text"]}, "the pad value nan"),
        (TWO, {"pad_value": {"txt": 9}}, r"pad values for \['txt'\]; the modalities are"),
        (
            [{"audio": np.ones(3, np.float16)}],
            {"pad_value": 1e6},
            "the pad value 1000000.0 is not a value of dtype float16",
        ),
        (TWO, {"ids": [40, 41], "pad_to": {"text": 1, "audio": 9}}, "sample 40, 'text'"),
    ],
)
def test_bad_samples_are_named(samples, options, message):
    with pytest.raises(SampleError, match=message):
        pad_samples(samples, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite(value):
    features = np.ones((3, 4), np.float32)
    features[2, 1] = value
    samples = [TWO[0], {**TWO[1], "audio": features}]
    with pytest.raises(SampleError, match="sample 1, 'audio': position 2 holds NaN or inf"):
        pad_samples(samples, check_finite=True)
    assert np.isnan(pad_samples(samples).features["audio"]).any() == np.isnan(value)
