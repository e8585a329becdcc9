"""Scores of one set of predictions, and what each row contributes to them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from infoloss.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    noise_floor,
    tempered,
)
from infoloss.evaluation.predictions import checked, labels

__all__ = [
    "CONTRIBUTING",
    "METRICS",
    "confusion",
    "contributions",
    "label_contributions",
    "per_class_recall",
    "scores",
]

METRICS = (
    "accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "nll", "brier", "ece", "ece_noise_floor",
    "temperature", "nll_scaled", "brier_scaled", "ece_scaled",
)  # fmt: skip
"""Keys of `scores`."""

CONTRIBUTING = ("accuracy", "balanced_accuracy", "nll", "nll_scaled", "brier", "brier_scaled")
"""Metrics that are means over rows."""

Predictions = tuple[Any, Any]  # log-probabilities (n, C), target (n,)


def scores(
    log_probabilities: Any, target: Any, decision: Any, *, validation: Predictions | None = None
) -> dict[str, float]:
    """All scores of predictions on test rows.

    - accuracy: share of rows with decision = target.
    - balanced_accuracy: mean recall over the classes that the target has.
    - macro_f1: mean of 2·TP / (2·TP + FP + FN) over the classes that target or decision have.
    - roc_auc: mean over classes of P(p_c of a row of c > p_c of another row) + ½ P(equal), over classes that
      some but not all rows have; 0.5 where there is none.
    - nll: mean of −log p_y, nats; inf where a label has probability 0.
    - brier: mean of Σ_c (p_c − [y = c])², 0 … 2.
    - ece, ece_noise_floor: `expected_calibration_error`, `noise_floor`.
    - temperature: `fit_temperature` on the validation rows; nll_scaled, brier_scaled, ece_scaled: of
      softmax(log p / T). Without validation rows, these four are left out.

    No score is nan, also where the rows lack a class.

    Args:
        log_probabilities: (n, C), what the loss implies; rows sum to 1 in probability.
        target: (n,) class codes.
        decision: (n,) class codes, what the loss decides.
        validation: (log-probabilities, target) of the validation rows.

    Returns:
        Score by name (`METRICS`).

    Raises:
        ValueError: shapes, nan, unnormalised rows, labels out of range.

    Example:
        >>> found = scores(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1], [0, 1])
        >>> found["accuracy"], round(found["nll"], 4)  # (log 2 + log 4/3) / 2
        (1.0, 0.4904)
    """
    log_p, codes = checked(log_probabilities, target)
    decided = labels(decision, len(codes), log_p.shape[1], "decision")
    table = confusion(codes, decided, log_p.shape[1])
    found = {
        "accuracy": float((decided == codes).mean()),
        "balanced_accuracy": _balanced_accuracy(table),
        "macro_f1": _macro_f1(table),
        "roc_auc": _roc_auc(log_p, codes),
        "nll": float(_nll(log_p, codes).mean()),
        "brier": float(_brier(log_p, codes).mean()),
        "ece": expected_calibration_error(log_p, codes),
        "ece_noise_floor": noise_floor(log_p),
    }
    if validation is not None:
        temperature = fit_temperature(*validation)
        scaled = tempered(log_p, temperature)
        found["temperature"] = temperature
        found["nll_scaled"] = float(_nll(scaled, codes).mean())
        found["brier_scaled"] = float(_brier(scaled, codes).mean())
        found["ece_scaled"] = expected_calibration_error(scaled, codes)
    return found


def contributions(
    log_probabilities: Any,
    target: Any,
    decision: Any,
    metric: str,
    *,
    validation: Predictions | None = None,
) -> np.ndarray:
    """What each row contributes to a score: (n,) float64 whose mean is the score.

    Balanced accuracy: n · [right] / (K · n_y), with K classes and n_y rows of the row's class. The `_scaled`
    metrics need the validation rows that give the temperature.

    Raises:
        ValueError: the metric is not a mean over rows (`CONTRIBUTING`), or as `scores`.

    Example:
        >>> log_p = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> contributions(log_p, [0, 0, 1], [0, 1, 1], "balanced_accuracy")
        array([0.75, 0.  , 1.5 ])
    """
    if metric not in CONTRIBUTING:
        near = difflib.get_close_matches(metric, CONTRIBUTING, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"metric={metric!r} is no mean over rows{hint}; expected {', '.join(CONTRIBUTING)}")
    log_p, codes = checked(log_probabilities, target)
    if metric.endswith("_scaled"):
        if validation is None:
            raise ValueError(f"metric={metric!r} needs validation=(log_probabilities, target)")
        log_p = tempered(log_p, fit_temperature(*validation))
    if metric.startswith("nll"):
        return _nll(log_p, codes)
    if metric.startswith("brier"):
        return _brier(log_p, codes)
    return label_contributions(codes, labels(decision, len(codes), log_p.shape[1], "decision"), metric)


def label_contributions(target: np.ndarray, decision: np.ndarray, metric: str) -> np.ndarray:
    """`contributions` to "accuracy" or "balanced_accuracy", which need no probabilities.

    Example:
        >>> label_contributions(np.array([0, 0, 1]), np.array([0, 1, 1]), "accuracy")
        array([1., 0., 1.])
    """
    right = (decision == target).astype(np.float64)
    if metric == "accuracy":
        return np.asarray(right)
    rows = np.bincount(target)
    return np.asarray(right * len(target) / (np.count_nonzero(rows) * rows[target]))


def confusion(target: Any, decision: Any, classes: int | Sequence[str]) -> np.ndarray:
    """Counts (C, C) of rows by true class (rows) and decided class (columns); `classes` or their number.

    Example:
        >>> confusion([0, 0, 1], [0, 1, 1], classes=2)
        array([[1, 1],
               [0, 1]])
    """
    size = classes if isinstance(classes, int) else len(classes)
    codes = labels(target, len(target), size, "target")
    decided = labels(decision, len(codes), size, "decision")
    return np.bincount(codes * size + decided, minlength=size * size).reshape(size, size)


def per_class_recall(target: Any, decision: Any, classes: int | Sequence[str]) -> np.ndarray:
    """Share of the rows of each class that are decided right, (C,); 0 for a class without rows.

    Example:
        >>> per_class_recall([0, 0, 1], [0, 1, 1], classes=("no", "yes"))
        array([0.5, 1. ])
    """
    return _recall(confusion(target, decision, classes))


def _recall(table: np.ndarray) -> np.ndarray:
    return np.asarray(np.diag(table) / np.maximum(table.sum(axis=1), 1))


def _balanced_accuracy(table: np.ndarray) -> float:
    return float(_recall(table)[table.sum(axis=1) > 0].mean())


def _macro_f1(table: np.ndarray) -> float:
    either = table.sum(axis=0) + table.sum(axis=1)  # 2·TP + FP + FN
    return float((2 * np.diag(table)[either > 0] / either[either > 0]).mean())


def _roc_auc(log_p: np.ndarray, codes: np.ndarray) -> float:
    areas = []
    for number in np.unique(codes):
        inside = codes == number
        if inside.all():
            continue
        others = np.sort(log_p[~inside, number])
        values = log_p[inside, number]
        below = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
        areas.append(below.mean() / (2 * len(others)))
    return float(np.mean(areas)) if areas else 0.5


def _nll(log_p: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.asarray(-log_p[np.arange(len(codes)), codes])


def _brier(log_p: np.ndarray, codes: np.ndarray) -> np.ndarray:
    difference = np.exp(log_p)
    difference[np.arange(len(codes)), codes] -= 1
    return np.asarray((difference**2).sum(axis=1))
