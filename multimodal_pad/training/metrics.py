"""Metrics over the real samples of a split, as the field reports them (scikit-learn, imported when it is needed).

The conventions are those of the field's own code: MulT's ``eval_metrics.py`` (Tsai et al., ACL 2019) for CMU-MOSI,
CMU-MOSEI and IEMOCAP, MMSA's ``metricsTop.py`` (Mao et al., ACL 2022) for CH-SIMS and for both conventions of Acc-2.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from multimodal_pad.errors import TrainingError
from multimodal_pad.lengths.samples import shown
from multimodal_pad.sources.mult import EMOTIONS
from multimodal_pad.training.loss import Loss, binary_cross_entropy, cross_entropy, l1

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""``(outputs (N, K), targets (N, ...)) -> {name: figure}``."""


def check_metrics(metrics: Any) -> None:
    """Raise a TrainingError unless metrics are a function, or None.

    >>> check_metrics("classification")
    Traceback (most recent call last):
    multimodal_pad.errors.TrainingError: got metrics='classification'; give a function of outputs and targets that \
returns {name: figure}, such as multimodal_pad.training.classification_metrics, or leave it out for what suits the loss
    """
    if metrics is not None and not callable(metrics):
        raise TrainingError(
            f"got metrics={shown(metrics)}; give a function of outputs and targets that returns {{name: figure}}, such "
            "as multimodal_pad.training.classification_metrics, or leave it out for what suits the loss"
        )


def require_scikit_learn() -> None:
    """Raise a TrainingError that says how to install scikit-learn, where it is absent."""
    if find_spec("sklearn") is None:
        raise TrainingError("accuracy and F1 need scikit-learn; install it with pip install 'multimodal-pad[metrics]'")


def classification_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute accuracy and weighted F1, as for MELD's seven emotions.

    Args:
        outputs: logits ``(N, K)``.
        targets: class numbers, int (or bool: 0 and 1) ``(N,)``.

    Raises:
        TrainingError: other shapes or dtypes than these, or scikit-learn is not installed.

    >>> classification_metrics(np.eye(3)[[0, 1, 1, 2]], np.array([0, 1, 2, 2]))
    {'accuracy': 0.75, 'weighted_f1': 0.75}
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.ndim != 2 or targets.shape != outputs.shape[:1] or targets.dtype.kind not in "biu":
        raise TrainingError(
            f"got outputs of shape {outputs.shape} and targets of dtype {targets.dtype} and shape {targets.shape}; "
            "classification is of logits (samples, classes) and a class number, an int, for each sample"
        )
    predicted, targets = outputs.argmax(axis=1), targets.astype(np.int64)
    return {"accuracy": _accuracy(predicted, targets), "weighted_f1": _weighted_f1(predicted, targets)}


def multilabel_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute accuracy and weighted F1 of K binary tasks at once, each the mean over the tasks.

    Args:
        outputs: logits ``(N, K)``; above 0 means yes.
        targets: 0 or 1 (of a probability: whether it is above 0.5), as many, ``(N, K)`` or ``(N,)``.

    Raises:
        TrainingError: as many targets as outputs are not given, or scikit-learn is not installed.

    >>> found = multilabel_metrics(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1, 0], [0, 1]]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'accuracy': 0.75, 'mean_f1': 0.667}
    """
    outputs, targets = _as_many(outputs, targets)
    predicted, wanted = (x.reshape(len(x), -1) for x in (outputs > 0, targets > 0.5))
    f1 = [_weighted_f1(*columns) for columns in zip(predicted.T, wanted.T, strict=True)]
    return {"accuracy": _accuracy(predicted, wanted), "mean_f1": float(np.mean(f1))}


def regression_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute the mean absolute error.

    Args:
        outputs: ``(N, K)``.
        targets: as many values, ``(N, K)`` or ``(N,)``.

    Raises:
        TrainingError: as many targets as outputs are not given.

    >>> regression_metrics(np.array([[1.0], [2.0]]), np.array([1.0, 4.0]))
    {'mae': 1.0}
    """
    outputs, targets = _as_many(outputs, targets)
    return {"mae": float(np.abs(outputs - targets).mean())}


