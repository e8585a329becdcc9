"""Reference lines on the same splits: what one gets without a neural network. Never in a verdict."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np

__all__ = ["REFERENCES", "names", "reference"]

WIDEST_TABLE = 1000
"""Columns: beyond, and for images and texts, linear models and trees take longer than the study."""

Predict = Callable[[np.ndarray], np.ndarray]


def majority(arrays: Mapping[str, np.ndarray], classes: int, seed: int) -> Predict:
    """The training label frequencies for every row (Laplace-smoothed, so that no label is impossible)."""
    counts = np.bincount(arrays["train_target"], arrays.get("train_weight"), minlength=classes) + 1.0
    share = counts / counts.sum()
    return lambda features: np.tile(share, (len(features), 1))


def logistic_regression(arrays: Mapping[str, np.ndarray], classes: int, seed: int) -> Predict:
    """scikit-learn's, C = 1."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(arrays["train_features"], arrays["train_target"], sample_weight=arrays.get("train_weight"))
    return _of_all_classes(model, classes)


def histogram_gradient_boosting(arrays: Mapping[str, np.ndarray], classes: int, seed: int) -> Predict:
    """scikit-learn's, with its defaults."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=seed)
    model.fit(arrays["train_features"], arrays["train_target"], sample_weight=arrays.get("train_weight"))
    return _of_all_classes(model, classes)


REFERENCES: Mapping[str, Callable[[Mapping[str, np.ndarray], int, int], Predict]] = {
    "majority class": majority,
    "logistic regression": logistic_regression,
    "histogram gradient boosting": histogram_gradient_boosting,
}


def names(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the reference lines for a design's data.

    Example:
        >>> names({"input_shape": [64]})
        ('majority class', 'logistic regression', 'histogram gradient boosting')
        >>> names({"input_shape": [3, 32, 32]}), names({"input_shape": [50], "vocabulary": 9000})
        (('majority class',), ('majority class',))
    """
    shape = data["input_shape"]
    table = len(shape) == 1 and shape[0] <= WIDEST_TABLE and not data.get("vocabulary")
    return tuple(REFERENCES) if table else ("majority class",)


def reference(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Log-probabilities of a reference for validation and test rows, and the seconds it took."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    started = perf_counter()
    # One thread, so that the numbers are those of a worker wherever it is computed.
    with threadpool_limits(1):
        predict = REFERENCES[config["model"]["name"]](arrays, config["classes"], config["seed"])
        logits = {f"{part}_logits": _log(predict(_features(arrays, part))) for part in ("validation", "test")}
    return {**logits, "seconds": np.array(perf_counter() - started)}


def _features(arrays: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    """Of rows in a file, which have the majority as their only reference, the number alone matters."""
    return arrays[f"{part}_rows" if "file" in arrays else f"{part}_features"]


def _of_all_classes(model: Any, classes: int) -> Predict:
    """Probability 0 for a class that the training rows lack."""

    def predict(features: np.ndarray) -> np.ndarray:
        wide = np.zeros((len(features), classes))
        wide[:, model.classes_] = model.predict_proba(features)
        return wide

    return predict


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Float32 log-probabilities; the smallest normal number stands for 0, lest one row be all of NLL."""
    bounded: np.ndarray = np.maximum(probabilities, np.finfo(np.float32).tiny)
    logs: np.ndarray = np.log(bounded).astype(np.float32)
    return logs
