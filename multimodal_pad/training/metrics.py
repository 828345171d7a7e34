"""Metrics over the real samples of a split (scikit-learn, imported when it is needed)."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from multimodal_pad.errors import TrainingError


def require_scikit_learn() -> None:
    """Raise a TrainingError that says how to install scikit-learn, where it is absent."""
    if find_spec("sklearn") is None:
        raise TrainingError(
            "accuracy and F1 need scikit-learn; install it with pip install 'multimodal-pad[experiments]'"
        )


def classification_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy and weighted F1 of logits ``(N, K)`` against class numbers ``(N,)``.

    >>> classification_metrics(np.eye(3)[[0, 1, 1, 2]], np.array([0, 1, 2, 2]))
    {'accuracy': 0.75, 'weighted_f1': 0.75}
    """
    require_scikit_learn()
    from sklearn.metrics import accuracy_score, f1_score

    predicted = np.asarray(outputs).argmax(axis=1)
    return {
        "accuracy": float(accuracy_score(targets, predicted)),
        "weighted_f1": float(f1_score(targets, predicted, average="weighted")),
    }


def regression_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean absolute error of ``(N, K)`` against targets of as many values.

    >>> regression_metrics(np.array([[1.0], [2.0]]), np.array([1.0, 4.0]))
    {'mae': 1.0}
    """
    outputs = np.asarray(outputs)
    return {"mae": float(np.abs(outputs - np.asarray(targets).reshape(outputs.shape)).mean())}