def sentiment_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute the usual figures for CMU-MOSI and CMU-MOSEI: sentiment from -3 to 3.

    - ``acc7``, ``acc5``: both clipped to ±3 or ±2, rounded (halves to even), equal.
    - ``acc2_has0``, ``f1_has0``: not negative (``>= 0``) against negative, all samples.
    - ``acc2_non0``, ``f1_non0``: positive (``> 0``) against the rest, without samples labelled 0; NaN where all are.
    - ``mae``: not clipped. ``corr``: Pearson's, NaN where outputs or targets are all equal.

    F1 is weighted by the true number of samples of each class, as in MMSA. (MulT's own code hands scikit-learn the
    outputs as the truth, and so weighs by the predictions.)

    Args:
        outputs: sentiment, ``(N, 1)`` or ``(N,)``.
        targets: the same, ``(N,)`` or ``(N, 1)``.

    Raises:
        TrainingError: more or fewer than one number per sample, or scikit-learn is not installed.

    >>> found = sentiment_metrics(np.array([[2.6], [-0.5], [0.4]]), np.array([3.0, 0.0, -1.0]))
    >>> {name: round(value, 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'acc7': 0.667, 'acc5': 0.667, 'acc2_has0': 0.333, 'f1_has0': 0.333, 'acc2_non0': 0.5, 'f1_non0': 0.333,
     'mae': 0.767, 'corr': 0.864}
    """
    predicted, wanted = _values(outputs, targets)
    signed = wanted != 0
    return {
        "acc7": _accuracy(*(np.round(np.clip(values, -3, 3)) for values in (predicted, wanted))),
        "acc5": _accuracy(*(np.round(np.clip(values, -2, 2)) for values in (predicted, wanted))),
        "acc2_has0": _accuracy(predicted >= 0, wanted >= 0),
        "f1_has0": _weighted_f1(predicted >= 0, wanted >= 0),
        "acc2_non0": _accuracy(predicted[signed] > 0, wanted[signed] > 0),
        "f1_non0": _weighted_f1(predicted[signed] > 0, wanted[signed] > 0),
        "mae": float(np.abs(predicted - wanted).mean()),
        "corr": _pearson(predicted, wanted),
    }


def sims_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute the usual figures for CH-SIMS: sentiment from -1 to 1, to which outputs and targets are clipped.

    - ``acc2`` and ``f1``: classes split at 0; ``acc3``: at ±0.1; ``acc5``: at ±0.1 and ±0.7. A value at an edge
      belongs to the class below it. F1 is weighted by the number of samples of each class.
    - ``mae`` and ``corr`` (Pearson's) of the clipped values.

    Args:
        outputs: sentiment, ``(N, 1)`` or ``(N,)``.
        targets: the same, ``(N,)`` or ``(N, 1)``.

    Raises:
        TrainingError: more or fewer than one number per sample, or scikit-learn is not installed.

    >>> found = sims_metrics(np.array([[0.9], [0.0], [-0.2]]), np.array([0.8, -0.4, 0.2]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'acc2': 0.667, 'f1': 0.667, 'acc3': 0.333, 'acc5': 0.333, 'mae': 0.3, 'corr': 0.768}
    """
    predicted, wanted = (np.clip(values, -1, 1) for values in _values(outputs, targets))

    def classes(*edges: float) -> tuple[np.ndarray, np.ndarray]:
        # In float32, as the labels are: 0.1 is at the edge of 0.1 then.
        bins = np.array(edges, np.float32)
        first, second = (np.digitize(values.astype(np.float32), bins, right=True) for values in (predicted, wanted))
        return first, second

    return {
        "acc2": _accuracy(*classes(0)),
        "f1": _weighted_f1(*classes(0)),
        "acc3": _accuracy(*classes(-0.1, 0.1)),
        "acc5": _accuracy(*classes(-0.7, -0.1, 0.1, 0.7)),
        "mae": float(np.abs(predicted - wanted).mean()),
        "corr": _pearson(predicted, wanted),
    }


def emotion_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute the usual figures for IEMOCAP: accuracy and weighted F1 of each of four binary tasks.

    Args:
        outputs: logits ``(N, 4)``; above 0 means that the emotion is there.
        targets: 0 or 1 ``(N, 4)``, in the order of :data:`multimodal_pad.sources.mult.EMOTIONS`.

    Returns:
        ``{"neutral_accuracy": ..., "neutral_f1": ..., "happy_accuracy": ..., ...}``, and ``mean_f1``.

    Raises:
        TrainingError: other shapes than these, or scikit-learn is not installed.

    >>> found = emotion_metrics(np.array([[1, -1, -1, 1.0]] * 2), np.array([[1, 0, 0, 1], [1, 0, 1, 0]]))
    >>> {name: round(found[name], 3) for name in ("neutral_f1", "sad_accuracy", "sad_f1", "angry_f1", "mean_f1")}
    {'neutral_f1': 1.0, 'sad_accuracy': 0.5, 'sad_f1': 0.333, 'angry_f1': 0.333, 'mean_f1': 0.667}
    """
    predicted, wanted = np.asarray(outputs) > 0, np.asarray(targets)
    if predicted.shape != wanted.shape or wanted.shape[1:] != (len(EMOTIONS),):
        raise TrainingError(
            f"got outputs of shape {predicted.shape} and targets of shape {wanted.shape}; both must be (samples, "
            f"{len(EMOTIONS)}), for {', '.join(EMOTIONS)}"
        )
    found = {}
    for column, emotion in enumerate(EMOTIONS):
        found[f"{emotion}_accuracy"] = _accuracy(predicted[:, column], wanted[:, column])
        found[f"{emotion}_f1"] = _weighted_f1(predicted[:, column], wanted[:, column])
    return {**found, "mean_f1": float(np.mean([found[f"{emotion}_f1"] for emotion in EMOTIONS]))}


NEED_SCIKIT_LEARN = (classification_metrics, multilabel_metrics, sentiment_metrics, sims_metrics, emotion_metrics)

OURS = (*NEED_SCIKIT_LEARN, regression_metrics)
"""This package's metrics: their names and errors follow from shapes and dtypes alone."""


_USUAL = ((cross_entropy, classification_metrics), (binary_cross_entropy, multilabel_metrics), (l1, regression_metrics))


def usual_metrics_of(loss: Loss | None) -> Metrics | None:
    """Return the metrics for one of this package's losses; None for others."""
    return next((metrics for of, metrics in _USUAL if of is loss), None)


def _as_many(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both, in the shape of the outputs."""
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.size != targets.size or len(outputs) != len(targets):
        raise TrainingError(
            f"got outputs of shape {outputs.shape} and targets of shape {targets.shape}; give a target for each output"
        )
    return outputs, targets.reshape(outputs.shape)


def _values(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one value per sample of each, float64 ``(N,)``."""
    predicted, wanted = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    if predicted.size != len(predicted) or wanted.size != len(wanted) or len(predicted) != len(wanted):
        raise TrainingError(
            f"got outputs of shape {predicted.shape} and targets of shape {wanted.shape}; sentiment is one number for "
            "each sample"
        )
    return predicted.reshape(-1), wanted.reshape(-1)


def _accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean(predicted == wanted)) if len(wanted) else float("nan")


def _weighted_f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    require_scikit_learn()
    from sklearn.metrics import f1_score

    return float(f1_score(wanted, predicted, average="weighted")) if len(wanted) else float("nan")


def _pearson(predicted: np.ndarray, wanted: np.ndarray) -> float:
    if len(wanted) < 2 or np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, wanted)[0, 1])
