"""The field's metrics, against cases worked out by hand, scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

from multimodal_pad.errors import TrainingError
from multimodal_pad.training import classification_metrics, emotion_metrics, sentiment_metrics, sims_metrics

sentiments = st.lists(
    st.tuples(st.floats(-4, 4, width=32), st.integers(-15, 15).map(lambda n: n / 5)), min_size=2, max_size=30
)


def split(pairs):
    predicted, wanted = np.array(pairs).T
    return predicted[:, None], wanted


def test_sentiment_by_hand():
    #             7: 3 == 3   0 == 0   -2 != -1  1 != 2   -3 == -3
    predicted = np.array([[3.4], [-0.5], [-1.5], [1.4], [-3.2]])
    wanted = np.array([3.0, 0.0, -1.0, 1.6, -2.8])
    found = sentiment_metrics(predicted, wanted)
    assert found["acc7"] == pytest.approx(3 / 5)
    assert found["acc5"] == pytest.approx(3 / 5)  # 2 == 2, 0 == 0, -2 != -1, 1 != 2, -2 == -2
    assert found["acc2_has0"] == pytest.approx(4 / 5)  # 0 counts as not negative, and -0.5 as negative
    # Negative: 2 of 2 found and one too many, so F1 is 0.8; the rest: 2 of 3 found, 0.8 too.
    assert found["f1_has0"] == pytest.approx((2 * 0.8 + 3 * 0.8) / 5)
    assert found["acc2_non0"] == found["f1_non0"] == 1.0
    assert found["mae"] == pytest.approx((0.4 + 0.5 + 0.5 + 0.2 + 0.4) / 5)


@pytest.mark.parametrize(("value", "seven"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (9, 3)])
def test_halves_are_rounded_to_even(value, seven):
    assert sentiment_metrics(np.array([[value], [0.0]]), np.array([float(seven), 0.0]))["acc7"] == 1
    assert sentiment_metrics(np.array([[float(seven)], [0.0]]), np.array([value, 0.0]))["acc7"] == 1


def test_what_has_no_value_is_nan():
    found = sentiment_metrics(np.array([[1.0], [2.0]]), np.array([0.0, 0.0]))
    assert np.isnan([found["acc2_non0"], found["f1_non0"], found["corr"]]).all()
    assert found["acc2_has0"] == 1
    assert np.isnan(sentiment_metrics(np.array([[1.0], [1.0]]), np.array([0.0, 1.0]))["corr"])


@settings(max_examples=25)
@given(sentiments)
def test_sentiment_equals_scikit_learn_and_scipy(pairs):
    predicted, wanted = split(pairs)
    found = sentiment_metrics(predicted, wanted)
    flat = predicted[:, 0]
    for clip, name in ((3, "acc7"), (2, "acc5")):
        classes = [np.round(np.clip(values, -clip, clip)) for values in (wanted, flat)]
        assert found[name] == pytest.approx(accuracy_score(*classes))
    assert found["acc2_has0"] == pytest.approx(accuracy_score(wanted >= 0, flat >= 0))
    assert found["f1_has0"] == pytest.approx(f1_score(wanted >= 0, flat >= 0, average="weighted"))
    kept = wanted != 0
    if kept.any():
        assert found["acc2_non0"] == pytest.approx(accuracy_score(wanted[kept] > 0, flat[kept] > 0))
        assert found["f1_non0"] == pytest.approx(f1_score(wanted[kept] > 0, flat[kept] > 0, average="weighted"))
    assert found["mae"] == pytest.approx(np.abs(flat - wanted).mean())
    if np.ptp(flat) > 1e-3 and np.ptp(wanted) > 0:
        assert found["corr"] == pytest.approx(pearsonr(flat, wanted).statistic, abs=1e-6)


# Class of each value: two at 0, three at +-0.1, five at +-0.1 and +-0.7; what is at an edge belongs below it.
SIMS = [
    (-1.0, 0, 0, 0),
    (-1.7, 0, 0, 0),
    (-0.7, 0, 0, 0),
    (-0.69, 0, 0, 1),
    (-0.1, 0, 0, 1),
    (-0.09, 0, 1, 2),
    (0.0, 0, 1, 2),
    (0.09, 1, 1, 2),
    (0.1, 1, 1, 2),
    (0.11, 1, 2, 3),
    (0.7, 1, 2, 3),
    (0.71, 1, 2, 4),
    (1.0, 1, 2, 4),
    (2.5, 1, 2, 4),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_bins(dtype):
    for value, *classes in SIMS:
        for other, *others in SIMS:
            found = sims_metrics(np.array([[value]], dtype), np.array([other], dtype))
            same = [one == two for one, two in zip(classes, others, strict=True)]
            assert [found["acc2"], found["acc3"], found["acc5"]] == same, (value, other)
            assert found["mae"] == pytest.approx(abs(np.clip(value, -1, 1) - np.clip(other, -1, 1)), abs=1e-6)


@settings(max_examples=25)
@given(sentiments)
def test_sims_f1_and_correlation(pairs):
    predicted, wanted = split(pairs)
    found = sims_metrics(predicted, wanted)
    assert found["f1"] == pytest.approx(f1_score(wanted > 0, predicted[:, 0] > 0, average="weighted"))
    clipped = [np.clip(values, -1, 1) for values in (predicted[:, 0], wanted)]
    if min(np.ptp(values) for values in clipped) > 1e-3:
        assert found["corr"] == pytest.approx(pearsonr(*clipped).statistic, abs=1e-6)


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 4, *[st.integers(0, 1)] * 4), min_size=1, max_size=20))
def test_iemocap_is_four_binary_tasks(rows):
    outputs, targets = np.hsplit(np.array(rows), 2)
    found = emotion_metrics(outputs, targets.astype(np.int32))
    for column, emotion in enumerate(("neutral", "happy", "sad", "angry")):
        one, other = targets[:, column].astype(int), (outputs[:, column] > 0).astype(int)
        assert found[f"{emotion}_accuracy"] == pytest.approx(accuracy_score(one, other))
        assert found[f"{emotion}_f1"] == pytest.approx(f1_score(one, other, average="weighted"))
    assert found["mean_f1"] == pytest.approx(np.mean([found[f"{e}_f1"] for e in ("neutral", "happy", "sad", "angry")]))


def test_meld_by_hand():
    # Classes 0, 0, 1, 2 taken for 0, 1, 1, 1: F1 of 0 is 2/3, of 1 is 1/2, of 2 is 0.
    found = classification_metrics(np.eye(3)[[0, 1, 1, 1]], np.array([0, 0, 1, 2]))
    assert found["accuracy"] == 0.5
    assert found["weighted_f1"] == pytest.approx((2 * 2 / 3 + 1 / 2 + 0) / 4)


@pytest.mark.parametrize("metrics", [sentiment_metrics, sims_metrics])
@pytest.mark.parametrize(("outputs", "targets"), [((3, 2), (3,)), ((3, 1), (3, 2)), ((3, 1), (2,))])
def test_sentiment_is_one_number_a_sample(metrics, outputs, targets):
    with pytest.raises(TrainingError, match="sentiment is one number for each sample"):
        metrics(np.zeros(outputs), np.zeros(targets))


def test_iemocap_has_four_outputs():
    with pytest.raises(
        TrainingError, match=r"got outputs of shape \(3, 8\) and targets of shape \(3, 4\); both must be"
    ):
        emotion_metrics(np.zeros((3, 8)), np.zeros((3, 4)))
